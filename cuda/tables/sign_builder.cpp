#include "cuda/tables/sign_builder.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace ketgrad::cuda {

namespace {

// Bit i is is_odd(masks[i]).
template <class F>
SignBits sign_bits_of(const std::vector<SignMask>& masks, const F& is_odd) {
  SignBits bits = 0;
  for (std::size_t i = 0; i < masks.size(); ++i) bits |= SignBits{is_odd(masks[i])} << i;
  return bits;
}

}  // namespace

void SignBuilder::begin(AffineMap tiles) {
  tiles_ = std::move(tiles);
  tile_bits_.clear();
  known_.clear();
}

TileSignBits SignBuilder::finish() {
  const std::int32_t base = add_tile_mask([](Mask base) { return base; });
  std::vector<SignBits> list;
  for (std::size_t v = 0; v <= tiles_.basis.size(); ++v) {
    for (const auto& values : tile_bits_) list.push_back(values[v]);
  }
  return {append(tables_.sign_bits, list).first, count(), base};
}

std::int32_t SignBuilder::add_tile_signs(const std::vector<SignMask>& masks) {
  std::vector<SignBits> values = affine(
      [&](Mask base) { return sign_bits_of(masks, [&](const SignMask& m) { return odd_parity(m.tile & base); }); });
  const auto [at, is_new] = known_.try_emplace(values, count());
  if (is_new) tile_bits_.push_back(std::move(values));
  return at->second;
}

GroupSigns SignBuilder::add_group_signs(const std::vector<SignMask>& masks, const AffineMap& groups) {
  const auto of_row = [&](Mask row) {
    return sign_bits_of(masks, [&](const SignMask& m) { return odd_parity(m.row & row); });
  };
  std::vector<SignBits> vectors;
  for (const Mask v : groups.basis) vectors.push_back(of_row(v));
  const auto middle =
      vectors.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(warp_lane_bits, vectors.size()));
  std::vector<SignBits> sums;
  const auto add = [&](SignBits origin, const std::vector<SignBits>& basis) {
    sums.clear();
    for_each_sum(origin, basis, [&](SignBits bits) { sums.push_back(bits); });
  };
  GroupSigns signs;
  add(0, {vectors.begin(), middle});
  sums.resize(most_signs, 0);  // lanes of the warp without a group
  signs.warp_lanes = append(tables_.sign_bits, sums).first;
  add(of_row(groups.origin), {middle, vectors.end()});
  signs.warps = append(tables_.sign_bits, sums).first;
  signs.tile = add_tile_signs(masks);
  return signs;
}

}  // namespace ketgrad::cuda

#include "cuda/tables/operation_builder.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <iterator>
#include <numeric>
#include <utility>
#include <variant>

#include "cuda/tables/affine.h"

namespace ketgrad::cuda {

namespace {

// Sixteen threads at a time access shared memory, without a bank conflict if their slots differ in the lowest bits.
// Moves to the front, of the vectors that span the `num_active` groups, those that make the slots differ.
void spread_over_banks(std::vector<Mask>& basis, int num_active) {
  constexpr Local bank = 15;
  Span banks;
  std::vector<Mask> first;
  std::vector<Mask> then;
  for (int b = 0; b < num_active; ++b)
    (banks.add(slot(static_cast<Local>(basis[b])) & bank) ? first : then).push_back(basis[b]);
  std::ranges::copy(first, basis.begin());
  std::ranges::copy(then, basis.begin() + std::ssize(first));
}

// The first free slot for a Z-string of this pattern; -1 if there is none.
int find_slot(const std::vector<ZStringSlot>& slots, int pattern) {
  for (int l = 0; l < most_layers; ++l) {
    for (int j = 0; j < pattern_strings; ++j) {
      const int place = l * layer_strings + pattern * pattern_strings + j;
      if (slots[place].string < 0) return place;
    }
  }
  return -1;
}

}  // namespace

// A thread multiplies the rows that it rotates by their phases first. A Z-string that finds no slot moves behind the
// rotations if it commutes with them, which it does where its pattern is zero. Otherwise, and at the end of the pass,
// Z-strings become operations of their own.
Range OperationBuilder::add_operations(const TilePass& pass) {
  const Vectors rows = basis_of(pass.rows);
  const auto tile_bits = static_cast<int>(rows.size());
  std::vector<TableOp> operations;
  std::vector<Waiting> waiting;
  const auto flush = [&] {
    while (!waiting.empty()) operations.push_back(phases(waiting, tile_bits));
  };
  for (const TileOp& op : pass.operations) {
    if (const auto* rotation_block = std::get_if<RotationBlock>(&op)) {
      const TableOp rotated = rotations(*rotation_block, waiting, tile_bits);
      std::vector<Waiting> later;
      std::erase_if(waiting, [&](const Waiting& w) {
        const bool commutes = std::ranges::none_of(
            rotation_block->row_flip, [&](Index flip) { return odd_parity(w.mask.row & static_cast<Mask>(flip)); });
        if (commutes) later.push_back(w);
        return commutes;
      });
      flush();
      operations.push_back(rotated);
      waiting = std::move(later);
    } else {
      for (const DiagonalRotation& s : std::get<Phases>(op).strings)
        waiting.push_back({{parities(s.tile_mask, rows), s.tile_mask}, &s});
    }
  }
  flush();
  return append(tables_.operations, operations);
}

// Takes Z-strings off those that wait.
TableOp OperationBuilder::rotations(const RotationBlock& rotation_block, std::vector<Waiting>& waiting, int tile_bits) {
  TableOp op;
  op.rotations = static_cast<std::int32_t>(rotation_block.rotations.size());
  op.first_angle = rotations_;
  op.num_active = static_cast<std::int32_t>(rotation_block.num_active);
  std::vector<SignMask> signs;
  for (int j = 0; j < op.rotations; ++j) {
    values_.set_angle(rotations_++, {rotation_block.rotations[j]});
    signs.push_back({0, rotation_block.tile_sign[j]});  // the first rows of groups are even
  }
  op.rotation_signs = signs_.add_tile_signs(signs);
  std::vector<Mask> flips;
  for (const Index f : rotation_block.row_flip) flips.push_back(static_cast<Mask>(f));
  set_groups(op, std::move(flips), AffineMap::of(rotation_block.groups), waiting, tile_bits);
  return op;
}

// Rows are grouped so that the patterns of the Z-strings differ as much as possible.
TableOp OperationBuilder::phases(std::vector<Waiting>& waiting, int tile_bits) {
  std::vector<int> bits(tile_bits);
  std::iota(bits.begin(), bits.end(), 0);
  const auto unevenness = [&](int bit) {
    const auto odd = [&](const Waiting& w) { return ((w.mask.row >> bit) & 1) != 0; };
    return std::abs(2 * std::count_if(waiting.begin(), waiting.end(), odd) - std::ssize(waiting));
  };
  std::stable_sort(bits.begin(), bits.end(), [&](int a, int b) { return unevenness(a) > unevenness(b); });
  std::sort(bits.begin(), bits.begin() + std::max(0, tile_bits - thread_row_bits));
  TableOp op;
  AffineMap groups;
  for (const int b : bits) groups.basis.push_back(unit(b));
  op.num_active = std::int32_t{1} << tile_bits;
  set_groups(op, {}, std::move(groups), waiting, tile_bits);
  return op;
}

// The groups of an operation, of as many rows as a thread holds, from those that its rotations flip; and its Z-strings.
void OperationBuilder::set_groups(TableOp& op, std::vector<Mask> flips, AffineMap groups, std::vector<Waiting>& waiting,
                                  int tile_bits) {
  // Groups of fewer rows are joined. Those outside the support come last, and stay so.
  for (int b = tile_bits; b < thread_row_bits; ++b) groups.basis.push_back(unit(b));
  while (flips.size() < thread_row_bits) {
    flips.push_back(groups.basis.back());
    groups.basis.pop_back();
  }
  op.num_active = std::min(op.num_active, std::int32_t{1} << groups.basis.size());
  spread_over_banks(groups.basis, std::countr_zero(static_cast<std::uint32_t>(op.num_active)));
  op.groups = slots_of(groups);
  for (int k = 0; k < thread_row_bits; ++k) op.flip[k] = slot(static_cast<Local>(flips[k]));
  take_strings(op, flips, groups, waiting);
}

void OperationBuilder::take_strings(TableOp& op, const std::vector<Mask>& flips, const AffineMap& groups,
                                    std::vector<Waiting>& waiting) {
  const std::vector<Mask> of_warp_lanes(
      groups.basis.begin(), groups.basis.begin() + std::min<std::ptrdiff_t>(warp_lane_bits, std::ssize(groups.basis)));
  std::vector<ZStringSlot> slots(most_layers * layer_strings);
  std::vector<std::vector<SignMask>> masks(most_layers, std::vector<SignMask>(layer_strings));
  std::vector<Waiting> left;
  for (const Waiting& w : waiting) {
    const int place = find_slot(slots, static_cast<int>(parities(w.mask.row, flips)));
    if (place < 0) {
      left.push_back(w);
      continue;
    }
    const auto angle = static_cast<std::int32_t>(tables_.angles.size());
    tables_.angles.emplace_back();
    values_.set_angle(angle, w.string->rotations);
    slots[place] = {angle - tables_.rotations, static_cast<std::int32_t>(parities(w.mask.row, of_warp_lanes))};
    masks[place / layer_strings][place % layer_strings] = w.mask;
    op.layers = std::max(op.layers, place / layer_strings + 1);
  }
  waiting = std::move(left);
  slots.resize(static_cast<std::size_t>(op.layers) * layer_strings);
  op.first_string = append(tables_.z_strings, slots).first;
  for (int l = 0; l < op.layers; ++l) op.signs[l] = signs_.add_group_signs(masks[l], groups);
}

// Rotation blocks of later layers often have the groups of earlier ones.
std::int32_t OperationBuilder::slots_of(const AffineMap& groups) {
  const auto [at, is_new] = group_slots_.try_emplace(groups, static_cast<std::int32_t>(tables_.slots.size()));
  if (is_new) {
    std::vector<std::uint16_t> slots;
    for_each_sum<Mask>(groups.origin, groups.basis,
                       [&](Mask row) { slots.push_back(static_cast<std::uint16_t>(slot(static_cast<Local>(row)))); });
    append(tables_.slots, slots);
  }
  return at->second;
}

}  // namespace ketgrad::cuda

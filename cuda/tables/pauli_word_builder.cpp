#include "cuda/tables/pauli_word_builder.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/tables/affine.h"

namespace ketgrad::cuda {

namespace {

using Members = std::vector<PauliGroup::Member>;

// Members `first` to `first + most_signs`, as far as there are any.
Members chunk_from(const Members& members, std::size_t first) {
  const std::size_t begin = std::min(first, members.size());
  const std::size_t end = std::min(first + most_signs, members.size());
  return {members.begin() + static_cast<std::ptrdiff_t>(begin), members.begin() + static_cast<std::ptrdiff_t>(end)};
}

struct PatternedMember {
  const PauliGroup::Member* member;
  std::int32_t pattern;
};

// Sorts by pattern; the list begins at `first` of its array.
Patterns sort_patterns(std::vector<PatternedMember>& list, std::size_t first) {
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.pattern < b.pattern; });
  Patterns patterns;
  patterns.first = static_cast<std::int32_t>(first);
  for (int p = 0; p < thread_rows; ++p) {
    const auto count = std::count_if(list.begin(), list.end(), [&](const auto& e) { return e.pattern <= p; });
    patterns.ends |= static_cast<std::uint64_t>(count) << (8 * p);
  }
  return patterns;
}

// In a round through a tile thread k has the rows k + u * threads: u is a row's number in its group.
AffineMap groups_of_rounds(int tile_bits, int thread_bits) {
  AffineMap groups;
  for (int b = 0; b < tile_bits; ++b) {
    if (b < thread_bits || b >= thread_bits + thread_row_bits) groups.basis.push_back(unit(b));
  }
  return groups;
}

}  // namespace

Range PauliWordBuilder::add_flip_groups(const ObservablePass& pass) {
  std::vector<FlipGroup> groups;
  for (const PauliGroup& group : pass.groups) append_flip_groups(groups, group, pass);
  return append(tables_.flip_groups, groups);
}

// As many flip groups as the Pauli words take at most_signs each.
void PauliWordBuilder::append_flip_groups(std::vector<FlipGroup>& groups, const PauliGroup& group,
                                          const ObservablePass& pass) {
  Members real;
  Members imaginary;
  for (const PauliGroup::Member& m : group.members) ((m.quarter & 1) != 0 ? imaginary : real).push_back(m);
  const auto flip = static_cast<Local>(group.row_flip);
  for (std::size_t first = 0; first < std::max(real.size(), imaginary.size()); first += most_signs) {
    groups.push_back({slot(flip), add_list(chunk_from(real, first), flip, pass),
                      add_list(chunk_from(imaginary, first), flip, pass)});
  }
}

PauliWordList PauliWordBuilder::add_list(const Members& members, Local flip, const ObservablePass& pass) {
  const int tile_bits = bits_of(pass.rows);
  const int thread_bits = thread_bits_of(tile_bits);
  std::vector<PatternedMember> sorted;
  for (const PauliGroup::Member& m : members)
    sorted.push_back({&m, static_cast<std::int32_t>((m.row_mask >> thread_bits) & (thread_rows - 1))});
  PauliWordList list;
  list.pauli_words = sort_patterns(sorted, tables_.pauli_words.size());
  if (sorted.empty()) return list;
  std::vector<SignMask> masks(most_signs);
  SignBits bit = SignBits{1} << (most_signs - 1);
  for (std::size_t i = 0; i < sorted.size(); ++i, bit /= 2) {
    const PauliGroup::Member& m = *sorted[i].member;
    masks[most_signs - 1 - i] = {static_cast<Local>(m.row_mask), m.tile_mask};
    if (m.quarter >= 2) list.of_values |= bit;
    if ((m.quarter >= 2) != odd_parity(m.row_mask & flip)) list.of_rows |= bit;
    tables_.pauli_words.push_back({static_cast<std::int32_t>(m.result), values_.add_coefficient(*m.term),
                                   sorted[i].pattern,
                                   static_cast<std::int32_t>(m.row_mask & ((1 << warp_lane_bits) - 1))});
  }
  list.signs = signs_.add_group_signs(masks, groups_of_rounds(tile_bits, thread_bits));
  return list;
}

void PauliWordBuilder::add_remaining(const std::vector<ObservablePass>& passes) {
  for (std::size_t p = tables_.pauli_word_passes.size(); p < passes.size(); ++p) {
    const ObservablePass& pass = passes[p];
    signs_.begin(AffineMap::of(pass.tiles));
    const Range groups = add_flip_groups(pass);
    tables_.pauli_word_passes.push_back(
        {bits_of(pass.rows), pass.tiles.size(), append(tables_.vectors, basis_of(pass.rows)), signs_.finish(), groups});
  }
  add_results();
}

void PauliWordBuilder::add_results() {
  std::vector<std::vector<std::int32_t>> of_result(tables_.real_results);
  for (std::size_t w = 0; w < tables_.pauli_words.size(); ++w)
    of_result[tables_.pauli_words[w].result].push_back(static_cast<std::int32_t>(w));
  for (std::size_t r = 0; r < of_result.size(); ++r) {
    if (!of_result[r].empty())
      tables_.pauli_word_results.push_back(
          {static_cast<std::int32_t>(r), append(tables_.pauli_word_lists, of_result[r])});
  }
}

}  // namespace ketgrad::cuda

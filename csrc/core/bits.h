// Index arithmetic on basis states. Wire 0 is the most significant bit, so wire w of n lives at bit position n - 1 - w.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace ketgrad {

using Index = std::int64_t;
using Mask = std::uint64_t;

constexpr bool odd_parity(Mask bits) { return (std::popcount(bits) & 1) != 0; }

constexpr int bit_of_wire(int wire, int num_wires) { return num_wires - 1 - wire; }

// Enumerates the basis states in which some bits are fixed: the r-th such state has the bits of r at the free
// positions, in order, and `value` at the fixed ones. States r and r + 1 are neighbours in memory while r stays within
// a run of 2^(lowest fixed bit).
struct FixedBits {
  std::vector<int> positions;  // ascending
  Mask value = 0;

  FixedBits() = default;
  FixedBits(std::vector<int> fixed, Mask fixed_value) : positions(std::move(fixed)), value(fixed_value) {
    std::sort(positions.begin(), positions.end());
  }

  Index index(Index r) const {
    Mask bits = static_cast<Mask>(r);
    for (const int p : positions) {
      const Mask low = (Mask{1} << p) - 1;
      bits = ((bits & ~low) << 1) | (bits & low);
    }
    return static_cast<Index>(bits | value);
  }

  Index run_length(Index total) const { return positions.empty() ? total : Index{1} << positions.front(); }

  Index count(int num_bits) const { return Index{1} << (num_bits - static_cast<int>(positions.size())); }
};

// Calls f(first_index, length) for each run of neighbouring states among the r in [begin, end).
template <class F>
void for_each_run(const FixedBits& fixed, Index begin, Index end, F&& f) {
  const Index run = fixed.run_length(end > 0 ? end : 1);
  for (Index r = begin; r < end;) {
    const Index stop = std::min(end, (r / run + 1) * run);
    f(fixed.index(r), stop - r);
    r = stop;
  }
}

// The offsets of the 2^k local basis states of k bit positions, the first position being the most significant bit of
// the local index.
//
// Two tables of 2^(k/2) entries, so that all wires of a large state cost no table of the state's own size.
class LocalOffsets {
 public:
  LocalOffsets() = default;
  explicit LocalOffsets(const std::vector<int>& positions);

  Index operator[](Index local) const {
    return high_[local >> low_bits_] | low_[local & ((Index{1} << low_bits_) - 1)];
  }
  Index size() const { return static_cast<Index>(high_.size() * low_.size()); }

 private:
  int low_bits_ = 0;
  std::vector<Index> high_{0};
  std::vector<Index> low_{0};
};

inline std::vector<Index> local_offsets(const std::vector<int>& positions) {
  std::vector<Index> offsets(std::size_t{1} << positions.size(), 0);
  for (std::size_t local = 0; local < offsets.size(); ++local) {
    for (std::size_t j = 0; j < positions.size(); ++j) {
      if ((local >> (positions.size() - 1 - j)) & 1) offsets[local] |= Index{1} << positions[j];
    }
  }
  return offsets;
}

inline LocalOffsets::LocalOffsets(const std::vector<int>& positions)
    : low_bits_(static_cast<int>(positions.size() / 2)),
      high_(local_offsets({positions.begin(), positions.end() - low_bits_})),
      low_(local_offsets({positions.end() - low_bits_, positions.end()})) {}

}  // namespace ketgrad

// Index arithmetic against brute force.
#include <vector>

#include "check.h"
#include "circuits.h"
#include "core/bits.h"

namespace ketgrad::testing {
namespace {

Mask mask_of(const std::vector<int>& positions) {
  Mask mask = 0;
  for (const int p : positions) mask |= Mask{1} << p;
  return mask;
}

std::vector<Index> states_with(int num_bits, Mask mask, Mask value) {
  std::vector<Index> states;
  for (Index i = 0; i < Index{1} << num_bits; ++i) {
    if ((static_cast<Mask>(i) & mask) == value) states.push_back(i);
  }
  return states;
}

TEST(wire_0_is_the_most_significant_bit) {
  CHECK(bit_of_wire(0, 5) == 4);
  CHECK(bit_of_wire(4, 5) == 0);
}

TEST(parity) {
  CHECK(!odd_parity(0));
  CHECK(odd_parity(Mask{1} << 47));
  CHECK(!odd_parity(0b1010));
  CHECK(odd_parity(~Mask{0} >> 1));
}

// Positions in any order, any value on them: the states come in ascending order, each once.
TEST(fixed_bits_enumerate_states) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const int n = random.below(9);
    const std::vector<int> positions = random.wires(n, random.below(n + 1));
    const Mask mask = mask_of(positions);
    const Mask value = static_cast<Mask>(random.below(1 << n)) & mask;
    const FixedBits fixed(positions, value);
    const std::vector<Index> expected = states_with(n, mask, value);
    CHECK(fixed.count(n) == static_cast<Index>(expected.size()));
    for (std::size_t r = 0; r < expected.size(); ++r) CHECK(fixed.index(static_cast<Index>(r)) == expected[r]);
  }
}

TEST(fixed_bits_reach_high_positions) {
  const FixedBits fixed({47, 0}, Mask{1} << 47);
  CHECK(fixed.count(48) == Index{1} << 46);
  CHECK(fixed.index((Index{1} << 46) - 1) == (Index{1} << 48) - 2);
}

// Runs cover [begin, end) in order, are neighbours in memory, and are as long as they can be.
TEST(runs_cover_any_range) {
  Random random(2);
  for (int round = 0; round < 300; ++round) {
    const int n = 1 + random.below(8);
    const std::vector<int> positions = random.wires(n, random.below(n + 1));
    const FixedBits fixed(positions, 0);
    const int count = static_cast<int>(fixed.count(n));
    const Index begin = random.below(count + 1);
    const Index end = begin + random.below(count + 1 - static_cast<int>(begin));
    std::vector<Index> covered;
    int runs = 0;
    for_each_run(fixed, begin, end, [&](Index first, Index length) {
      ++runs;
      CHECK(length > 0);
      for (Index i = first; i < first + length; ++i) covered.push_back(i);
    });
    std::vector<Index> expected;
    for (Index r = begin; r < end; ++r) expected.push_back(fixed.index(r));
    CHECK(covered == expected);
    const Index run = fixed.run_length(end);
    CHECK(runs == (end == begin ? 0 : (end - 1) / run - begin / run + 1));
  }
}

TEST(local_offsets_put_the_first_position_highest) {
  Random random(3);
  for (int round = 0; round < 100; ++round) {
    const int n = 1 + random.below(10);
    const std::vector<int> positions = random.wires(n, random.below(n + 1));
    const LocalOffsets offsets(positions);
    const std::vector<Index> table = local_offsets(positions);
    CHECK(offsets.size() == Index{1} << positions.size());
    CHECK(static_cast<Index>(table.size()) == offsets.size());
    for (Index local = 0; local < offsets.size(); ++local) {
      Index expected = 0;
      for (std::size_t j = 0; j < positions.size(); ++j) {
        if ((local >> (positions.size() - 1 - j)) & 1) expected += Index{1} << positions[j];
      }
      CHECK(offsets[local] == expected);
      CHECK(table[local] == expected);
    }
  }
}

TEST(no_positions_leave_one_local_state) {
  CHECK(LocalOffsets().size() == 1);
  CHECK(LocalOffsets()[0] == 0);
  CHECK(FixedBits().index(5) == 5);
  CHECK(FixedBits().count(0) == 1);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }

// Index arithmetic and linear algebra over GF(2), against brute force.
#include <algorithm>
#include <set>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "cpu/kernels/loops-inl.h"
#include "math/bits.h"

namespace ketgrad::testing {
namespace {

Mask random_mask(Random& random, int bits) { return static_cast<Mask>(random.below(1 << bits)); }

std::vector<Mask> random_masks(Random& random, int bits, int count) {
  std::vector<Mask> masks;
  for (int j = 0; j < count; ++j) masks.push_back(random_mask(random, bits));
  return masks;
}

std::set<Mask> sums_of(const std::vector<Mask>& vectors) {
  std::set<Mask> sums{0};
  for (const Mask v : vectors) {
    std::set<Mask> more = sums;
    for (const Mask s : sums) more.insert(s ^ v);
    sums = more;
  }
  return sums;
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

TEST(spans) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const std::vector<Mask> vectors = random_masks(random, 6, random.below(6));
    const std::set<Mask> sums = sums_of(vectors);
    const Span span(vectors);
    CHECK(Index{1} << span.size() == static_cast<Index>(sums.size()));
    for (Mask v = 0; v < 64; ++v) {
      CHECK(span.contains(v) == (sums.count(v) == 1));
      CHECK(sums.count(v ^ span.reduce(v)) == 1);
      CHECK((span.reduce(v) & span.pivots()) == 0);
    }
  }
}

TEST(coordinates) {
  Random random(2);
  for (int round = 0; round < 200; ++round) {
    Coordinates coordinates;
    Span span;
    std::vector<Mask> basis;
    for (const Mask v : random_masks(random, 8, 6)) {
      const bool is_new = span.add(v);
      CHECK(coordinates.add(v) == is_new);
      if (is_new) basis.push_back(v);
    }
    const Mask of = random_mask(random, static_cast<int>(basis.size()));
    Mask sum = 0;
    for (std::size_t j = 0; j < basis.size(); ++j) sum ^= (of >> j) & 1 ? basis[j] : 0;
    CHECK(coordinates.of(sum) == of);
  }
}

Mask index_by_hand(Mask origin, const std::vector<Mask>& basis, Index r) {
  for (std::size_t j = 0; j < basis.size(); ++j) origin ^= (r >> j) & 1 ? basis[j] : 0;
  return origin;
}

TEST(maps_add_up_their_basis) {
  Random random(3);
  for (int round = 0; round < 100; ++round) {
    const Mask origin = random_mask(random, 10);
    const std::vector<Mask> basis = random_masks(random, 10, random.below(9));
    const IndexMap map(origin, basis);
    CHECK(map.size() == Index{1} << basis.size());
    for (Index r = 0; r < map.size(); ++r) CHECK(static_cast<Mask>(map[r]) == index_by_hand(origin, basis, r));
  }
  CHECK(IndexMap().size() == 1);
  CHECK(IndexMap()[0] == 0);
}

// Beyond the tables, too.
TEST(maps_of_many_bits) {
  std::vector<Mask> basis;
  for (int b = 0; b < 40; ++b) basis.push_back(unit(b) ^ unit(47));
  const IndexMap map(5, basis);
  for (const Index r : {Index{0}, Index{4095}, Index{4096}, (Index{1} << 24) + 3, (Index{1} << 40) - 1})
    CHECK(static_cast<Mask>(map[r]) == index_by_hand(5, basis, r));
}

// Runs cover [begin, end) in order, are neighbours in memory, and stay so when what shortened them is added.
TEST(runs_cover_any_range) {
  Random random(4);
  for (int round = 0; round < 300; ++round) {
    const int low = random.below(4);
    std::vector<Mask> basis;
    for (int b = 0; b < low; ++b) basis.push_back(unit(b));
    for (const Mask m : random_masks(random, 8, 3)) basis.push_back(m << random.below(4));
    IndexMap map(random_mask(random, 8) << random.below(4), basis);
    const Mask added = random_mask(random, 8) << random.below(4);
    map.shorten_runs(added);
    const Index begin = random.below(static_cast<int>(map.size()) + 1);
    const Index end = begin + random.below(static_cast<int>(map.size() - begin) + 1);
    std::vector<Index> covered;
    for_each_run(map, begin, end, [&](Index first, Index length) {
      CHECK(length > 0);
      for (Index i = 0; i < length; ++i) {
        covered.push_back(first + i);
        CHECK(((first + i) ^ static_cast<Index>(added)) == (first ^ static_cast<Index>(added)) + i);
      }
    });
    std::vector<Index> expected;
    for (Index r = begin; r < end; ++r) expected.push_back(map[r]);
    CHECK(covered == expected);
    std::vector<Index> one_by_one;
    for_each_index(map, end, [&](Index index) { one_by_one.push_back(index); });
    CHECK(static_cast<Index>(one_by_one.size()) == end);
    CHECK(std::equal(expected.begin(), expected.end(), one_by_one.begin() + begin));
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }

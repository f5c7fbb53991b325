// Kernels of diagonals with many entries: the amplitudes of a block, and overlaps on them.
#pragma once

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/states-inl.h"
#include "math/bits.h"

namespace ketgrad {
namespace {

// Some entries on the amplitudes of some groups.
struct DiagonalBlock {
  const IndexMap& groups;
  const IndexMap& entries;
  Index first;  // entry
  int count;    // of entries
  Index begin;  // group
  Index end;

  // f(index of the amplitude, entry - first); what neighbours in memory follow each other in the innermost loop.
  template <class F>
  void for_each(const F& f) const {
    if (entries.run_length() >= count && count >= groups.run_length()) {
      const Index offset = entries[first];
      for (Index r = begin; r < end; ++r) {
        const Index start = groups[r] ^ offset;
        for (int a = 0; a < count; ++a) f(start + a, a);
      }
      return;
    }
    for_each_run(groups, begin, end, [&](Index start, Index length) {
      for (int a = 0; a < count; ++a) {
        const Index i = start ^ entries[first + a];
        for (Index k = 0; k < length; ++k) f(i + k, a);
      }
    });
  }
};

// Of <a|b> for two amplitudes.
struct RealPart {
  template <class State>
  static auto of(State a, State b) {
    return a[0] * b[0] + a[1] * b[1];
  }
};

struct ImaginaryPart {
  template <class State>
  static auto of(State a, State b) {
    return a[0] * b[1] - a[1] * b[0];
  }
};

// The sum of weight_a part(<u|v>).
template <class Part, class N, class State>
[[gnu::noinline]] N weighted_overlap(const DiagonalBlock& block, const N* weights, State u, State v) {
  N sum{};
  block.for_each([&](Index i, int a) { sum += weights[a] * Part::of(u + 2 * i, v + 2 * i); });
  return sum;
}

// The sum of part(<u|v>) over the amplitudes of one entry.
template <class Part, class N, class State>
[[gnu::noinline]] N entry_overlap(const IndexMap& groups, Index entry, State u, State v, Index begin, Index end) {
  N sum{};
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index i = first ^ entry, end_of_run = i + length; i < end_of_run; ++i) sum += Part::of(u + 2 * i, v + 2 * i);
  });
  return sum;
}

}  // namespace
}  // namespace ketgrad

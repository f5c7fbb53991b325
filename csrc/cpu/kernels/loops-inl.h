// Loops over indices. They are compiled for the instruction set of their bodies: a body can only be inlined into a loop
// of the same set.
#pragma once

#include <algorithm>

#include "math/bits.h"

namespace ketgrad {
namespace {

// For the bodies of inner loops: a call for each row would cost as much as the row.
#define KETGRAD_ALWAYS_INLINE __attribute__((always_inline))

// Calls f(r, indices) for `together` of the r in [0, end) at a time, a power of two that divides the end.
template <int together, class F>
KETGRAD_ALWAYS_INLINE inline void for_each_group(const IndexMap& map, Index end, F&& f) {
  for (Index r = 0; r < end;) {
    const Mask high = map.high_part(r);
    const Mask* const low = map.low_table();
    const Index stop = std::min(end, r + IndexMap::table_size);
    for (Index i = 0; r < stop; r += together, i += together) {
      Index indices[together];
      for (int k = 0; k < together; ++k) indices[k] = static_cast<Index>(high ^ low[i + k]);
      f(r, indices);
    }
  }
}

// Calls f(index) for each r in [0, end).
template <class F>
KETGRAD_ALWAYS_INLINE inline void for_each_index(const IndexMap& map, Index end, F&& f) {
  for_each_group<1>(map, end, [&](Index, const Index* index) KETGRAD_ALWAYS_INLINE { f(*index); });
}

// Calls f(first_index, length) for each run of neighbouring indices among the r in [begin, end).
template <class F>
KETGRAD_ALWAYS_INLINE inline void for_each_run(const IndexMap& map, Index begin, Index end, F&& f) {
  const Index run = map.run_length();
  for (Index r = begin; r < end;) {
    const Index stop = std::min(end, (r / run + 1) * run);
    f(map[r], stop - r);
    r = stop;
  }
}

}  // namespace
}  // namespace ketgrad

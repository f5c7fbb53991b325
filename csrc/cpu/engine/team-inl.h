// The threads of a call: passes spread over them, sums in an order that does not depend on them.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/call.h"
#include "cpu/lanes.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

// Groups of amplitudes per chunk. Sums are taken chunk by chunk, whatever the number of threads, so that they do not
// depend on it.
constexpr Index reduction_chunk = 4096;

// Groups, or rows, per partial sum. Where amplitudes are alike each addition is rounded the same way, so that a sum of
// k is off by up to k/2 units: short enough for float32, long enough that adding up partial sums costs nothing.
constexpr Index summed_together = 128;

// Multiply-adds between two polls of whether the call shall end: some milliseconds.
constexpr Index polled_work = Index{1} << 22;
// Sums per group above which the call is polled after each partial sum.
constexpr Index many_sums = 512;

// Runs the loops of a pass, on the pool or on one thread. When the call shall end, the rest of a loop is skipped.
class Team {
 public:
  Team(ParallelFor parallel, bool enabled, const Cancellation& call)
      : parallel_(enabled ? parallel : nullptr), call_(call) {}

  // f(begin, end) for ranges of [0, n), of which each takes `work` multiply-adds.
  template <class F>
  void for_range(Index n, Index work, const F& f) const {
    const Index polled = std::max<Index>(1, polled_work / work);
    const Index chunk = std::min(polled, reduction_chunk);
    if (parallel_ == nullptr || n <= chunk) return for_chunks(n, polled, f);
    run_parallel(parallel_, (n + chunk - 1) / chunk, [&](Index c) {
      if (!call_.should_stop()) f(c * chunk, std::min(n, (c + 1) * chunk));
    });
  }

  // For bodies of about one multiply-add.
  template <class F>
  void for_range(Index n, const F& f) const {
    for_range(n, 1, f);
  }

  // f(begin, end, N* sums) adds `width` sums over a range; their totals are added to out[width][lanes].
  template <class N, class F>
  void reduce(Index n, Index width, Total<N>* out, const F& f) const {
    const Index chunks = (n + reduction_chunk - 1) / reduction_chunk;
    const Index totals = width * lane_width<N>;
    if (chunks == 1) return add_range<N>(0, n, width, out, f);
    std::vector<Total<N>> partial(chunks * totals, Total<N>(0));
    for_each(chunks, [&](Index chunk) {
      if ((chunk & 7) == 0 && call_.should_stop()) return;
      add_range<N>(chunk * reduction_chunk, std::min(n, (chunk + 1) * reduction_chunk), width,
                   partial.data() + chunk * totals, f);
    });
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      for (Index e = 0; e < totals; ++e) out[e] += partial[chunk * totals + e];
    }
  }

  // f(i) for i in [0, n), each a task.
  template <class F>
  void for_each(Index n, const F& f) const {
    if (parallel_ != nullptr && n > 1) return run_parallel(parallel_, n, f);
    for (Index i = 0; i < n; ++i) f(i);
  }

 private:
  template <class F>
  void for_chunks(Index n, Index chunk, const F& f) const {
    for (Index begin = 0; begin < n; begin += chunk) {
      if (begin > 0 && call_.should_stop()) return;
      f(begin, std::min(n, begin + chunk));
    }
  }

  // Not inlined: a compiler might contract multiply-adds differently in two copies, one for a thread and one for
  // several.
  template <class N, class F>
  [[gnu::noinline]] void add_range(Index begin, Index end, Index width, Total<N>* out, const F& f) const {
    LaneVector<N> sums(width);
    for (; begin < end; begin += summed_together) {
      if (width >= many_sums && call_.should_stop()) return;
      std::fill(sums.begin(), sums.end(), N{});
      f(begin, std::min(end, begin + summed_together), sums.data());
      add_up(sums.data(), width, out);
    }
  }

  template <class N>
  static void add_up(const N* sums, Index width, Total<N>* out) {
    for (Index e = 0; e < width; ++e) {
      for (int l = 0; l < lane_width<N>; ++l) out[e * lane_width<N> + l] += static_cast<Total<N>>(get_lane(sums[e], l));
    }
  }

  ParallelFor parallel_;
  const Cancellation& call_;
};

}  // namespace
}  // namespace ketgrad

// The engine of a plan over a range of samples: the entry points that every instruction set provides.
#pragma once

#include <vector>

#include "cpu/call.h"

namespace ketgrad {

// The coefficients of the unfused gates that all samples share, computed once per call; empty for the others. `inverse`
// is for backward sweeps only.
template <class T>
struct SharedGateOps {
  std::vector<std::vector<T>> forward;
  std::vector<std::vector<T>> inverse;
};

// Tables of phase factors that a task in lanes keeps, in bytes; beyond, each is computed again for each group of
// samples.
inline constexpr Index largest_tables = Index{16} << 20;

// A contiguous range of samples, which one task sweeps. With `parallel_passes` each pass is spread over the pool.
struct Task {
  Index begin = 0;
  Index end = 0;
  bool parallel_passes = false;
};

template <class T>
class GradientSink;

// What one task of the backward sweep collects besides what its sink does: per shared unfused gate the sum of overlaps
// over samples.
template <class T>
struct TaskGradients {
  GradientSink<T>* sink = nullptr;
  std::vector<std::vector<double>> overlaps;
  int first_pass = 0;  // the sweep stops here: nothing before it is requested
};

// `lanes` sweeps a batch, a sample per lane; `solo` one sample after the other.
template <class T>
struct Engine {
  using Forward = void (*)(const Call<T>&, const Plan&, const SharedGateOps<T>&, const Results<T>&, const Task&);
  // Without `measured` there are no results.
  using Backward = void (*)(const Call<T>&, const Plan&, const SharedGateOps<T>&, const Cotangents<T>&,
                            const Measured<T>* measured, const Task&, TaskGradients<T>&);
  using Tangents = void (*)(const Call<T>&, const Plan&, const SharedGateOps<T>&, const Directional<T>&, const Task&,
                            TaskGradients<T>&);

  Forward forward_solo;
  Forward forward_lanes;
  Backward backward_solo;
  Backward backward_lanes;
  Tangents tangents_solo;
  Tangents tangents_lanes;
};

struct EngineSet {
  int row_bytes = 0;  // of a vector, which is what a row of a tile holds and a lane for each sample of a batch
  Engine<float> single;
  Engine<double> twice;

  template <class T>
  const Engine<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return single;
    } else {
      return twice;
    }
  }

  template <class T>
  int lanes() const {
    return row_bytes / static_cast<int>(sizeof(T));
  }
};

EngineSet portable_engines();
// KETGRAD_PORTABLE leaves them out, for quick builds.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(KETGRAD_PORTABLE)
#define KETGRAD_X86_LEVELS 1
EngineSet avx2_engines();
EngineSet avx512_engines();
#endif

}  // namespace ketgrad

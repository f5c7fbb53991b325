// One call: a batch of circuits forward, or backward. Chooses the regime, cuts the batch into tasks, adds up what they
// collected.
#pragma once

#include "cpu/call.h"

namespace ketgrad {

template <class T>
void execute(const Call<T>& call, const Results<T>& results);

template <class T>
void execute_vjp(const Call<T>& call, const Cotangents<T>& cotangents);

// Both, each state going back while it is in a cache. There are no kets.
template <class T>
void execute_and_vjp(const Call<T>& call, const Measured<T>& measured, const Cotangents<T>& cotangents);

// Derivatives of both along the call's tangents; of execute_vjp only where a gradient is requested.
template <class T>
void execute_tangents(const Call<T>& call, const Directional<T>& directional);

// Bytes of working memory that a call takes besides inputs and results. Not an integer: a circuit on 48 wires has an
// answer too. `keeps_ket`: the final states are counted among the results.
template <class T>
double workspace_bytes(const Call<T>& call, bool backward, bool keeps_ket = false);

// The same for execute_tangents.
template <class T>
double tangents_workspace_bytes(const Call<T>& call, bool backward);

// How a call of `batch` circuits would run, in precision T.
struct CallPlan {
  const Plan* plan = nullptr;
  bool lanes = false;            // a sample per lane; else one sample after the other
  bool parallel_passes = false;  // each pass is spread over the threads
  Index tasks = 1;               // into which the batch is cut
};

template <class T>
CallPlan plan_call(const PlannedProgram& program, Index batch, int threads);

// Amplitudes written, in all gates and samples, below which work takes less time than waking the pool.
inline constexpr double smallest_parallel_call = 1 << 17;

// What a call takes: about so many amplitudes are written, by one thread or by several.
struct CallWork {
  double written = 0;
  bool on_one_thread = true;
};

template <class T>
CallWork work_of(const Call<T>& call);

// Calls of the engine's entry points since the library was loaded: a batch is one plan, so their number does not grow
// with it.
Index sweep_count();

}  // namespace ketgrad

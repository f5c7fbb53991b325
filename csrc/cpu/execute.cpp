#include "cpu/execute.h"

#include <atomic>
#include <memory>

#include "cpu/coefficients.h"
#include "cpu/gradient_sink.h"
#include "cpu/lanes.h"
#include "cpu/level.h"
#include "cpu/walk.h"

namespace ketgrad {

namespace {

// How a batch is cut.
struct Regime {
  bool lanes = false;            // a sample per lane; else one sample after the other
  bool parallel_passes = false;  // too few tasks for the pool: spread each pass instead
  Index tasks = 1;
  Index samples_per_task = 1;
};

// A lane state beyond this leaves the caches and gains nothing from its layout.
constexpr Index largest_lane_state = Index{32} << 20;
// Matrices this large would be multiplied by their own number of lanes.
constexpr int largest_lane_block = 32;
// Below this a pass is shorter than waking the pool.
constexpr Index smallest_parallel_state = Index{1} << 13;
// Amplitudes written below which a whole call is.
constexpr double smallest_parallel_call = 1 << 17;

template <class T>
Regime choose_regime(const Call<T>& call) {
  constexpr Index width = batch_lanes<T>;
  Regime regime;
  const Index lane_state_bytes = call.dimension() * 2 * width * static_cast<Index>(sizeof(T));
  const Index lane_sum_bytes = call.plan().largest_sum * width * static_cast<Index>(sizeof(T));
  regime.lanes = call.batch * 4 >= width && std::max(lane_state_bytes, lane_sum_bytes) <= largest_lane_state &&
                 call.plan().largest_block <= largest_lane_block;
  const Index group = regime.lanes ? width : 1;
  const Index groups = (call.batch + group - 1) / group;
  regime.parallel_passes = groups < call.threads && call.dimension() >= smallest_parallel_state;
  const double written =
      static_cast<double>(call.batch) * static_cast<double>(call.dimension()) * static_cast<double>(call.plan().passes);
  const bool one_task = regime.parallel_passes || written < smallest_parallel_call;
  regime.tasks = one_task ? 1 : std::min<Index>(groups, call.threads);
  regime.samples_per_task = (groups + regime.tasks - 1) / regime.tasks * group;
  return regime;
}

template <class T>
SharedSteps<T> shared_steps(const Call<T>& call, bool backward) {
  SharedSteps<T> shared;
  const std::vector<Step>& steps = call.plan().steps;
  shared.forward.resize(steps.size());
  shared.inverse.resize(steps.size());
  std::vector<double> numbers;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    if (!call.shared(steps[s])) continue;
    numbers.resize(coefficient_count(steps[s]));
    step_coefficients(call, steps[s], 0, numbers.data());
    shared.forward[s].assign(numbers.begin(), numbers.end());
    if (!backward) continue;
    invert_coefficients(steps[s], numbers.data());
    shared.inverse[s].assign(numbers.begin(), numbers.end());
  }
  return shared;
}

std::atomic<Index> walks{0};

// Runs f(task_index, Task) for every task of the regime.
template <class T, class F>
void run_tasks(const Call<T>& call, const Regime& regime, const F& f) {
  const auto body = [&](Index index) {
    const Index begin = index * regime.samples_per_task;
    f(index, Task{begin, std::min(call.batch, begin + regime.samples_per_task), regime.parallel_passes});
  };
  walks.fetch_add(1, std::memory_order_relaxed);
  if (regime.tasks == 1) {
    body(0);
  } else {
    run_parallel(call.parallel, regime.tasks, body);
  }
  if (call.stopped.load()) throw Interrupted();
}

// The first step with a wanted parameter; the number of steps where none has one.
template <class T>
int first_wanted_step(const Call<T>& call, const Cotangents<T>& cotangents) {
  const int initial = call.program().initial.input;
  if (initial != no_input && cotangents.gradients[initial] != nullptr) return 0;
  const std::vector<Step>& steps = call.plan().steps;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    for (const int input : steps[s].inputs) {
      if (cotangents.gradients[input] != nullptr) return static_cast<int>(s);
    }
  }
  return static_cast<int>(steps.size());
}

template <class T>
struct TaskState {
  GradientSink<T> sink;
  TaskGradients<T> gradients;

  TaskState(const Call<T>& call, const Cotangents<T>& cotangents, int first_step) : sink(call, cotangents) {
    gradients.sink = &sink;
    gradients.first_step = first_step;
    for (const Step& step : call.plan().steps) {
      const bool kept = call.shared(step) && sink.wants(step);
      gradients.overlaps.emplace_back(kept ? overlap_count(step) : 0, 0.0);
    }
  }

  void finish(const Call<T>& call) {
    const std::vector<Step>& steps = call.plan().steps;
    for (std::size_t s = gradients.first_step; s < steps.size(); ++s) {
      if (!gradients.overlaps[s].empty()) sink.contract(steps[s], gradients.overlaps[s].data(), 0);
    }
    sink.flush();
  }
};

}  // namespace

template <class T>
void execute(const Call<T>& call, const Results<T>& results) {
  if (call.batch == 0) return;
  const Regime regime = choose_regime(call);
  const SharedSteps<T> shared = shared_steps(call, false);
  const Walk<T>& walk = current_walk().of<T>();
  const auto forward = regime.lanes ? walk.forward_lanes : walk.forward_solo;
  run_tasks(call, regime, [&](Index, const Task& task) { forward(call, shared, results, task); });
}

template <class T>
void execute_vjp(const Call<T>& call, const Cotangents<T>& cotangents) {
  if (call.batch == 0) return;
  const Regime regime = choose_regime(call);
  const SharedSteps<T> shared = shared_steps(call, true);
  const Walk<T>& walk = current_walk().of<T>();
  const auto backward = regime.lanes ? walk.backward_lanes : walk.backward_solo;
  const int first_step = first_wanted_step(call, cotangents);
  std::vector<std::unique_ptr<TaskState<T>>> states;
  for (Index t = 0; t < regime.tasks; ++t)
    states.push_back(std::make_unique<TaskState<T>>(call, cotangents, first_step));
  run_tasks(call, regime,
            [&](Index index, const Task& task) { backward(call, shared, cotangents, task, states[index]->gradients); });
  for (const auto& state : states) state->finish(call);
}

template <class T>
double workspace_bytes(const Call<T>& call, bool backward) {
  const Regime regime = choose_regime(call);
  const Index lanes = regime.lanes ? batch_lanes<T> : 1;
  const Index states = (backward ? 2 : 1) + (call.plan().needs_scratch ? 2 : 0);
  const double per_lane = static_cast<double>(states) * static_cast<double>(call.dimension()) * 2 * sizeof(T);
  // Sums are taken in T and added up in double; the cotangent of a density matrix is as large as its sum.
  const double sums = static_cast<double>(call.plan().largest_sum) * (2 * sizeof(T) + sizeof(double));
  return static_cast<double>(regime.tasks * lanes) * (per_lane + sums);
}

Index walk_count() { return walks.load(); }

template void execute(const Call<float>&, const Results<float>&);
template void execute(const Call<double>&, const Results<double>&);
template void execute_vjp(const Call<float>&, const Cotangents<float>&);
template void execute_vjp(const Call<double>&, const Cotangents<double>&);
template double workspace_bytes(const Call<float>&, bool);
template double workspace_bytes(const Call<double>&, bool);

}  // namespace ketgrad

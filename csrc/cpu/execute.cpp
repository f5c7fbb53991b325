#include "cpu/execute.h"

#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>

#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/gradient_sink.h"
#include "cpu/parts.h"
#include "cpu/simd_level.h"
#include "cpu/thresholds.h"

namespace ketgrad {

namespace {

// How a batch is cut.
struct Regime {
  bool lanes = false;            // a sample per lane; else one sample after the other
  bool parallel_passes = false;  // too few tasks for the pool: spread each pass instead
  Index tasks = 1;
  Index samples_per_task = 1;
};

// In bytes. Larger states of a batch in lanes leave the caches, where single states are cut into tiles.
constexpr Index largest_lane_state = Index{4} << 20;
// Rows of a matrix beyond which single states are faster: those multiply several groups at once.
constexpr int largest_lane_block = 32;
// Wires below which a single state does not fill a row.
constexpr int smallest_single = 5;
// Amplitudes below which a pass takes less time than waking the pool.
constexpr Index smallest_parallel_state = Index{1} << 13;
// Amplitudes in a tile. Ket, bra and factors of 2^13 fill a few hundred kilobytes, which second-level caches hold;
// while the states themselves fit the third level, four times as many in float are faster, because there are fewer
// passes. Measured, as are the runs: on 24 wires scattered rows were read at a fifth of the rate of copies, and with
// runs a value and gradient took three quarters of the time. In double twice as many, in shorter runs, took a sixth more
// time per pass: they pay where they save a sixth of the passes.
constexpr int default_tile_bits = 13;
constexpr int wide_double_tile_bits = 14;
constexpr int wide_double_run_bits = 1;
constexpr int largest_tile_bits = 15;
constexpr Index smallest_run_state = Index{2} << 20;
constexpr Index largest_cached_state = Index{48} << 20;

Thresholds in_use;

template <class T>
Index state_bytes(Index dimension) {
  return dimension * Index{2 * sizeof(T)};
}

bool is_in_third_level(Index bytes) { return bytes >= smallest_run_state && bytes <= largest_cached_state; }

template <class T>
Layout layout_of(const EngineSet& level, bool lanes, Index dimension) {
  Layout layout;
  layout.tracks_support = in_use.support;
  if (lanes) {
    layout.part_bits = 1;
    layout.tile_bits = max_wires;
    return layout;
  }
  layout.fuses_matrices = true;
  layout.lane_bits = std::countr_zero(static_cast<unsigned>(level.lanes<T>())) - 1;
  layout.tile_bits = default_tile_bits;
  const Index bytes = state_bytes<T>(dimension);
  if (in_use.tile_bits != 0) {
    layout.tile_bits = std::max(in_use.tile_bits, layout.lane_bits + 1);
    layout.run_bits = std::min(layout.tile_bits - layout.lane_bits - 1, 1);
  } else if (bytes > largest_cached_state) {
    layout.run_bits = 3;
  } else if (is_in_third_level(bytes)) {
    layout.tile_bits = sizeof(T) == sizeof(float) ? largest_tile_bits : default_tile_bits;
    layout.run_bits = 2;
  }
  return layout;
}

// Time per amplitude of all samples, in units of a sample that fills its vectors: a batch in lanes pays for whole
// groups, single states pay a third more, for rotations within rows, and for every operation as much as some eight
// rows.
template <class T>
bool prefers_lanes(const Call<T>& call, const EngineSet& level) {
  const double width = level.lanes<T>();
  const double threads = call.threads;
  const double batch = static_cast<double>(call.batch);
  const double rows = 2 * static_cast<double>(call.dimension()) / width;
  const double lanes = std::ceil(std::ceil(batch / width) / threads) * width;
  const bool spread = call.dimension() >= smallest_parallel_state;
  const double single = (spread ? batch / threads : std::ceil(batch / threads)) * (4.0 / 3) * (1 + 8 / rows);
  return lanes < single;
}

// Whether a batch runs a sample per lane, if its states and matrices are small enough.
template <class T>
bool chooses_lanes(const Call<T>& call, const EngineSet& level) {
  if (in_use.regime == RegimeChoice::automatic) return prefers_lanes(call, level);
  return in_use.regime == RegimeChoice::lanes;
}

template <class T>
double amplitudes_written(const Call<T>& call) {
  return static_cast<double>(call.batch) * static_cast<double>(call.dimension()) *
         static_cast<double>(call.resources().work);
}

template <class T>
Regime choose_regime(const Call<T>& call, const EngineSet& level) {
  const Index width = level.lanes<T>();
  Regime regime;
  const Index lane_state_bytes = call.dimension() * 2 * width * static_cast<Index>(sizeof(T));
  const Index lane_sum_bytes = call.resources().largest_sum * width * static_cast<Index>(sizeof(T));
  regime.lanes = call.program().num_wires < smallest_single ||
                 (chooses_lanes(call, level) && std::max(lane_state_bytes, lane_sum_bytes) <= largest_lane_state &&
                  call.resources().largest_block <= largest_lane_block);
  const Index group = regime.lanes ? width : 1;
  const Index groups = (call.batch + group - 1) / group;
  const bool large_state = in_use.spread || call.dimension() >= smallest_parallel_state;
  regime.parallel_passes = !regime.lanes && groups < call.threads && large_state;
  const bool small_call = !in_use.spread && amplitudes_written(call) < smallest_parallel_call;
  const bool one_task = regime.parallel_passes || small_call;
  regime.tasks = one_task ? 1 : std::min<Index>(groups, call.threads);
  regime.samples_per_task = (groups + regime.tasks - 1) / regime.tasks * group;
  return regime;
}

template <class T>
const Plan& plan_of(const Call<T>& call, const EngineSet& level, const Regime& regime) {
  Layout layout = layout_of<T>(level, regime.lanes, call.dimension());
  const Plan& plan = call.planned->plan(layout);
  const bool may_widen = sizeof(T) == sizeof(double) && !regime.lanes && in_use.tile_bits == 0;
  if (!may_widen || !is_in_third_level(state_bytes<T>(call.dimension()))) return plan;
  layout.tile_bits = wide_double_tile_bits;
  layout.run_bits = wide_double_run_bits;
  const Plan& wide = call.planned->plan(layout);
  return 6 * wide.passes.size() <= 5 * plan.passes.size() ? wide : plan;
}

template <class T>
SharedGateOps<T> shared_gate_ops(const Call<T>& call, const Plan& plan, bool backward) {
  SharedGateOps<T> shared;
  const std::vector<GateOp>& gate_ops = plan.gate_ops;
  shared.forward.resize(gate_ops.size());
  shared.inverse.resize(gate_ops.size());
  std::vector<double> numbers;
  for (std::size_t s = 0; s < gate_ops.size(); ++s) {
    if (!call.shared(gate_ops[s])) continue;
    numbers.resize(coefficient_count(gate_ops[s]));
    gate_op_coefficients(call, gate_ops[s], 0, numbers.data());
    shared.forward[s].assign(numbers.begin(), numbers.end());
    if (!backward) continue;
    invert_coefficients(gate_ops[s], numbers.data());
    shared.inverse[s].assign(numbers.begin(), numbers.end());
  }
  return shared;
}

std::atomic<Index> sweeps{0};

// Runs f(task_index, Task) for every task of the regime.
template <class T, class F>
void run_tasks(const Call<T>& call, const Regime& regime, const F& f) {
  const auto body = [&](Index index) {
    const Index begin = index * regime.samples_per_task;
    f(index, Task{begin, std::min(call.batch, begin + regime.samples_per_task), regime.parallel_passes});
  };
  sweeps.fetch_add(1, std::memory_order_relaxed);
  if (regime.tasks == 1) {
    body(0);
  } else {
    run_parallel(call.parallel, regime.tasks, body);
  }
  if (call.stopped.load()) throw_interrupted();
}

template <class T>
struct TaskState {
  const Plan& plan;
  GradientSink<T> sink;
  TaskGradients<T> gradients;

  TaskState(const Call<T>& call, const Plan& plan, const Cotangents<T>& cotangents, int first_pass)
      : plan(plan), sink(call, cotangents) {
    gradients.sink = &sink;
    gradients.first_pass = first_pass;
    for (const GateOp& gate_op : plan.gate_ops) {
      const bool kept = !call.has_copies && call.shared(gate_op) && sink.requests(gate_op);
      gradients.overlaps.emplace_back(kept ? overlap_count(gate_op) : 0, 0.0);
    }
  }

  void finish() {
    for (std::size_t s = 0; s < plan.gate_ops.size(); ++s) {
      if (!gradients.overlaps[s].empty()) sink.contract(plan.gate_ops[s], gradients.overlaps[s].data(), 0);
    }
    sink.flush();
  }
};

// Runs one of the level's sweeps, solo or in lanes, with a place for the gradients of each task; f(sweep, plan, shared,
// task, gradients).
template <class T, class Sweep, class F>
std::vector<std::unique_ptr<TaskState<T>>> sweep_back(const Call<T>& call, const Cotangents<T>& cotangents,
                                                      Sweep Engine<T>::* solo, Sweep Engine<T>::* lanes, const F& f) {
  const EngineSet& level = current_engines();
  const Regime regime = choose_regime(call, level);
  const Plan& plan = plan_of(call, level, regime);
  const SharedGateOps<T> shared = shared_gate_ops(call, plan, true);
  const Sweep sweep = level.of<T>().*(regime.lanes ? lanes : solo);
  const int first_pass = first_requested_pass(
      call.program().initial.input, static_cast<int>(plan.passes.size()),
      [&](int p) -> const std::vector<int>& { return inputs_of(plan.passes[p]); },
      [&](int input) { return cotangents.gradients[input] != nullptr; });
  std::vector<std::unique_ptr<TaskState<T>>> states;
  for (Index t = 0; t < regime.tasks; ++t)
    states.push_back(std::make_unique<TaskState<T>>(call, plan, cotangents, first_pass));
  run_tasks(call, regime,
            [&](Index index, const Task& task) { f(sweep, plan, shared, task, states[index]->gradients); });
  return states;
}

template <class T>
void adjoint_sweep(const Call<T>& call, const Measured<T>* measured, const Cotangents<T>& cotangents) {
  if (call.batch == 0) return;
  const auto states =
      sweep_back(call, cotangents, &Engine<T>::backward_solo, &Engine<T>::backward_lanes,
                 [&](auto sweep, const Plan& plan, const auto& shared, const Task& task, auto& gradients) {
                   sweep(call, plan, shared, cotangents, measured, task, gradients);
                 });
  for (const auto& state : states) state->finish();
}

}  // namespace

const Thresholds& thresholds() { return in_use; }

void set_thresholds(const Thresholds& thresholds) {
  if (thresholds.tile_bits < 0 || thresholds.tile_bits > max_wires)
    throw std::invalid_argument("ketgrad: tiles of 2^" + std::to_string(thresholds.tile_bits) + " amplitudes; 0 to " +
                                std::to_string(max_wires) + " bits are possible, 0 for the default");
  if (thresholds.scale_bits < 0 || thresholds.scale_bits > most_scale_bits)
    throw std::invalid_argument("ketgrad: a scale of 2^-" + std::to_string(thresholds.scale_bits) + "; 0 to " +
                                std::to_string(most_scale_bits) + " bits are possible");
  in_use = thresholds;
}

template <class T>
void execute(const Call<T>& call, const Results<T>& results) {
  if (call.batch == 0) return;
  if (call.planned->has_parts()) return execute_parts(call, results);
  const EngineSet& level = current_engines();
  const Regime regime = choose_regime(call, level);
  const Plan& plan = plan_of(call, level, regime);
  const SharedGateOps<T> shared = shared_gate_ops(call, plan, false);
  const Engine<T>& engine = level.of<T>();
  const auto forward = regime.lanes ? engine.forward_lanes : engine.forward_solo;
  run_tasks(call, regime, [&](Index, const Task& task) { forward(call, plan, shared, results, task); });
}

template <class T>
void execute_vjp(const Call<T>& call, const Cotangents<T>& cotangents) {
  if (call.planned->has_parts()) return execute_parts_vjp(call, cotangents);
  adjoint_sweep<T>(call, nullptr, cotangents);
}

template <class T>
void execute_and_vjp(const Call<T>& call, const Measured<T>& measured, const Cotangents<T>& cotangents) {
  if (call.planned->has_parts()) return execute_parts_and_vjp(call, measured, cotangents);
  adjoint_sweep<T>(call, &measured, cotangents);
}

template <class T>
void execute_tangents(const Call<T>& call, const Directional<T>& directional) {
  if (call.batch == 0) return;
  if (call.planned->has_parts()) return execute_parts_tangents(call, directional);
  const auto states = sweep_back(call, directional.cotangents, &Engine<T>::tangents_solo, &Engine<T>::tangents_lanes,
                                 [&](auto sweep, const Plan& plan, const auto& shared, const Task& task,
                                     auto& gradients) { sweep(call, plan, shared, directional, task, gradients); });
  for (const auto& state : states) state->sink.flush();
}

template <class T>
CallPlan plan_call(const PlannedProgram& program, Index batch, int threads) {
  Call<T> call;
  call.planned = &program;
  call.batch = batch;
  call.threads = threads;
  const EngineSet& level = current_engines();
  const Regime regime = choose_regime(call, level);
  return {&plan_of(call, level, regime), regime.lanes, regime.parallel_passes, regime.tasks};
}

template <class T>
CallWork work_of(const Call<T>& call) {
  if (call.planned->has_parts()) return work_of_parts(call);
  const Regime regime = choose_regime(call, current_engines());
  return {amplitudes_written(call), regime.tasks == 1 && !regime.parallel_passes};
}

template <class T>
double workspace_bytes(const Call<T>& call, bool backward, bool keeps_ket) {
  if (call.planned->has_parts()) return parts_workspace_bytes(call, backward);
  const EngineSet& level = current_engines();
  const Regime regime = choose_regime(call, level);
  const Index lanes = regime.lanes ? level.lanes<T>() : 1;
  // In lanes, a task has factors of phases that its samples do not share, and products of all amplitudes: one and a
  // half states more. A single state's are of a tile.
  const bool in_result = !backward && keeps_ket && !regime.lanes;  // a single state is written where it is kept
  const double states =
      (backward ? 2 : 1) - (in_result ? 1 : 0) + (call.resources().needs_scratch ? 2 : 0) + (regime.lanes ? 1.5 : 0);
  const double per_lane = states * static_cast<double>(call.dimension()) * 2 * sizeof(T);
  // Sums are taken in T and added up in double; the cotangent of a density matrix is as large as its sum.
  const double sums = static_cast<double>(call.resources().largest_sum) * (2 * sizeof(T) + sizeof(double));
  const double all_tables =
      static_cast<double>(call.resources().work) * static_cast<double>(call.dimension()) * 2 * sizeof(T);
  const double tables = 2 * std::min(all_tables, static_cast<double>(largest_tables));
  const double tile = 6.0 * sizeof(T) * static_cast<double>(Index{2} << largest_tile_bits);
  const double beside = regime.lanes ? tables * static_cast<double>(regime.tasks) : tile * call.threads;
  return static_cast<double>(regime.tasks * lanes) * (per_lane + sums) + beside;
}

// Every state has a tangent, those that measurements work on included.
template <class T>
double tangents_workspace_bytes(const Call<T>& call, bool backward) {
  return 2 * workspace_bytes(call, backward);
}

Index sweep_count() { return sweeps.load(); }

template void execute(const Call<float>&, const Results<float>&);
template void execute(const Call<double>&, const Results<double>&);
template void execute_vjp(const Call<float>&, const Cotangents<float>&);
template void execute_vjp(const Call<double>&, const Cotangents<double>&);
template void execute_and_vjp(const Call<float>&, const Measured<float>&, const Cotangents<float>&);
template void execute_and_vjp(const Call<double>&, const Measured<double>&, const Cotangents<double>&);
template void execute_tangents(const Call<float>&, const Directional<float>&);
template void execute_tangents(const Call<double>&, const Directional<double>&);
template CallPlan plan_call<float>(const PlannedProgram&, Index, int);
template CallPlan plan_call<double>(const PlannedProgram&, Index, int);
template CallWork work_of(const Call<float>&);
template CallWork work_of(const Call<double>&);
template double workspace_bytes(const Call<float>&, bool, bool);
template double workspace_bytes(const Call<double>&, bool, bool);
template double tangents_workspace_bytes(const Call<float>&, bool);
template double tangents_workspace_bytes(const Call<double>&, bool);

}  // namespace ketgrad

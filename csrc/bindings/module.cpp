// The Python module ketgrad._C: what takes or returns no tensors. Importing it registers the operators.
#include "bindings/pybind.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/tape_reader.h"
#include "cpu/execute.h"
#include "cpu/profile.h"
#include "cpu/simd_level.h"
#include "cpu/thresholds.h"
#include "math/deviation.h"
#include "plan/cost.h"
#include "plan/gpu_layout.h"
#include "plan/parts.h"
#include "plan/registry.h"
#include "program/gate_table.h"
#include "program/measurement_table.h"
#include "program/program.h"
#include "runtime/interrupt.h"
#include "runtime/memory.h"

namespace ketgrad {
namespace {

// --- thresholds ------------------------------------------------------------------------------------------------------

RegimeChoice regime_of(const std::string& name) {
  if (name == "auto") return RegimeChoice::automatic;
  if (name == "lanes") return RegimeChoice::lanes;
  if (name == "single") return RegimeChoice::single;
  throw std::invalid_argument("ketgrad: unknown regime '" + name + "'; 'auto', 'lanes' and 'single' are possible");
}

void set_thresholds_of(int tile_bits, int scale_bits, bool support, const std::string& regime, bool spread) {
  set_thresholds({tile_bits, scale_bits, support, regime_of(regime), spread});
}

// --- Ctrl-C ----------------------------------------------------------------------------------------------------------

// The GIL is taken at most this often: taking it takes longer than many passes.
constexpr auto signal_interval = std::chrono::milliseconds(20);

// Carries the exception that a signal handler raised through C++ back to Python. pybind11, torch's copy included, calls
// set_error of subclasses of py::builtin_exception.
class RaisedByHandler : public py::builtin_exception {
 public:
  explicit RaisedByHandler(py::object raised)
      : py::builtin_exception("interrupted"), raised_(new py::object(std::move(raised)), [](py::object* held) {
          const py::gil_scoped_acquire gil;
          delete held;
        }) {}

  void set_error() const override { PyErr_SetObject(py::type::handle_of(*raised_).ptr(), raised_->ptr()); }

 private:
  std::shared_ptr<py::object> raised_;  // copied and destroyed without the GIL
};

// Set by signal_raised, taken by throw_raised when the call has ended.
thread_local PyObject* raised_by_handler = nullptr;

// Runs Python's signal handlers, which are only called on the main thread. True if one raised.
bool signal_raised() {
  thread_local auto last = std::chrono::steady_clock::now();
  const auto now = std::chrono::steady_clock::now();
  if (now - last < signal_interval) return false;
  last = now;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() == 0) return false;
  const py::error_already_set error;
  raised_by_handler = py::object(error.value()).release().ptr();
  return true;
}

void throw_raised() {
  const py::gil_scoped_acquire gil;
  throw RaisedByHandler(py::reinterpret_steal<py::object>(std::exchange(raised_by_handler, nullptr)));
}

// --- programs --------------------------------------------------------------------------------------------------------

std::shared_ptr<PlannedProgram> registered(Program program) {
  return std::const_pointer_cast<PlannedProgram>(register_program(std::move(program)));
}

std::shared_ptr<PlannedProgram> write_program(const py::tuple& structure, const py::sequence& inputs,
                                              const py::sequence& places) {
  return registered(read_tape(structure, inputs, places));
}

// The program, and (layout, is_trainable, parameters, is_column, is_complex) of each input.
py::tuple bind_program(const py::tuple& structure, const py::tuple& parameters) {
  BoundTape bound = bind_tape(structure, parameters);
  py::list inputs;
  for (const BoundInput& i : bound.inputs) {
    const py::tuple of_input(py::cast(i.parameters));
    inputs.append(py::make_tuple(std::string(1, i.layout), i.is_trainable, of_input, i.is_column, i.is_complex));
  }
  return py::make_tuple(registered(std::move(bound.program)), inputs);
}

std::shared_ptr<PlannedProgram> load_program(const std::string& bytes) {
  return registered(Program::deserialise(bytes));
}

py::dict describe(const PlannedProgram& p) {
  py::dict d;
  d["num_wires"] = p.program.num_wires;
  d["num_inputs"] = p.program.inputs.size();
  d["num_gates"] = p.program.gates.size();
  d["real_results"] = p.program.real_results();
  d["complex_results"] = p.program.complex_results();
  d["left_out"] = p.num_left_out;
  return d;
}

// --- descriptions of plans, for `explain` ----------------------------------------------------------------------------

py::tuple costs(const Cost& forward, const Cost& backward) {
  return py::make_tuple(forward.multiply_adds, forward.bytes, backward.multiply_adds, backward.bytes);
}

py::dict describe_pass(const Plan& plan, const Pass& pass, const Traffic& traffic) {
  py::dict d;
  int blocks = 0, rotations = 0, phases = 0, strings = 0, coset_phases = 0, matrices = 0;
  if (const auto* gate = std::get_if<GatePass>(&pass)) {
    d["gate"] = plan.gate_ops[gate->gate_op].gate;
    d["tiles"] = 1;
    d["active_tiles"] = 1;
  } else {
    const auto& tiles = std::get<TilePass>(pass);
    for (const TileOp& op : tiles.operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) {
        ++blocks;
        rotations += static_cast<int>(block->rotations.size());
      } else if (const auto* factors = std::get_if<Phases>(&op)) {
        ++phases;
        strings += static_cast<int>(factors->strings.size());
      } else if (std::holds_alternative<TileMatrix>(op)) {
        ++matrices;
      } else {
        ++coset_phases;
      }
    }
    d["gate"] = py::none();
    d["tiles"] = tiles.tiles.size();
    d["active_tiles"] = tiles.num_active_tiles;
  }
  d["blocks"] = blocks;
  d["rotations"] = rotations;
  d["phases"] = phases;
  d["strings"] = strings;
  d["coset_phases"] = coset_phases;
  d["matrices"] = matrices;
  d["costs"] = costs(forward_cost(plan, pass, traffic), backward_cost(plan, pass, traffic));
  return d;
}

py::dict describe_observables(const Plan& plan, const ObservablePass& pass, const Traffic& traffic) {
  py::dict d;
  std::size_t pauli_words = 0;
  for (const PauliGroup& g : pass.groups) pauli_words += g.members.size();
  d["tiles"] = pass.tiles.size();
  d["groups"] = pass.groups.size();
  d["words"] = pauli_words;
  d["in_last_pass"] = pass.in_last_pass;
  d["costs"] = costs(forward_cost(plan, pass, traffic), backward_cost(plan, pass, traffic));
  return d;
}

py::dict describe_passes(const Plan& plan, const Traffic& traffic) {
  py::list passes;
  for (const Pass& pass : plan.passes) passes.append(describe_pass(plan, pass, traffic));
  py::list observables;
  for (const ObservablePass& pass : plan.observables) observables.append(describe_observables(plan, pass, traffic));
  py::dict d;
  d["tile_bits"] = std::min(plan.layout.tile_bits, plan.program->num_wires);
  d["dropped"] = plan.dropped;
  d["basis"] = plan.basis == Basis::z ? "Z" : "X";
  d["passes"] = passes;
  d["observables"] = observables;
  return d;
}

CallPlan make_plan(const PlannedProgram& p, Index batch, bool is_double, int threads) {
  return is_double ? plan_call<double>(p, batch, threads) : plan_call<float>(p, batch, threads);
}

// Gates are numbered as in the circuit.
py::dict describe_passes(const PlannedProgram& p, const Plan& plan, const Traffic& traffic) {
  py::dict d = describe_passes(plan, traffic);
  d["dropped"] = plan.dropped + p.num_left_out;
  for (const py::handle pass : d["passes"]) {
    if (!pass["gate"].is_none() && !p.gates.empty()) pass["gate"] = p.gates[pass["gate"].cast<std::size_t>()];
  }
  return d;
}

py::dict describe_plan(const PlannedProgram& p, Index batch, bool is_double, int threads) {
  const CallPlan call = make_plan(p, batch, is_double, threads);
  py::dict d = describe_passes(p, *call.plan, {.number_bytes = is_double ? 8 : 4, .moves_zeros = true});
  d["lanes"] = call.lanes;
  d["parallel_passes"] = call.parallel_passes;
  d["tasks"] = call.tasks;
  return d;
}

py::dict describe_gpu_plan(const PlannedProgram& p, bool is_double, std::size_t shared_bytes) {
  const int number_bytes = is_double ? 8 : 4;
  const Plan& plan = p.plan(gpu_layout(p.program.num_wires, number_bytes, shared_bytes));
  return describe_passes(p, plan, {.number_bytes = number_bytes, .moves_zeros = false});
}

// The program of each part, and how many circuits it is at once.
py::list parts_of(const PlannedProgram& p) {
  py::list parts;
  for (const Part& part : p.parts.parts)
    parts.append(py::make_tuple(std::const_pointer_cast<PlannedProgram>(part.program), part.members.size()));
  return parts;
}

std::vector<std::string> gate_names(const PlannedProgram& p) {
  std::vector<std::string> names;
  for (const Gate& g : p.program.gates) names.emplace_back(gate_info(g.opcode).name);
  return names;
}

// MemoryError with the measurement's number and that of its wires, for Python to say which it is.
void translate_too_many_wires(std::exception_ptr raised) {
  try {
    std::rethrow_exception(std::move(raised));
  } catch (const TooManyWires& error) {
    const py::tuple arguments = py::make_tuple(error.what(), error.measurement, error.wires);
    PyErr_SetObject(PyExc_MemoryError, arguments.ptr());
  }
}

py::dict profile_of(std::int64_t id) {
  const auto all = take_profile();
  const auto it = all.find(id);
  const PassTimes times = it == all.end() ? PassTimes() : it->second;
  py::dict d;
  d["forward"] = times.forward;
  d["backward"] = times.backward;
  d["measure"] = times.measure;
  d["bra"] = times.bra;
  return d;
}

// The number of axes of each input, the batch axis excluded.
std::vector<std::size_t> input_axes(const PlannedProgram& p) {
  std::vector<std::size_t> axes;
  for (const InputSpec& spec : p.program.inputs) axes.push_back(spec.shape.size());
  return axes;
}

py::list gate_list() {
  py::list gates;
  for (const GateInfo& g : gate_table)
    gates.append(py::make_tuple(std::string(g.name), g.num_wires, g.num_controls, g.num_parameters));
  return gates;
}

py::list measurement_list() {
  constexpr const char* subjects[] = {"observable", "wires", "all_wires"};
  py::list measurements;
  for (const MeasurementInfo& info : measurement_table) {
    measurements.append(py::make_tuple(std::string(info.name), subjects[static_cast<int>(info.subject)],
                                       info.is_complex, static_cast<int>(info.num_axes)));
  }
  return measurements;
}

// Square matrices of at most 2^4 rows, one after the other in memory; a matrix may lie there by rows or by columns.
struct SmallMatrices {
  static constexpr Index largest = 16;

  Index count;
  Index size;
  Index row_stride;  // in complex numbers
  Index column_stride;
};

// The largest deviation. A matrix with NaN or infinities has none.
template <class T>
double unitary_deviation_of(const T* numbers, const SmallMatrices& matrices) {
  const Index size = matrices.size;
  std::array<T, 2 * SmallMatrices::largest * SmallMatrices::largest> matrix;
  Worst worst;
  for (Index m = 0; m < matrices.count; ++m) {
    const T* first = numbers + 2 * m * size * size;
    for (Index e = 0; e < size * size; ++e) {
      const T* entry = first + 2 * (e / size * matrices.row_stride + e % size * matrices.column_stride);
      matrix[2 * e] = entry[0];
      matrix[2 * e + 1] = entry[1];
    }
    if (std::all_of(matrix.data(), matrix.data() + 2 * size * size, [](T x) { return std::isfinite(x); }))
      worst.see(unitary_deviation(matrix.data(), size));
  }
  return worst.value();
}

double unitary_deviation_at(std::uintptr_t address, bool is_double, Index count, Index size, Index row_stride,
                            Index column_stride) {
  if (size > SmallMatrices::largest) throw std::invalid_argument("ketgrad: a matrix of more than 16 rows");
  if (address == 0) return 0;  // a tensor whose storage was freed
  const SmallMatrices matrices{count, size, row_stride, column_stride};
  return is_double ? unitary_deviation_of(reinterpret_cast<const double*>(address), matrices)
                   : unitary_deviation_of(reinterpret_cast<const float*>(address), matrices);
}

// The compiler and its options, as far as predefined macros show them.
std::string build_flags() {
#if defined(__clang__)
  std::string text = "clang " __clang_version__;
#elif defined(__GNUC__)
  std::string text = "gcc " __VERSION__;
#else
  std::string text = "unknown compiler";
#endif
#if defined(__OPTIMIZE__)
  text += ", optimised";
#else
  text += ", not optimised";
#endif
#if defined(NDEBUG)
  text += ", without assertions";
#endif
#if defined(_OPENMP)
  text += ", OpenMP";
#endif
  text += ", stable ABI of torch " + std::to_string(torch_target_version >> 56) + "." +
          std::to_string((torch_target_version >> 48) & 0xff);
  return text;
}

}  // namespace
}  // namespace ketgrad

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace ketgrad;
  py::class_<PlannedProgram, std::shared_ptr<PlannedProgram>>(m, "Program")
      .def_readonly("id", &PlannedProgram::id)
      .def("describe", &describe)
      .def_property_readonly("ket_size", &PlannedProgram::ket_size)
      .def(
          "make_plan",
          [](const PlannedProgram& p, Index batch, bool is_double, int threads) {
            make_plan(p, batch, is_double, threads);
          },
          py::arg("batch"), py::arg("is_double"), py::arg("threads"), "make the plan now, ahead of the first call")
      .def("describe_plan", &describe_plan, py::arg("batch"), py::arg("is_double"), py::arg("threads"))
      .def("describe_gpu_plan", &describe_gpu_plan, py::arg("is_double"), py::arg("shared_bytes"))
      .def("input_axes", &input_axes)
      .def("parts", &parts_of, "(program, circuits) of each part; empty: it is run as it is")
      .def("gate_names", &gate_names)
      .def("measured_wires", &measured_wires, "for each measurement the wires of the largest state that it takes")
      .def("serialise", [](const PlannedProgram& p) { return py::bytes(p.content); })
      .def("enter_cache", &PlannedProgram::enter_cache)
      .def("leave_cache", &PlannedProgram::leave_cache)
      .def_property_readonly("bytes", &PlannedProgram::bytes, "memory in bytes, plans made so far included");
  m.def("write_program", &write_program, py::arg("structure"), py::arg("inputs"), py::arg("places"),
        "see bindings/tape_reader.h");
  m.def("bind_program", &bind_program, py::arg("structure"), py::arg("parameters"), "see bindings/tape_reader.h");
  m.def(
      "find_program", [](std::int64_t id) { return std::const_pointer_cast<PlannedProgram>(find_program(id)); },
      py::arg("id"));
  m.def("cached_bytes", &cached_bytes, "bytes of the programs in caches");
  m.def("load_program", &load_program, py::arg("bytes"), "the program of Program.serialise(), validated");
  m.def("pin_program", &pin_program, py::arg("id"));
  m.def(
      "registry_address", [] { return reinterpret_cast<std::uintptr_t>(&find_program); },
      "the address of find_program, for other extensions: the registry is in this one");
  m.attr("NO_INPUT") = no_input;
  py::register_local_exception_translator(&translate_too_many_wires);
  m.def("measurement_table", &measurement_list,
        "(name, subject, is_complex, axes) of each measurement; an axis has length 2^k for k measured wires");
  m.def("gate_table", &gate_list, "(name, wires, controls, parameters) of each gate; -1 wires: any number");
  m.def("available_memory", &available_memory, "in bytes");
  m.def("fits_memory", &fits_memory, py::arg("bytes"));
  m.def("require_memory", &require_memory, py::arg("bytes"), py::arg("what"));
  m.def("unitary_deviation", &unitary_deviation_at, py::arg("address"), py::arg("is_double"), py::arg("count"),
        py::arg("size"), py::arg("row_stride"), py::arg("column_stride"),
        "the largest modulus in U U^dagger - 1, of `count` matrices one after the other; strides in complex numbers");
  m.def("available_simd_levels", &available_simd_levels);
  m.def("current_simd_level", &current_simd_level);
  m.def("set_simd_level", &set_simd_level, py::arg("name"));
  const Thresholds defaults;
  m.def("set_thresholds", &set_thresholds_of, py::kw_only(), py::arg("tile_bits") = defaults.tile_bits,
        py::arg("scale_bits") = defaults.scale_bits, py::arg("support") = defaults.support, py::arg("regime") = "auto",
        py::arg("spread") = defaults.spread, "for tests; see cpu/thresholds.h");
  m.def(
      "set_part_costs",
      [](double of_part, double of_cut, double least_gain, int most_kept) {
        set_part_costs({of_part, of_cut, least_gain, most_kept});
      },
      py::kw_only(), py::arg("of_part") = PartCosts().of_part, py::arg("of_cut") = PartCosts().of_cut,
      py::arg("least_gain") = PartCosts().least_gain, py::arg("most_kept") = PartCosts().most_kept,
      "for tests; see plan/parts.h");
  m.def("sweep_count", &sweep_count);
  m.def("start_profile", &start_profile);
  m.def("take_profile", &profile_of, py::arg("program"), "seconds per pass since start_profile, over all threads");
  m.def("build_flags", &build_flags);
  set_cancel_hook(&signal_raised, &throw_raised);
}

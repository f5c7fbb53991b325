#include "bindings/tape_reader.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "program/gate_table.h"
#include "program/measurement_table.h"

namespace ketgrad {

namespace {

// --- Python's objects ------------------------------------------------------------------------------------------------

// A structure is nested tuples. The tuple keeps its items alive.
py::handle item(py::handle tuple, Py_ssize_t i) {
  PyObject* found = PyTuple_GetItem(tuple.ptr(), i);
  if (found == nullptr) throw py::error_already_set();
  return found;
}

Py_ssize_t size_of(py::handle tuple) {
  const Py_ssize_t size = PyTuple_Size(tuple.ptr());
  if (size < 0) throw py::error_already_set();
  return size;
}

template <class F>
void for_each_item(py::handle tuple, const F& f) {
  const Py_ssize_t size = size_of(tuple);
  for (Py_ssize_t i = 0; i < size; ++i) f(item(tuple, i));
}

std::string_view text(py::handle object) {
  Py_ssize_t size = 0;
  const char* found = PyUnicode_AsUTF8AndSize(object.ptr(), &size);
  if (found == nullptr) throw py::error_already_set();
  return {found, static_cast<std::size_t>(size)};
}

int integer(py::handle object) {
  const long found = PyLong_AsLong(object.ptr());
  if (found == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return static_cast<int>(found);
}

std::vector<int> integers(py::handle tuple) {
  std::vector<int> found;
  for_each_item(tuple, [&](py::handle each) { found.push_back(integer(each)); });
  return found;
}

// The int64 numbers of a `bytes`.
std::vector<std::int64_t> packed_integers(py::handle object) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(object.ptr(), &data, &size) != 0) throw py::error_already_set();
  std::vector<std::int64_t> found(static_cast<std::size_t>(size) / sizeof(std::int64_t));
  if (!found.empty()) std::memcpy(found.data(), data, found.size() * sizeof(std::int64_t));
  return found;
}

[[noreturn]] void unknown(const char* what, std::string_view name) {
  throw std::invalid_argument(std::string("ketgrad: unknown ") + what + " '" + std::string(name) + "'");
}

Opcode opcode_of(std::string_view name) {
  const int found = find_gate(name);
  if (found < 0) unknown("gate", name);
  return static_cast<Opcode>(found);
}

MeasurementKind measurement_kind(std::string_view name) {
  const int found = find_measurement(name);
  if (found < 0) unknown("measurement", name);
  return static_cast<MeasurementKind>(found);
}

FactorKind factor_kind(std::string_view name) {
  for (std::size_t i = 0; i < std::size(factor_names); ++i) {
    if (name == factor_names[i]) return static_cast<FactorKind>(i);
  }
  unknown("factor", name);
}

// --- wires and parameters --------------------------------------------------------------------------------------------

// The number of each label.
class Wires {
 public:
  explicit Wires(py::handle labels) {
    for_each_item(labels, [&](py::handle label) { numbers_[label] = py::int_(count_++); });
  }

  int count() const { return count_; }

  int operator[](py::handle label) const {
    PyObject* found = PyDict_GetItemWithError(numbers_.ptr(), label.ptr());
    if (found == nullptr && PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, label.ptr());
    if (found == nullptr) throw py::error_already_set();
    return integer(found);
  }

  std::vector<int> of(py::handle labels) const {
    std::vector<int> found;
    found.reserve(static_cast<std::size_t>(size_of(labels)));
    for_each_item(labels, [&](py::handle label) { found.push_back((*this)[label]); });
    return found;
  }

  std::vector<int> all() const {
    std::vector<int> found;
    for (int w = 0; w < count_; ++w) found.push_back(w);
    return found;
  }

 private:
  py::dict numbers_;
  int count_ = 0;
};

Slot slot_of(py::handle place) {
  Slot slot{integer(item(place, 0)), integer(item(place, 1)), 1, 0};
  if (size_of(place) == 2) return slot;
  slot.scale = item(place, 2).cast<double>();
  slot.offset = item(place, 3).cast<double>();
  return slot;
}

// Where each parameter of a tape is read from.
class Places {
 public:
  Places() = default;

  explicit Places(const py::list& places) {
    for (const py::handle place : places) {
      begin_parameter();
      if (!PyList_Check(place.ptr())) {
        add(slot_of(place));
        continue;
      }
      for (const py::handle column : place) add(slot_of(column));
    }
  }

  void begin_parameter() { firsts_.push_back(slots_.size()); }
  void add(const Slot& slot) { slots_.push_back(slot); }

  const Slot& slot(int parameter, int column) const {
    const auto number = static_cast<std::size_t>(parameter);
    if (number >= firsts_.size() || firsts_[number] + column >= slots_.size())
      throw py::index_error("ketgrad: parameter " + std::to_string(parameter) + " is out of range");
    return slots_[firsts_[number] + column];
  }

 private:
  std::vector<Slot> slots_;
  std::vector<std::size_t> firsts_;  // per parameter the number of its first slot
};

// Groups the parameters of a tape to inputs.
class Binder {
 public:
  Binder(py::handle trainable, py::handle parameters) : parameters_(parameters) {
    is_trainable_.resize(static_cast<std::size_t>(size_of(parameters)), false);
    for_each_item(trainable, [&](py::handle each) { is_trainable_.at(integer(each)) = true; });
    columns_.push_back({.layout = 'n', .is_column = true});
  }

  void see(py::handle operations, py::handle measurements) {
    for_each_item(operations, [&](py::handle each) { see_operation(each); });
    for_each_item(measurements, [&](py::handle each) {
      const py::handle observable = item(each, 2);
      if (!observable.is_none()) see_observable(observable);
    });
  }

  // Once all are seen.
  Places places() const {
    std::vector<Slot> first(is_trainable_.size());
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      for (std::size_t column = 0; column < columns_[i].parameters.size(); ++column)
        first[columns_[i].parameters[column]] = {static_cast<int>(i), static_cast<int>(column), 1, 0};
    }
    for (std::size_t i = 0; i < single_.size(); ++i)
      first[single_[i].parameters[0]].input = static_cast<int>(columns_.size() + i);
    Places found;
    for (std::size_t parameter = 0; parameter < first.size(); ++parameter) {
      found.begin_parameter();
      for (int column = 0; column < lengths_[parameter]; ++column)
        found.add({first[parameter].input, first[parameter].column + column, 1, 0});
    }
    return found;
  }

  std::vector<InputSpec> specs() const {
    std::vector<InputSpec> found;
    for (const BoundInput& each : columns_) found.push_back({false, {static_cast<Index>(each.parameters.size())}});
    for (std::size_t i = 0; i < single_.size(); ++i) found.push_back({single_[i].is_complex, shapes_[i]});
    return found;
  }

  std::vector<BoundInput> inputs() && {
    std::move(single_.begin(), single_.end(), std::back_inserter(columns_));
    return std::move(columns_);
  }

 private:
  void see_operation(py::handle structure) {
    const std::string_view layout = text(item(structure, 7));
    if (layout.empty()) return;
    const std::string_view name = text(item(structure, 0));
    const Family family = name == "StatePrep" ? Family::matrix : gate_info(opcode_of(name)).family;
    const bool is_dense = family == Family::matrix || family == Family::diagonal;
    if (family == Family::evolution) {
      see_scalar(layout.at(0));
      return see_single(layout.at(1), false);
    }
    for (const char letter : layout) is_dense ? see_single(letter, true) : see_scalar(letter);
  }

  void see_observable(py::handle observable) {
    const py::handle kinds = item(observable, 2);
    const std::string_view layout = text(item(observable, 3));
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const std::string_view kind = text(item(kinds, static_cast<Py_ssize_t>(i)));
      if (kind == "coefficient") {
        see_scalar(layout[i]);
      } else if (kind == "coefficients") {
        see_vector(layout[i]);
      } else {
        see_single(layout[i], kind != "entries");
      }
    }
  }

  void see_scalar(char letter) {
    const int parameter = next();
    const bool is_trainable = is_trainable_.at(parameter);
    const auto is_alike = [&](const BoundInput& i) { return i.layout == letter && i.is_trainable == is_trainable; };
    auto found = std::ranges::find_if(columns_, is_alike);
    if (found == columns_.end())
      found = columns_.insert(found, {.layout = letter, .is_trainable = is_trainable, .is_column = true});
    found->parameters.push_back(parameter);
  }

  // Each column has a slot.
  void see_vector(char letter) {
    see_single(letter, false);
    lengths_.back() = static_cast<int>(shapes_.back().at(0));
  }

  void see_single(char letter, bool is_complex) {
    const int parameter = next();
    const bool is_batched = letter == 'b' || letter == 'B';
    auto shape = item(parameters_, parameter).attr("shape").cast<std::vector<Index>>();
    if (is_batched) shape.erase(shape.begin());
    single_.push_back({letter, is_trainable_.at(parameter), false, is_complex, {parameter}});
    shapes_.push_back(std::move(shape));
  }

  int next() {
    lengths_.push_back(1);
    return static_cast<int>(lengths_.size()) - 1;
  }

  const py::handle parameters_;
  std::vector<bool> is_trainable_;
  std::vector<BoundInput> columns_;
  std::vector<BoundInput> single_;
  std::vector<std::vector<Index>> shapes_;  // of the single ones
  std::vector<int> lengths_;                // slots of each parameter
};

class TapeReader {
 public:
  TapeReader(py::handle wires, Places places, std::vector<InputSpec> inputs)
      : wires_(wires), places_(std::move(places)) {
    program_.num_wires = wires_.count();
    program_.inputs = std::move(inputs);
  }

  Program run(py::handle operations, py::handle measurements) {
    program_.gates.reserve(static_cast<std::size_t>(size_of(operations)));
    for_each_item(operations, [&](py::handle each) { add_operation(each); });
    for_each_item(measurements, [&](py::handle each) { add_measurement(each); });
    return std::move(program_);
  }

 private:
  // --- parameters: `first_` is the number of the next operation's, or observable's, first one

  const Slot& slot(int parameter, int column) const { return places_.slot(parameter, column); }

  int input(int parameter) const { return slot(parameter, 0).input; }

  // --- operations

  // (name, wires, controls, control values, inverse, Pauli word, bits, layout of the parameters)
  void add_operation(py::handle structure) {
    const std::string_view name = text(item(structure, 0));
    const auto num_parameters = static_cast<int>(text(item(structure, 7)).size());
    if (name == "BasisState") {
      program_.initial = {Preparation::basis, wires_.of(item(structure, 1)), integers(item(structure, 6)), no_input};
    } else if (name == "StatePrep") {
      program_.initial = {Preparation::state, wires_.of(item(structure, 1)), {}, input(first_)};
    } else {
      program_.gates.push_back(gate(name, structure, num_parameters));
    }
    first_ += num_parameters;
  }

  Gate gate(std::string_view name, py::handle structure, int num_parameters) const {
    Gate gate;
    gate.opcode = opcode_of(name);
    const GateInfo& info = gate_info(gate.opcode);
    gate.inverse = item(structure, 4).cast<bool>();
    set_wires(gate, info, structure);
    if (info.family == Family::matrix || info.family == Family::diagonal) {
      gate.input = input(first_);
    } else if (info.family == Family::evolution) {
      gate.slots.push_back(slot(first_, 0));
      gate.input = input(first_ + 1);
    } else {
      for (int p = 0; p < num_parameters; ++p) gate.slots.push_back(slot(first_ + p, 0));
    }
    if (info.family == Family::pauli_rotation) gate.pauli_word = pauli_word(info, item(structure, 5), gate.targets);
    return gate;
  }

  // The gate's own controls are the first of its wires; those that were added come before them.
  void set_wires(Gate& gate, const GateInfo& info, py::handle structure) const {
    gate.targets = wires_.of(item(structure, 1));
    gate.controls = wires_.of(item(structure, 2));
    for_each_item(item(structure, 3), [&](py::handle each) { gate.control_values.push_back(each.cast<bool>()); });
    if (static_cast<int>(gate.targets.size()) < info.num_controls)
      throw std::invalid_argument("ketgrad: " + std::string(info.name) + " has too few wires");
    const auto own = gate.targets.begin() + info.num_controls;
    gate.controls.insert(gate.controls.end(), gate.targets.begin(), own);
    gate.control_values.insert(gate.control_values.end(), info.num_controls, true);
    gate.targets.erase(gate.targets.begin(), own);
    // It acts on all wires alike, whatever it was written on.
    if (info.formula == Formula::global_phase) gate.targets.clear();
  }

  // The gate's own, or the tape's, or, where there is none, Zs.
  static std::string pauli_word(const GateInfo& info, py::handle given, const std::vector<int>& targets) {
    if (!info.pauli_word.empty()) return std::string(info.pauli_word);
    const std::string_view found = text(given);
    return found.empty() ? std::string(targets.size(), 'Z') : std::string(found);
  }

  // --- measurements

  // (kind, wires, observable), an observable being (terms, wires, kinds, layout of the parameters) or None.
  void add_measurement(py::handle structure) {
    Measurement measurement;
    measurement.kind = measurement_kind(text(item(structure, 0)));
    const py::handle observable = item(structure, 2);
    if (!observable.is_none()) {
      for_each_item(item(observable, 0), [&](py::handle each) { measurement.terms.push_back(term(each)); });
      first_ += static_cast<int>(text(item(observable, 3)).size());
    } else if (measurement_info(measurement.kind).subject == Subject::wires) {
      measurement.wires = wires_.of(item(structure, 1));
      if (measurement.wires.empty()) measurement.wires = wires_.all();
    }
    program_.measurements.push_back(std::move(measurement));
  }

  // (scale, coefficients, Pauli word, factors): the first of pairs (parameter, column), the second of (wire, letter).
  Term term(py::handle structure) const {
    Term term;
    term.scale = item(structure, 0).cast<double>();
    for_each_item(item(structure, 1), [&](py::handle each) {
      term.coefficients.push_back(slot(first_ + integer(item(each, 0)), integer(item(each, 1))));
    });
    for_each_item(item(structure, 2), [&](py::handle each) {
      term.pauli_wires.push_back(wires_[item(each, 0)]);
      term.pauli_word += text(item(each, 1));
    });
    for_each_item(item(structure, 3), [&](py::handle each) { term.factors.push_back(factor(each)); });
    return term;
  }

  // (kind, wires, parameter, bits, rows, columns)
  Factor factor(py::handle structure) const {
    const int parameter = integer(item(structure, 2));
    return {factor_kind(text(item(structure, 0))),
            wires_.of(item(structure, 1)),
            parameter < 0 ? no_input : input(first_ + parameter),
            integers(item(structure, 3)),
            packed_integers(item(structure, 4)),
            packed_integers(item(structure, 5))};
  }

  const Wires wires_;
  const Places places_;
  int first_ = 0;
  Program program_;
};

}  // namespace

Program read_tape(const py::tuple& structure, const py::sequence& inputs, const py::sequence& places) {
  std::vector<InputSpec> specs;
  for (const py::handle each : inputs)
    specs.push_back({item(each, 0).cast<bool>(), item(each, 1).cast<std::vector<Index>>()});
  return TapeReader(item(structure, 2), Places(py::list(places)), std::move(specs))
      .run(item(structure, 0), item(structure, 1));
}

BoundTape bind_tape(const py::tuple& structure, const py::tuple& parameters) {
  Binder binder(item(structure, 4), parameters);
  binder.see(item(structure, 0), item(structure, 1));
  Program program =
      TapeReader(item(structure, 2), binder.places(), binder.specs()).run(item(structure, 0), item(structure, 1));
  return {std::move(program), std::move(binder).inputs()};
}

}  // namespace ketgrad

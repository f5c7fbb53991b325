#include "program/program.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>

namespace ketgrad {

namespace {

[[noreturn]] void invalid(const std::string& where, const std::string& what) {
  throw std::invalid_argument("ketgrad: malformed program: " + where + ": " + what);
}

[[noreturn]] void outside(const std::string& where, const std::string& what) {
  throw std::out_of_range("ketgrad: malformed program: " + where + ": " + what);
}

class DistinctWires {
 public:
  // False where it is there already.
  bool add(int wire) {
    if (wire >= 64) return others_.insert(wire).second;
    const Mask bit = Mask{1} << wire;
    const bool is_new = (first_ & bit) == 0;
    first_ |= bit;
    return is_new;
  }

 private:
  Mask first_ = 0;  // of the first 64 wires
  std::unordered_set<int> others_;
};

// Of some wires; of too many, a number that no input has.
Index num_states(const std::vector<int>& wires) {
  return Index{1} << std::min<std::size_t>(wires.size(), max_wires + 1);
}

struct Validator {
  const Program& program;

  void wires(const std::string& where, const std::vector<int>& list, DistinctWires& seen) const {
    for (const int w : list) {
      if (w < 0 || w >= program.num_wires) {
        outside(where, "wire " + std::to_string(w) + " is outside 0.." + std::to_string(program.num_wires - 1));
      }
      if (!seen.add(w)) invalid(where, "wire " + std::to_string(w) + " appears twice");
    }
  }

  void slot(const std::string& where, const Slot& s) const {
    if (s.input < 0 || s.input >= static_cast<int>(program.inputs.size()))
      outside(where, "no input " + std::to_string(s.input));
    const InputSpec& spec = program.inputs[s.input];
    if (spec.is_complex || spec.shape.size() != 1)
      invalid(where, "input " + std::to_string(s.input) + " is not a real vector");
    if (s.column < 0 || s.column >= spec.shape[0]) {
      outside(where, "input " + std::to_string(s.input) + " has no column " + std::to_string(s.column));
    }
  }

  void complex_input(const std::string& where, int input, const std::vector<Index>& shape) const {
    whole_input(where, input, shape, true);
  }

  // Of which every element is read.
  void whole_input(const std::string& where, int input, const std::vector<Index>& shape, bool is_complex) const {
    if (input < 0 || input >= static_cast<int>(program.inputs.size()))
      outside(where, "no input " + std::to_string(input));
    const InputSpec& spec = program.inputs[input];
    if (spec.is_complex != is_complex || spec.shape != shape) {
      invalid(where, "input " + std::to_string(input) + " is not " + (is_complex ? "complex" : "real") +
                         ", or not of the shape that is needed");
    }
  }

  // Plan and engine read this field whatever the kind.
  static void unused_input(const std::string& where, int input) {
    if (input != no_input) invalid(where, "input " + std::to_string(input) + " is of no use here");
  }

  void gate(std::size_t position) const {
    const Gate& g = program.gates[position];
    if (g.opcode >= num_gates) outside("gate " + std::to_string(position), "no opcode " + std::to_string(g.opcode));
    const GateInfo& info = gate_info(g.opcode);
    const std::string where = "gate " + std::to_string(position) + " (" + std::string(info.name) + ")";
    DistinctWires seen;
    wires(where, g.targets, seen);
    wires(where, g.controls, seen);
    if (g.control_values.size() != g.controls.size()) invalid(where, "one control value per control is needed");
    const auto own_controls = static_cast<std::size_t>(info.num_controls);
    if (g.controls.size() < own_controls) invalid(where, "controls are missing");
    for (std::size_t j = g.controls.size() - own_controls; j < g.controls.size(); ++j) {
      if (!g.control_values[j]) invalid(where, "the gate's own controls are on 1");
    }
    if (info.num_wires != any_wires && static_cast<int>(g.targets.size()) != info.num_wires - info.num_controls) {
      invalid(where, "has " + std::to_string(g.targets.size()) + " targets, needs " +
                         std::to_string(info.num_wires - info.num_controls));
    }
    if (static_cast<int>(g.slots.size()) != info.num_parameters) {
      invalid(where,
              "has " + std::to_string(g.slots.size()) + " parameters, needs " + std::to_string(info.num_parameters));
    }
    for (const Slot& s : g.slots) slot(where, s);
    const Index size = num_states(g.targets);
    switch (info.family) {
      case Family::matrix: complex_input(where, g.input, {size, size}); break;
      case Family::diagonal: complex_input(where, g.input, {size}); break;
      case Family::evolution: whole_input(where, g.input, {size}, false); break;
      default: unused_input(where, g.input);
    }
    if (!info.pauli_word.empty() && g.pauli_word != info.pauli_word)
      invalid(where, "the Pauli word '" + g.pauli_word + "' is not the gate's own");
    if (info.family == Family::pauli_rotation) pauli_word(where, g.pauli_word, g.targets.size(), "IXYZ");
    if (info.formula == Formula::global_phase && !g.targets.empty()) invalid(where, "a global phase has no targets");
  }

  static void pauli_word(const std::string& where, const std::string& pauli_word, std::size_t length,
                         const char* letters) {
    if (pauli_word.size() != length)
      invalid(where, "the Pauli word '" + pauli_word + "' has not " + std::to_string(length) + " letters");
    if (pauli_word.find_first_not_of(letters) != std::string::npos)
      invalid(where, "the Pauli word '" + pauli_word + "' has other letters than " + letters);
  }

  static void bits(const std::string& where, const std::vector<int>& list, std::size_t length) {
    if (list.size() != length) invalid(where, "one bit per wire is needed");
    for (const int b : list) {
      if (b != 0 && b != 1) invalid(where, "bits are 0 or 1");
    }
  }

  void initial() const {
    DistinctWires seen;
    const InitialState& s = program.initial;
    wires("initial state", s.wires, seen);
    switch (s.kind) {
      case Preparation::zero:
        if (!s.wires.empty()) invalid("initial state", "|0> needs no wires");
        break;
      case Preparation::basis: bits("initial state", s.bits, s.wires.size()); break;
      case Preparation::state: complex_input("initial state", s.input, {num_states(s.wires)}); break;
      default: invalid("initial state", "unknown preparation");
    }
    if (s.kind != Preparation::basis && !s.bits.empty()) invalid("initial state", "bits are of no use here");
    if (s.kind != Preparation::state) unused_input("initial state", s.input);
  }

  void factor(const std::string& where, const Factor& f) const {
    const Index size = num_states(f.wires);
    switch (f.kind) {
      case FactorKind::hermitian: return complex_input(where, f.input, {size, size});
      case FactorKind::projector: unused_input(where, f.input); return bits(where, f.bits, f.wires.size());
      case FactorKind::state_projector: return complex_input(where, f.input, {size});
      case FactorKind::sparse: {
        if (f.rows.size() != f.columns.size()) invalid(where, "rows and columns of a sparse matrix differ in number");
        for (std::size_t k = 0; k < f.rows.size(); ++k) {
          if (f.rows[k] < 0 || f.rows[k] >= size || f.columns[k] < 0 || f.columns[k] >= size)
            outside(where, "an entry of a sparse matrix is outside the matrix");
        }
        return complex_input(where, f.input, {static_cast<Index>(f.rows.size())});
      }
      case FactorKind::diagonal: return whole_input(where, f.input, {size}, false);
    }
    invalid(where, "unknown factor");
  }

  void measurement(std::size_t position) const {
    const Measurement& m = program.measurements[position];
    const std::string where = "measurement " + std::to_string(position);
    DistinctWires seen;
    wires(where, m.wires, seen);
    if (static_cast<int>(m.kind) >= num_measurements) invalid(where, "unknown measurement");
    const MeasurementInfo& info = measurement_info(m.kind);
    if (info.num_axes * m.wires.size() > max_wires)
      invalid(where, std::string(info.name) + " of " + std::to_string(m.wires.size()) + " wires is too large");
    for (const Term& t : m.terms) {
      DistinctWires term_wires;
      wires(where, t.pauli_wires, term_wires);
      pauli_word(where, t.pauli_word, t.pauli_wires.size(), "XYZ");
      for (const Slot& s : t.coefficients) slot(where, s);
      for (const Factor& f : t.factors) {
        wires(where, f.wires, term_wires);
        factor(where, f);
      }
    }
  }

  void run() const {
    if (program.num_wires < 0) invalid("wires", std::to_string(program.num_wires) + " wires");
    if (program.inputs.empty() || program.inputs[0].is_complex) invalid("inputs", "input 0 must be real");
    for (const InputSpec& spec : program.inputs) {
      double numel = 1;
      for (const Index s : spec.shape) {
        if (s < 0 || s > (Index{1} << max_wires)) invalid("inputs", "an axis has an impossible length");
        numel *= static_cast<double>(s);
      }
      if (numel > 0x1p60) invalid("inputs", "an input has more elements than are possible");
    }
    initial();
    for (std::size_t i = 0; i < program.gates.size(); ++i) gate(i);
    for (std::size_t i = 0; i < program.measurements.size(); ++i) measurement(i);
  }
};

// Serialisation: `transfer` visits the fields of a program, with a Writer or a Reader.
class Writer {
 public:
  template <class T>
  void number(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }

  template <class Container, class F>
  void each(const Container& values, const F& f) {
    number(static_cast<std::uint64_t>(values.size()));
    for (const auto& v : values) f(v);
  }

  template <class Container>
  void list(const Container& values) {
    number(static_cast<std::uint64_t>(values.size()));
    for (const auto& v : values) number(static_cast<typename Container::value_type>(v));
  }

  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <class T>
  void number(T& value) {
    require(sizeof(T));
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_.remove_prefix(sizeof(T));
  }

  void number(bool& value) {
    unsigned char raw = 0;
    number(raw);
    value = raw != 0;
  }

  template <class Container, class F>
  void each(Container& values, const F& f) {
    values.resize(count());
    for (auto& v : values) f(v);
  }

  template <class Container>
  void list(Container& values) {
    values.resize(count());
    for (std::size_t i = 0; i < values.size(); ++i) {
      typename Container::value_type v{};
      number(v);
      values[i] = v;
    }
  }

  bool at_end() const { return bytes_.empty(); }

 private:
  void require(std::uint64_t size) const {
    if (size > bytes_.size()) throw std::invalid_argument("ketgrad: these bytes are no program, they end too early");
  }

  // The length of a list. Each element takes at least one byte, so a corrupt length cannot make it allocate too much.
  std::size_t count() {
    std::uint64_t found = 0;
    number(found);
    require(found);
    return static_cast<std::size_t>(found);
  }

  std::string_view bytes_;
};

template <class Archive, class P>
void transfer(Archive& a, P& program) {
  const auto slots = [&](auto& list) {
    a.each(list, [&](auto& s) {
      a.number(s.input);
      a.number(s.column);
      a.number(s.scale);
      a.number(s.offset);
    });
  };
  a.number(program.num_wires);
  a.each(program.inputs, [&](auto& spec) {
    a.number(spec.is_complex);
    a.list(spec.shape);
  });
  a.number(program.initial.kind);
  a.list(program.initial.wires);
  a.list(program.initial.bits);
  a.number(program.initial.input);
  a.each(program.gates, [&](auto& g) {
    a.number(g.opcode);
    a.number(g.inverse);
    a.list(g.targets);
    a.list(g.controls);
    a.list(g.control_values);
    slots(g.slots);
    a.number(g.input);
    a.list(g.pauli_word);
  });
  a.each(program.measurements, [&](auto& m) {
    a.number(m.kind);
    a.list(m.wires);
    a.each(m.terms, [&](auto& t) {
      a.number(t.scale);
      slots(t.coefficients);
      a.list(t.pauli_wires);
      a.list(t.pauli_word);
      a.each(t.factors, [&](auto& f) {
        a.number(f.kind);
        a.list(f.wires);
        a.number(f.input);
        a.list(f.bits);
        a.list(f.rows);
        a.list(f.columns);
      });
    });
  });
}

}  // namespace

void Program::validate() const { Validator{*this}.run(); }

std::string Program::serialise() const {
  Writer writer;
  transfer(writer, *this);
  return writer.take();
}

Program Program::deserialise(std::string_view bytes) {
  Reader reader(bytes);
  Program program;
  transfer(reader, program);
  if (!reader.at_end()) throw std::invalid_argument("ketgrad: these bytes are no program, there are more than it has");
  return program;
}

Index result_size(const Measurement& m, int num_wires) {
  const MeasurementInfo& info = measurement_info(m.kind);
  const std::size_t measured = info.subject == Subject::all_wires ? num_wires : m.wires.size();
  return Index{1} << (info.num_axes * measured);
}

namespace {

Index results_size(const Program& program, bool is_complex) {
  Index total = 0;
  for (const Measurement& m : program.measurements) {
    if (measurement_info(m.kind).is_complex == is_complex) total += result_size(m, program.num_wires);
  }
  return total;
}

}  // namespace

Index Program::real_results() const { return results_size(*this, false); }

Index Program::complex_results() const { return results_size(*this, true); }

std::vector<Index> Program::first_results() const {
  std::vector<Index> first;
  Index next[2] = {0, 0};
  for (const Measurement& m : measurements) {
    Index& of_kind = next[measurement_info(m.kind).is_complex ? 1 : 0];
    first.push_back(of_kind);
    of_kind += result_size(m, num_wires);
  }
  return first;
}

bool Program::measures_all_wires() const {
  return std::any_of(measurements.begin(), measurements.end(),
                     [](const Measurement& m) { return measurement_info(m.kind).subject == Subject::all_wires; });
}

}  // namespace ketgrad

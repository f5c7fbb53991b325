// Malformed programs are refused by name, and what validate() lets through cannot make a kernel leave its buffers (the
// last test, which is only worth something under the address and undefined-behaviour sanitizers).
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "circuits.h"

namespace ketgrad::testing {
namespace {

// One of everything, valid. Gates: 0 RX, 1 CNOT, 2 QubitUnitary, 3 DiagonalQubitUnitary, 4 PauliRot, 5 GlobalPhase, 6
// IsingXX, 7 DiagonalEvolution.
Program sample_program() {
  Circuit circuit;
  Program& p = circuit.program;
  p.num_wires = 3;
  circuit.add_input(Role::angles, 4);
  circuit.add_input(Role::angles, 3);
  const int unitary = circuit.add_input(Role::unitary, 2);
  const int diagonal = circuit.add_input(Role::diagonal, 1);
  const int state = circuit.add_input(Role::state, 2);
  const int hermitian = circuit.add_input(Role::hermitian, 1);
  const int sparse = circuit.add_input(Role::sparse, 1);
  const int vector = circuit.add_input(Role::state, 1);
  const int values = circuit.add_input(Role::entries, 1);
  p.initial = {Preparation::state, {0, 2}, {}, state};
  p.gates = {make_gate("RX", {0}, {{0, 1, 2, 0}}),
             make_gate("CNOT", {0, 1}),
             make_gate("QubitUnitary", {2, 0}),
             make_gate("DiagonalQubitUnitary", {1}),
             make_gate("PauliRot", {2, 1}, {{1, 0, 1, 0}}),
             make_gate("GlobalPhase", {}, {{1, 2, 1, 0}}),
             make_gate("IsingXX", {0, 1}, {{1, 1, 1, 0}}),
             make_gate("DiagonalEvolution", {2}, {{1, 1, 1, 0}})};
  p.gates[2].input = unitary;
  p.gates[3].input = diagonal;
  p.gates[7].input = values;
  p.gates[4].pauli_word = "XI";
  const Factor matrix{FactorKind::hermitian, {1}, hermitian, {}, {}, {}};
  const Factor projector{FactorKind::projector, {2}, no_input, {1}, {}, {}};
  const Factor on_state{FactorKind::state_projector, {0}, vector, {}, {}, {}};
  const Factor entries{FactorKind::sparse, {2}, sparse, {}, {0, 1, 0}, {1, 0, 0}};
  const Factor real{FactorKind::diagonal, {1}, values, {}, {}, {}};
  p.measurements = {{MeasurementKind::expval,
                     {},
                     {{2, {{0, 0, 1, 0}}, {0}, "Z", {matrix, projector}}, {1, {}, {}, "", {entries, real}}}},
                    {MeasurementKind::probs, {1, 0}, {}},
                    {MeasurementKind::var, {}, {{1, {}, {1}, "Y", {on_state}}}},
                    {MeasurementKind::density_matrix, {2}, {}},
                    {MeasurementKind::state, {}, {}}};
  return p;
}

using Change = std::function<void(Program&)>;

struct Malformed {
  Change change;
  std::string message;
};

template <class E>
void check_refused(const std::vector<Malformed>& cases) {
  for (const Malformed& c : cases) {
    Program program = sample_program();
    c.change(program);
    CHECK_THROWS(E, program.validate(), c.message);
  }
}

TEST(a_valid_program_passes) {
  const Program program = sample_program();
  program.validate();
  CHECK(program.real_results() == 6);
  CHECK(program.complex_results() == 12);
}

TEST(what_is_out_of_range) {
  check_refused<std::out_of_range>({
      {[](Program& p) { p.gates[0].opcode = num_gates; }, "gate 0: no opcode"},
      {[](Program& p) { p.gates[0].targets = {3}; }, "gate 0 (RX): wire 3"},
      {[](Program& p) { p.gates[0].targets = {-1}; }, "gate 0 (RX): wire -1"},
      {[](Program& p) { p.gates[1].controls = {99}; }, "gate 1 (CNOT): wire 99"},
      {[](Program& p) { p.gates[0].slots[0].input = 77; }, "gate 0 (RX): no input 77"},
      {[](Program& p) { p.gates[0].slots[0].input = -1; }, "gate 0 (RX): no input -1"},
      {[](Program& p) { p.gates[0].slots[0].column = 4; }, "gate 0 (RX): input 0 has no column 4"},
      {[](Program& p) { p.gates[0].slots[0].column = -1; }, "no column -1"},
      {[](Program& p) { p.gates[2].input = no_input; }, "gate 2 (QubitUnitary): no input -1"},
      {[](Program& p) { p.gates[3].input = 50; }, "gate 3 (DiagonalQubitUnitary): no input 50"},
      {[](Program& p) { p.gates[7].input = 50; }, "gate 7 (DiagonalEvolution): no input 50"},
      {[](Program& p) { p.measurements[0].terms[1].factors[1].input = 50; }, "measurement 0: no input 50"},
      {[](Program& p) { p.initial.wires = {0, 3}; }, "initial state: wire 3"},
      {[](Program& p) { p.initial.input = 50; }, "initial state: no input 50"},
      {[](Program& p) { p.measurements[1].wires = {5}; }, "measurement 1: wire 5"},
      {[](Program& p) { p.measurements[0].terms[0].pauli_wires = {-2}; }, "measurement 0: wire -2"},
      {[](Program& p) { p.measurements[0].terms[0].factors[0].wires = {7}; }, "measurement 0: wire 7"},
      {[](Program& p) { p.measurements[0].terms[0].factors[0].input = 50; }, "measurement 0: no input 50"},
      {[](Program& p) { p.measurements[0].terms[0].coefficients[0].column = 9; },
       "measurement 0: input 0 has no column 9"},
      {[](Program& p) { p.measurements[0].terms[1].factors[0].rows[0] = 2; }, "measurement 0: an entry"},
      {[](Program& p) { p.measurements[0].terms[1].factors[0].columns[0] = -1; }, "measurement 0: an entry"},
  });
}

TEST(what_is_malformed) {
  check_refused<std::invalid_argument>({
      {[](Program& p) { p.num_wires = -1; }, "-1 wires"},
      {[](Program& p) { p.inputs.clear(); }, "input 0"},
      {[](Program& p) { p.inputs[0].is_complex = true; }, "input 0 must be real"},
      {[](Program& p) { p.inputs[1].shape = {-1}; }, "inputs"},
      {[](Program& p) { p.inputs[1].shape = {std::numeric_limits<Index>::max()}; }, "inputs"},
      {[](Program& p) { p.gates[1].targets = {0}; }, "gate 1 (CNOT): wire 0 appears twice"},
      {[](Program& p) { p.gates[2].targets = {2, 2}; }, "wire 2 appears twice"},
      {[](Program& p) { p.gates[0].targets = {}; }, "gate 0 (RX): has 0 targets, needs 1"},
      {[](Program& p) { p.gates[0].targets = {0, 1}; }, "gate 0 (RX): has 2 targets"},
      {[](Program& p) { p.gates[0].slots.clear(); }, "gate 0 (RX): has 0 parameters, needs 1"},
      {[](Program& p) { p.gates[0].slots.push_back({}); }, "has 2 parameters"},
      {[](Program& p) { p.gates[0].slots[0].input = 2; }, "input 2 is not a real vector"},
      {[](Program& p) { p.gates[1].controls.clear(), p.gates[1].control_values.clear(); }, "controls are missing"},
      {[](Program& p) { p.gates[1].control_values = {false}; }, "own controls are on 1"},
      {[](Program& p) { p.gates[1].control_values = {}; }, "one control value per control"},
      {[](Program& p) { p.gates[2].input = 3; }, "gate 2 (QubitUnitary): input 3"},
      {[](Program& p) { p.gates[2].input = 0; }, "gate 2 (QubitUnitary): input 0"},
      {[](Program& p) { p.gates[3].input = 2; }, "gate 3 (DiagonalQubitUnitary): input 2"},
      {[](Program& p) { p.gates[7].input = 3; }, "gate 7 (DiagonalEvolution): input 3 is not real"},
      {[](Program& p) { p.gates[7].input = 1; },
       "gate 7 (DiagonalEvolution): input 1 is not real, or not of the shape"},
      {[](Program& p) { p.gates[7].slots.clear(); }, "gate 7 (DiagonalEvolution): has 0 parameters, needs 1"},
      {[](Program& p) { p.measurements[0].terms[1].factors[1].input = 3; }, "measurement 0: input 3 is not real"},
      {[](Program& p) { p.gates[4].pauli_word = "X"; }, "gate 4 (PauliRot): the Pauli word 'X'"},
      {[](Program& p) { p.gates[4].pauli_word = "XA"; }, "the Pauli word 'XA'"},
      {[](Program& p) { p.gates[5].targets = {0}; }, "gate 5 (GlobalPhase)"},
      {[](Program& p) { p.initial.wires = {1, 1}; }, "initial state: wire 1 appears twice"},
      {[](Program& p) { p.initial.input = 2; }, "initial state: input 2"},
      {[](Program& p) { p.initial = {Preparation::basis, {0, 1}, {1}, no_input}; }, "initial state: one bit per wire"},
      {[](Program& p) { p.initial = {Preparation::basis, {0}, {2}, no_input}; }, "initial state: bits are 0 or 1"},
      {[](Program& p) { p.measurements[1].wires = {1, 1}; }, "measurement 1: wire 1 appears twice"},
      {[](Program& p) { p.measurements[0].terms[0].pauli_word = "I"; }, "measurement 0: the Pauli word 'I'"},
      {[](Program& p) { p.measurements[0].terms[0].pauli_word = "ZZ"; }, "measurement 0: the Pauli word 'ZZ'"},
      {[](Program& p) { p.measurements[0].terms[0].factors[0].wires = {0}; }, "measurement 0: wire 0 appears twice"},
      {[](Program& p) { p.measurements[0].terms[0].factors[0].input = 2; }, "measurement 0: input 2"},
      {[](Program& p) { p.measurements[0].terms[0].factors[1].bits = {}; }, "measurement 0: one bit per wire"},
      {[](Program& p) { p.measurements[0].terms[1].factors[0].rows.push_back(0); }, "measurement 0: rows and columns"},
      {[](Program& p) { p.measurements[0].terms[0].factors[0].kind = static_cast<FactorKind>(9); },
       "measurement 0: unknown factor"},
  });
}

// Fields that a kind has no use for must be empty: the plan reads some of them whatever the kind.
TEST(what_is_beside_the_point) {
  check_refused<std::logic_error>({
      {[](Program& p) { p.gates[0].input = 2; }, "gate 0 (RX)"},
      {[](Program& p) { p.gates[0].input = 99; }, "gate 0 (RX)"},
      {[](Program& p) { p.gates[1].input = -9; }, "gate 1 (CNOT)"},
      {[](Program& p) { p.gates[6].pauli_word = "ZZ"; }, "gate 6 (IsingXX)"},
      {[](Program& p) { p.initial = {Preparation::basis, {0}, {1}, 99}; }, "initial state"},
      {[](Program& p) { p.initial = {Preparation::zero, {}, {}, 0}; }, "initial state"},
      {[](Program& p) { p.initial = {Preparation::zero, {0}, {5}, no_input}; }, "initial state"},
      {[](Program& p) { p.initial.bits = {0, 1, 1}; }, "initial state"},
      {[](Program& p) { p.initial.kind = static_cast<Preparation>(9); }, "initial state"},
      {[](Program& p) { p.measurements[0].terms[0].factors[1].input = 0; }, "measurement 0"},
      {[](Program& p) { p.measurements[0].terms[0].factors[1].input = 99; }, "measurement 0"},
      {[](Program& p) { p.measurements[3].kind = static_cast<MeasurementKind>(9); }, "measurement 3"},
      {[](Program& p) { p.inputs.push_back({true, {Index{1} << 48, Index{1} << 48}}); }, "input"},
  });
}

TEST(a_density_matrix_has_its_limit) {
  Program program = empty_circuit(30).program;
  program.measurements = {{MeasurementKind::density_matrix, {}, {}}};
  for (int w = 0; w < 25; ++w) program.measurements[0].wires.push_back(w);
  CHECK_THROWS(std::invalid_argument, program.validate(), "measurement 0: density_matrix of 25 wires is too large");
}

TEST(a_factor_on_every_wire_is_no_shift_too_far) {
  Program program = empty_circuit(max_wires).program;
  Factor factor;
  for (int w = 0; w < max_wires; ++w) factor.wires.push_back(w);
  factor.input = 0;
  program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {}, "", {factor}}}}};
  CHECK_THROWS(std::invalid_argument, program.validate(), "measurement 0: input 0");
}

// --- serialise -------------------------------------------------------------------------------------------------------

TEST(bytes_become_the_same_program) {
  Random random(5);
  for (int n = 1; n <= 4; ++n) {
    const std::string bytes = random_circuit(random, n, 10).program.serialise();
    CHECK(Program::deserialise(bytes).serialise() == bytes);
  }
  const std::string bytes = sample_program().serialise();
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK_THROWS(std::invalid_argument, Program::deserialise(std::string_view(bytes).substr(0, size)), "too early");
  CHECK_THROWS(std::invalid_argument, Program::deserialise(bytes + "x"), "more than it has");
}

TEST(equal_programs_have_equal_bytes) {
  CHECK(sample_program().serialise() == sample_program().serialise());
  Random random(1);
  Random again(1);
  for (int round = 0; round < 20; ++round) {
    CHECK(random_circuit(random, 4, 10).program.serialise() == random_circuit(again, 4, 10).program.serialise());
  }
}

TEST(every_field_is_in_the_bytes) {
  const std::vector<Change> changes{
      [](Program&) {},
      [](Program& p) { p.num_wires = 4; },
      [](Program& p) { p.inputs[0].shape = {5}; },
      [](Program& p) { p.inputs[1].is_complex = true; },
      [](Program& p) { p.inputs.pop_back(); },
      [](Program& p) { p.initial.kind = Preparation::zero; },
      [](Program& p) { p.initial.wires = {2, 0}; },
      [](Program& p) { p.initial.bits = {0}; },
      [](Program& p) { p.initial.input = 3; },
      [](Program& p) { p.gates[0].opcode = opcode_of("RY"); },
      [](Program& p) { p.gates[0].inverse = true; },
      [](Program& p) { p.gates[0].targets = {1}; },
      [](Program& p) { p.gates[0].targets = {}, p.gates[0].controls = {0}; },
      [](Program& p) { p.gates[1].control_values = {false}; },
      [](Program& p) { p.gates[0].slots[0].input = 1; },
      [](Program& p) { p.gates[0].slots[0].column = 0; },
      [](Program& p) { p.gates[0].slots[0].scale = 2 + 1e-15; },
      [](Program& p) { p.gates[0].slots[0].offset = 1e-300; },
      [](Program& p) { p.gates[2].input = 3; },
      [](Program& p) { p.gates[4].pauli_word = "IX"; },
      [](Program& p) { std::swap(p.gates[0], p.gates[1]); },
      [](Program& p) { p.gates.pop_back(); },
      [](Program& p) { p.measurements[0].kind = MeasurementKind::var; },
      [](Program& p) { p.measurements[1].wires = {0, 1}; },
      [](Program& p) { p.measurements[0].terms[0].scale = 3; },
      [](Program& p) { p.measurements[0].terms[0].coefficients.clear(); },
      [](Program& p) { p.measurements[0].terms[0].pauli_word = "X"; },
      [](Program& p) { p.measurements[0].terms[0].pauli_wires = {2}; },
      [](Program& p) { p.measurements[0].terms[0].factors[0].kind = FactorKind::sparse; },
      [](Program& p) { p.measurements[0].terms[0].factors[0].wires = {2}; },
      [](Program& p) { p.measurements[0].terms[0].factors[0].input = 4; },
      [](Program& p) { p.measurements[0].terms[0].factors[1].bits = {0}; },
      [](Program& p) { p.measurements[0].terms[1].factors[0].rows[0] = 1; },
      [](Program& p) { p.measurements[0].terms[1].factors[0].columns[0] = 0; },
      [](Program& p) { p.measurements.pop_back(); },
  };
  std::set<std::string> contents;
  for (const Change& change : changes) {
    Program program = sample_program();
    change(program);
    contents.insert(program.serialise());
  }
  CHECK(contents.size() == changes.size());
}

// --- mutation --------------------------------------------------------------------------------------------------------

// Changes one field of a program, any of them, to something small, odd or absurd.
class Mutator {
 public:
  Mutator(Random& random, Program& program) : random_(random) {
    number(program.num_wires);
    records(program.inputs, [this](InputSpec& spec) {
      flag(spec.is_complex);
      numbers(spec.shape);
    });
    kind(program.initial.kind);
    numbers(program.initial.wires);
    numbers(program.initial.bits);
    number(program.initial.input);
    records(program.gates, [this](Gate& gate) { fields(gate); });
    records(program.measurements, [this](Measurement& m) {
      kind(m.kind);
      numbers(m.wires);
      records(m.terms, [this](Term& term) { fields(term); });
    });
  }

  void change() { changes_[random_.below(static_cast<int>(changes_.size()))](); }

 private:
  void fields(Gate& gate) {
    changes_.push_back([&] { gate.opcode = static_cast<Opcode>(random_.below(num_gates + 3)); });
    flag(gate.inverse);
    numbers(gate.targets);
    numbers(gate.controls);
    changes_.push_back([&] { gate.control_values.resize(random_.below(4), random_.chance(0.5)); });
    records(gate.slots, [this](Slot& slot) { fields(slot); });
    number(gate.input);
    letters(gate.pauli_word);
  }

  void fields(Slot& slot) {
    number(slot.input);
    number(slot.column);
    changes_.push_back([&] { slot.scale = odd_number(); });
  }

  void fields(Term& term) {
    records(term.coefficients, [this](Slot& slot) { fields(slot); });
    numbers(term.pauli_wires);
    letters(term.pauli_word);
    records(term.factors, [this](Factor& factor) {
      kind(factor.kind);
      numbers(factor.wires);
      number(factor.input);
      numbers(factor.bits);
      numbers(factor.rows);
      numbers(factor.columns);
    });
  }

  std::int64_t odd_number() {
    const std::int64_t absurd[] = {
        -1, 47, 48, 64, 1000, 1 << 30, std::numeric_limits<std::int64_t>::max(), std::int64_t{1} << 48};
    return random_.chance(0.7) ? random_.below(9) : absurd[random_.below(8)];
  }

  template <class Int>
  void number(Int& field) {
    changes_.push_back([&, this] { field = static_cast<Int>(odd_number()); });
  }

  void flag(bool& field) {
    changes_.push_back([&] { field = !field; });
  }

  template <class Enum>
  void kind(Enum& field) {
    changes_.push_back([&, this] { field = static_cast<Enum>(random_.below(7)); });
  }

  void letters(std::string& pauli_word) {
    changes_.push_back([&, this] { pauli_word += "IXYZ?"[random_.below(5)]; });
    changes_.push_back([&, this] { pauli_word = pauli_word.substr(0, random_.below(3)); });
    changes_.push_back([&, this] { pauli_word = std::string(pauli_word.size(), "IXYZ"[random_.below(4)]); });
  }

  template <class Int>
  void numbers(std::vector<Int>& list) {
    for (Int& entry : list) number(entry);
    changes_.push_back([&, this] { list.push_back(static_cast<Int>(odd_number())); });
    changes_.push_back([&, this] { list.resize(random_.below(3)); });
  }

  // Records are repeated, swapped, dropped and changed inside.
  template <class Record, class Visit>
  void records(std::vector<Record>& list, const Visit& visit) {
    for (Record& record : list) visit(record);
    if (list.empty()) return;
    changes_.push_back([&, this] { list.push_back(Record(list[random_.below(static_cast<int>(list.size()))])); });
    changes_.push_back([&, this] { std::swap(list.front(), list[random_.below(static_cast<int>(list.size()))]); });
    changes_.push_back([&] { list.pop_back(); });
  }

  Random& random_;
  std::vector<std::function<void()>> changes_;
};

bool is_valid(const Program& program) {
  try {
    program.validate();
    return true;
  } catch (const std::invalid_argument&) {
  } catch (const std::out_of_range&) {
  }
  return false;
}

// Valid programs may still be larger than a test requests to be.
bool is_small(const Program& program) {
  if (program.num_wires > 8) return false;
  for (const InputSpec& spec : program.inputs) {
    double numel = 1;
    for (const Index s : spec.shape) numel *= static_cast<double>(s);
    if (numel > 1 << 12) return false;
  }
  return program.real_results() + program.complex_results() < 1 << 14;
}

std::vector<Values> any_values(Random& random, const Program& program, Index batch) {
  std::vector<Values> all;
  for (const InputSpec& spec : program.inputs) {
    Values values{random.chance(0.5), spec.numel() * (spec.is_complex ? 2 : 1), {}};
    values.rows = random_numbers(random, values.row_size * (values.batched ? batch : 1));
    all.push_back(std::move(values));
  }
  return all;
}

template <class T>
void run_both_ways(Random& random, const ProgramHandle& program) {
  const Index batch = 1 + random.below(5);
  Run<T> run(program, any_values(random, program->program, batch), batch, 1 + random.below(2));
  run.forward(random.chance(0.7));
  run.backward(random_numbers(random, static_cast<Index>(run.real.size())),
               random_numbers(random, static_cast<Index>(run.complex.size())));
}

TEST(mutated_programs_are_refused_or_run) {
  Random random(7);
  int ran = 0;
  int refused = 0;
  for (int round = 0; round < 6000; ++round) {
    Program program = random_circuit(random, 1 + random.below(4), 6).program;
    for (int j = 1 + random.below(3); j > 0; --j) Mutator(random, program).change();
    if (!is_valid(program)) {
      ++refused;
    } else if (is_small(program)) {
      ++ran;
      const ProgramHandle handle = register_program(std::move(program));
      random.chance(0.5) ? run_both_ways<float>(random, handle) : run_both_ways<double>(random, handle);
    }
  }
  CHECK(refused > 1000);
  CHECK(ran > 1000);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }

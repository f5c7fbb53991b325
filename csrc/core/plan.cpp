#include "core/plan.h"

#include <algorithm>

namespace ketgrad {

namespace {

std::vector<int> bits_of(const std::vector<int>& wires, int num_wires) {
  std::vector<int> bits;
  bits.reserve(wires.size());
  for (const int w : wires) bits.push_back(bit_of_wire(w, num_wires));
  return bits;
}

PauliWord pauli_word(const std::string& word, const std::vector<int>& wires, int num_wires) {
  PauliWord masks;
  for (std::size_t j = 0; j < word.size(); ++j) {
    const Mask bit = Mask{1} << bit_of_wire(wires[j], num_wires);
    if (word[j] == 'X' || word[j] == 'Y') masks.x |= bit;
    if (word[j] == 'Z' || word[j] == 'Y') masks.z |= bit;
    if (word[j] == 'Y') ++masks.y_count;
  }
  return masks;
}

void add_input(std::vector<int>& inputs, int input) {
  if (input != no_input && std::find(inputs.begin(), inputs.end(), input) == inputs.end()) inputs.push_back(input);
}

std::vector<int> inputs_of(const Gate& gate) {
  std::vector<int> inputs;
  for (const Slot& s : gate.slots) add_input(inputs, s.input);
  add_input(inputs, gate.input);
  return inputs;
}

void add_gate(Step& step, const Program& program, int index) {
  step.gates.push_back(index);
  for (const int input : inputs_of(program.gates[index])) add_input(step.inputs, input);
}

StepKind kind_of(const GateInfo& info) {
  switch (info.family) {
    case Family::pauli_rotation: return StepKind::pauli_rotation;
    case Family::diagonal: return StepKind::diagonal;
    default: break;
  }
  if (info.formula == Formula::x) return StepKind::exchange;
  return is_diagonal(info.formula) ? StepKind::diagonal : StepKind::dense;
}

std::vector<Index> block_offsets(const GateInfo& info, const std::vector<int>& bits) {
  const std::vector<Index> all = local_offsets(bits);
  switch (info.subspace) {
    case Subspace::all: return all;
    case Subspace::swap: return {all[1], all[2]};
    case Subspace::double_swap: return {all[3], all[12]};
  }
  return all;
}

Step step_of(const Program& program, int index) {
  const Gate& gate = program.gates[index];
  const GateInfo& info = gate_info(gate.opcode);
  const std::vector<int> target_bits = bits_of(gate.targets, program.num_wires);
  Step step;
  step.kind = kind_of(info);
  std::vector<int> fixed = bits_of(gate.controls, program.num_wires);
  Mask value = 0;
  for (std::size_t j = 0; j < fixed.size(); ++j) value |= Mask{gate.control_values[j]} << fixed[j];
  if (step.kind == StepKind::pauli_rotation) {
    step.word = pauli_word(gate.word, gate.targets, program.num_wires);
    if (step.word.x != 0) fixed.push_back(std::countr_zero(step.word.x));  // one amplitude of each pair (i, i ^ x)
  } else {
    step.offsets = block_offsets(info, target_bits);
    fixed.insert(fixed.end(), target_bits.begin(), target_bits.end());
  }
  step.fixed = FixedBits(std::move(fixed), value);
  add_gate(step, program, index);
  return step;
}

bool acts_on_one_wire(const Gate& gate) {
  const Family family = gate_info(gate.opcode).family;
  return gate.targets.size() == 1 && gate.controls.empty() && (family == Family::block || family == Family::matrix);
}

// Gates on one wire commute with whatever happens elsewhere: they join the open step of their wire until a gate on
// several closes it. Gates that read different inputs stay apart: at a call, one input may be batched and the other
// shared, and a matrix that only needs computing once must not be computed for every sample.
class StepBuilder {
 public:
  explicit StepBuilder(const Program& program) : program_(program), open_(program.num_wires, none) {}

  std::vector<Step> run() {
    for (int i = 0; i < static_cast<int>(program_.gates.size()); ++i) {
      const Gate& gate = program_.gates[i];
      if (gate_info(gate.opcode).family == Family::identity) continue;
      if (may_join(gate)) {
        join(steps_[open_[gate.targets[0]]], i);
      } else {
        append(gate, i);
      }
    }
    return std::move(steps_);
  }

 private:
  static constexpr int none = -1;

  bool may_join(const Gate& gate) const {
    if (!acts_on_one_wire(gate) || open_[gate.targets[0]] == none) return false;
    const std::vector<int>& theirs = steps_[open_[gate.targets[0]]].inputs;
    const std::vector<int> own = inputs_of(gate);
    return own.empty() || theirs.empty() || own == theirs;
  }

  void append(const Gate& gate, int index) {
    for (const int w : gate.targets) open_[w] = none;
    for (const int w : gate.controls) open_[w] = none;
    if (acts_on_one_wire(gate)) open_[gate.targets[0]] = static_cast<int>(steps_.size());
    steps_.push_back(step_of(program_, index));
  }

  void join(Step& step, int index) {
    const GateInfo& info = gate_info(program_.gates[index].opcode);
    if (step.kind != StepKind::diagonal || kind_of(info) != StepKind::diagonal) step.kind = StepKind::dense;
    add_gate(step, program_, index);
  }

  const Program& program_;
  std::vector<int> open_;  // per wire, the step that a further gate on that wire alone may join
  std::vector<Step> steps_;
};

PlannedTerm plan_term(const Term& term, int num_wires) {
  PlannedTerm planned{&term, pauli_word(term.word, term.word_wires, num_wires), {}};
  for (const Factor& f : term.factors) {
    const std::vector<int> bits = bits_of(f.wires, num_wires);
    PlannedFactor factor{&f, FixedBits(bits, 0), LocalOffsets(bits)};
    for (std::size_t j = 0; j < bits.size(); ++j) {
      factor.mask |= Mask{1} << bits[j];
      if (f.kind == FactorKind::projector) factor.value |= static_cast<Mask>(f.bits[j]) << bits[j];
    }
    planned.factors.push_back(std::move(factor));
  }
  return planned;
}

PlannedMeasurement plan_measurement(const Measurement& m, int num_wires) {
  PlannedMeasurement planned;
  planned.measurement = &m;
  for (const Term& term : m.terms) {
    PlannedTerm t = plan_term(term, num_wires);
    const bool diagonal = t.word.x == 0 && t.factors.empty();
    (diagonal ? planned.diagonals : planned.terms).push_back(std::move(t));
  }
  if (m.kind == MeasurementKind::density_matrix || m.kind == MeasurementKind::probs) {
    const std::vector<int> bits = bits_of(m.wires, num_wires);
    planned.fixed = FixedBits(bits, 0);
    planned.offsets = LocalOffsets(bits);
  }
  return planned;
}

// Numbers per circuit that a measurement has beside the states: its sums, its cotangent, the gradients of its matrices.
Index sum_size(const PlannedMeasurement& m, const Program& program) {
  Index size = std::max<Index>(1, static_cast<Index>(m.diagonals.size()));
  if (m.measurement->kind == MeasurementKind::probs) size = m.offsets.size();
  if (m.measurement->kind == MeasurementKind::state) size = Index{2} << program.num_wires;
  if (m.measurement->kind == MeasurementKind::density_matrix) size = 2 * m.offsets.size() * m.offsets.size();
  for (const PlannedTerm& t : m.terms) {
    for (const PlannedFactor& f : t.factors) {
      if (f.factor->input != no_input) size = std::max(size, 2 * program.inputs[f.factor->input].numel());
    }
  }
  return size;
}

}  // namespace

Index coefficient_count(const Step& step) {
  switch (step.kind) {
    case StepKind::dense: return Index{2} * step.size() * step.size();
    case StepKind::diagonal: return Index{2} * step.size();
    case StepKind::exchange: return 0;
    case StepKind::pauli_rotation: return 2;
  }
  return 0;
}

Index overlap_count(const Step& step) { return step.kind == StepKind::pauli_rotation ? 1 : coefficient_count(step); }

Plan make_plan(const Program& program) {
  Plan plan;
  plan.program = &program;
  plan.steps = StepBuilder(program).run();
  plan.passes = static_cast<Index>(plan.steps.size());
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::dense) plan.largest_block = std::max(plan.largest_block, s.size());
    plan.largest_sum = std::max(plan.largest_sum, overlap_count(s));
  }
  Index real = 0;
  Index complex = 0;
  for (const Measurement& m : program.measurements) {
    PlannedMeasurement planned = plan_measurement(m, program.num_wires);
    Index& next = is_complex_result(m.kind) ? complex : real;
    planned.first_result = next;
    next += result_size(m, program.num_wires);
    for (const PlannedTerm& t : planned.terms) plan.needs_scratch |= !t.factors.empty();
    plan.needs_scratch |= m.kind == MeasurementKind::var;
    plan.largest_sum = std::max(plan.largest_sum, sum_size(planned, program));
    plan.passes += static_cast<Index>(planned.terms.size()) + 1;
    plan.measurements.push_back(std::move(planned));
  }
  const std::vector<int> bits = bits_of(program.initial.wires, program.num_wires);
  if (program.initial.kind == Preparation::state) {
    plan.initial_offsets = LocalOffsets(bits);
    plan.largest_sum = std::max(plan.largest_sum, 2 * plan.initial_offsets.size());
  }
  for (std::size_t j = 0; j < program.initial.bits.size(); ++j)
    plan.initial_index |= Index{program.initial.bits[j]} << bits[j];
  return plan;
}

}  // namespace ketgrad

#include "plan/footprint.h"

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace ketgrad {

namespace {

// An allocation rounds up and has a header.
constexpr std::size_t allocation = 16;

// Heap memory of an object. Sizes in use are counted, not capacities: plans are made once and do not grow.
template <class T>
  requires std::is_trivially_copyable_v<T>
std::size_t held(const T&) {
  return 0;
}
std::size_t held(const std::string& s) {
  return s.capacity() > std::string().capacity() ? s.capacity() + allocation : 0;  // short ones lie in the object
}
std::size_t held(const std::vector<bool>& v) { return v.capacity() / 8 + allocation; }
std::size_t held(const IndexMap& map) { return map.table_bytes() + 2 * allocation; }

template <class T>
std::size_t held(const std::vector<T>& v);

std::size_t held(const InputSpec& s) { return held(s.shape); }
std::size_t held(const Gate& g) {
  return held(g.targets) + held(g.controls) + held(g.control_values) + held(g.slots) + held(g.pauli_word);
}
std::size_t held(const Factor& f) { return held(f.wires) + held(f.bits) + held(f.rows) + held(f.columns); }
std::size_t held(const Term& t) {
  return held(t.coefficients) + held(t.pauli_wires) + held(t.pauli_word) + held(t.factors);
}
std::size_t held(const Measurement& m) { return held(m.wires) + held(m.terms); }

std::size_t held(const GateOp& s) {
  return held(s.groups) + held(s.offsets) + held(s.entries) + held(s.pauli_words) + held(s.coset) + held(s.states) +
         held(s.inputs);
}
std::size_t held(const Rotation& r) { return held(r.coset); }
std::size_t held(const DiagonalRotation& s) { return held(s.rotations); }
std::size_t held(const std::optional<BlockHalf>& h) { return h && h->odd_groups ? held(*h->odd_groups) : 0; }
std::size_t held(const RotationBlock& b) { return held(b.groups) + held(b.half); }
std::size_t held(const Phases& p) { return held(p.rows) + held(p.strings); }
std::size_t held(const TileCoset& c) { return held(c.tiles) + held(c.rows) + held(c.shifts) + held(c.lanes); }
std::size_t held(const CosetPhase& p) { return held(p.coset); }
std::size_t held(const TileMatrix& m) { return held(m.groups) + held(m.states) + held(m.variations); }
std::size_t held(const TileOp& op) {
  return std::visit([](const auto& o) { return held(o); }, op);
}
std::size_t held(const GatePass& p) { return held(p.inputs); }
std::size_t held(const TilePass& p) { return held(p.tiles) + held(p.rows) + held(p.operations) + held(p.inputs); }
std::size_t held(const Pass& pass) {
  return std::visit([](const auto& p) { return held(p); }, pass);
}
std::size_t held(const PlannedFactor& f) { return held(f.groups) + held(f.offsets); }
std::size_t held(const PlannedTerm& t) { return held(t.factors); }
std::size_t held(const PlannedMeasurement& m) { return held(m.terms) + held(m.groups) + held(m.offsets); }
std::size_t held(const PauliGroup& g) { return held(g.members); }
std::size_t held(const ObservablePass& p) { return held(p.tiles) + held(p.rows) + held(p.groups); }

std::size_t held(const PartMember& m) { return held(m.columns) + held(m.real) + held(m.complex); }
std::size_t held(const Part& p) { return held(p.inputs) + held(p.members); }

template <class T>
std::size_t held(const std::vector<T>& v) {
  std::size_t bytes = v.capacity() * sizeof(T) + (v.capacity() > 0 ? allocation : 0);
  if constexpr (!std::is_trivially_copyable_v<T>) {
    for (const T& element : v) bytes += held(element);
  }
  return bytes;
}

}  // namespace

std::int64_t bytes_of(const Program& program) {
  return static_cast<std::int64_t>(sizeof program + held(program.inputs) + held(program.initial.wires) +
                                   held(program.initial.bits) + held(program.gates) + held(program.measurements));
}

std::int64_t bytes_of(const Parts& parts) { return static_cast<std::int64_t>(held(parts.parts)); }

std::int64_t bytes_of(const Plan& plan) {
  return static_cast<std::int64_t>(sizeof plan + held(plan.rotations) + held(plan.gate_ops) + held(plan.passes) +
                                   held(plan.measurements) + held(plan.observables) + held(plan.initial_offsets));
}

}  // namespace ketgrad

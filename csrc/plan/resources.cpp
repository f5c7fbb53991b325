#include "plan/resources.h"

#include <algorithm>

#include "program/gate_table.h"
#include "program/measurement_table.h"

namespace ketgrad {

namespace {

// Numbers per circuit that a measurement has beside the states: its sums, its cotangent, the gradients of its
// matrices.
Index sum_size(const Measurement& m, const Program& program) {
  Index size = result_size(m, program.num_wires) * (measurement_info(m.kind).is_complex ? 2 : 1);
  for (const Term& t : m.terms) {
    for (const Factor& f : t.factors) {
      if (f.input != no_input) size = std::max(size, 2 * program.inputs[f.input].numel());
    }
  }
  return size;
}

}  // namespace

ResourceBounds resource_bounds(const Program& program) {
  ResourceBounds resources;
  const auto has_sum = [&](Index size) { resources.largest_sum = std::max(resources.largest_sum, size); };
  for (const Gate& g : program.gates) {
    const GateInfo& info = gate_info(g.opcode);
    if (info.family == Family::diagonal || info.family == Family::evolution) has_sum(Index{2} << g.targets.size());
    if (info.family != Family::block && info.family != Family::matrix) continue;
    const int size = info.family == Family::matrix ? 1 << g.targets.size() : block_size(info);
    resources.largest_block = std::max(resources.largest_block, size);
    has_sum(Index{2} * size * size);
  }
  if (program.initial.kind == Preparation::state) has_sum(Index{2} << program.initial.wires.size());
  resources.work = static_cast<Index>(program.gates.size());
  for (const Measurement& m : program.measurements) {
    has_sum(sum_size(m, program));
    resources.work += static_cast<Index>(m.terms.size()) + 1;
    resources.needs_scratch |= m.kind == MeasurementKind::var;
    for (const Term& t : m.terms) resources.needs_scratch |= !t.factors.empty() && !t.is_lone_diagonal();
  }
  return resources;
}

}  // namespace ketgrad

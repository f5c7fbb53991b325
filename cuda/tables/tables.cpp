#include "cuda/tables/tables.h"

#include "cuda/tables/affine.h"
#include "cuda/tables/measurement_builder.h"
#include "cuda/tables/pass_builder.h"
#include "cuda/tables/pauli_word_builder.h"
#include "cuda/tables/sign_builder.h"
#include "cuda/tables/value_builder.h"

namespace ketgrad::cuda {

namespace {

void set_initial_amplitudes(Tables& tables, const Plan& plan) {
  tables.preparation = plan.program->initial.kind;
  tables.initial = plan.initial;
  tables.initial_input = plan.program->initial.input;
  std::vector<Mask> units;
  for (int b = 0; b < tables.num_wires; ++b) units.push_back(unit(b));
  tables.identity = append(tables.vectors, units);
  if (tables.preparation == Preparation::state) tables.initial_offsets = append_map(tables, plan.initial_offsets);
}

}  // namespace

Tables make_tables(const Plan& plan) {
  Tables tables;
  tables.num_wires = plan.program->num_wires;
  tables.whole = plan.layout.tile_bits >= tables.num_wires;
  tables.real_results = plan.program->real_results();
  tables.complex_results = plan.program->complex_results();
  SignBuilder signs(tables);
  ValueBuilder values(tables, plan);
  PauliWordBuilder pauli_words(tables, signs, values);
  MeasurementBuilder measurements(tables, values);
  PassBuilder(tables, plan, signs, values, pauli_words).run();
  pauli_words.add_remaining(plan.observables);
  for (const PlannedMeasurement& m : plan.measurements) measurements.add(m);
  values.finish();
  set_initial_amplitudes(tables, plan);
  return tables;
}

std::size_t Tables::bytes() const {
  std::size_t end = 0;
  place(nullptr, [&](std::size_t offset, const void*, std::size_t bytes) { end = offset + bytes; });
  return detail::aligned(end);
}

}  // namespace ketgrad::cuda

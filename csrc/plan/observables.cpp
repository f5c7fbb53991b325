#include "plan/observables.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "plan/tile.h"

namespace ketgrad {

namespace {

PlannedTerm plan_term(const Term& term, const WireMap& wire_map) {
  PlannedTerm planned{&term, wire_map.pauli_word(term.pauli_word, term.pauli_wires), {}};
  for (const Factor& f : term.factors) {
    PlannedFactor factor{&f, wire_map.groups(f.wires), wire_map.local(f.wires)};
    for (const int bit : f.bits) factor.kept = 2 * factor.kept + bit;
    if (f.kind == FactorKind::diagonal) {
      factor.offsets.shorten_runs(factor.groups);
      factor.groups.shorten_runs(factor.offsets);
    }
    planned.factors.push_back(std::move(factor));
  }
  return planned;
}

PlannedMeasurement plan_measurement(const Measurement& m, Index first_result, const WireMap& wire_map,
                                    std::vector<ObservedPauliWord>& pauli_words) {
  PlannedMeasurement planned;
  planned.measurement = &m;
  planned.first_result = first_result;
  for (const Term& term : m.terms) {
    PlannedTerm t = plan_term(term, wire_map);
    if (m.kind == MeasurementKind::expval && t.factors.empty()) {
      pauli_words.push_back({&term, first_result, t.pauli_word});
    } else {
      planned.terms.push_back(std::move(t));
    }
  }
  const Subject subject = measurement_info(m.kind).subject;
  std::vector<int> wires = m.wires;
  if (subject == Subject::all_wires) {
    for (int w = 0; w < wire_map.num_wires(); ++w) wires.push_back(w);
  }
  if (subject != Subject::observable) {
    planned.groups = wire_map.groups(wires);
    planned.offsets = wire_map.local(wires);
    for (Index a = 0; a < std::min<Index>(planned.offsets.size(), 64); ++a) {
      // The basis is among the first: offsets are sums of it.
      planned.groups.shorten_runs(static_cast<Mask>(planned.offsets[a]));
    }
    for (const int w : wires) planned.groups.shorten_runs(wire_map.flip(w));
  }
  return planned;
}

PauliGroup pauli_word_group(Mask x, const std::vector<ObservedPauliWord>& pauli_words, const TileGeometry& tile,
                            int lane_bits) {
  PauliGroup group;
  const Mask flip = tile.flip(x);
  group.row_flip = static_cast<Index>(flip >> lane_bits);
  group.lane_flip = flip & (unit(lane_bits) - 1);
  for (const ObservedPauliWord& w : pauli_words) {
    const Mask parity = tile.parity(w.pauli_word.z);
    const int quarter = (w.pauli_word.y_count + (w.pauli_word.negative ? 2 : 0)) & 3;
    group.members.push_back(
        {w.term, w.result, quarter, parity >> lane_bits, parity & (unit(lane_bits) - 1), w.pauli_word.z});
  }
  return group;
}

// The Pauli words that the last pass's tiles hold, if there are tiles; takes their flips off `left`.
void observe_in_last_pass(Plan& plan, const PauliWordsByFlip& pauli_words, std::vector<Mask>& left) {
  if (!plan.layout.measures_in_passes || plan.passes.empty()) return;
  const auto* last = std::get_if<TilePass>(&plan.passes.back());
  if (last == nullptr || last->tiles.size() == 1) return;
  TileGeometry tile(plan.program->num_wires, plan.layout.lane_bits, plan.layout.tile_bits, 0);
  for (Index r = 1; r < last->rows.size(); r *= 2) tile.reach(static_cast<Mask>(last->rows[r]));
  ObservablePass pass;
  pass.tiles = last->tiles;
  pass.rows = last->rows;
  for (const Mask x : left) {
    if (tile.reaches(x)) pass.groups.push_back(pauli_word_group(x, pauli_words.at(x), tile, plan.layout.lane_bits));
  }
  std::erase_if(left, [&](Mask x) { return tile.reaches(x); });
  pass.in_last_pass = true;
  if (!pass.groups.empty()) plan.observables.push_back(std::move(pass));
}

}  // namespace

std::vector<Mask> flips_of(const PauliWordsByFlip& pauli_words) {
  std::vector<Mask> flips;
  for (const auto& [x, list] : pauli_words) flips.push_back(x);
  return flips;
}

PauliWordsByFlip plan_measurements(Plan& plan, const WireMap& wire_map) {
  const Program& program = *plan.program;
  const std::vector<Index> first = program.first_results();
  std::vector<ObservedPauliWord> pauli_words;
  for (std::size_t m = 0; m < first.size(); ++m)
    plan.measurements.push_back(plan_measurement(program.measurements[m], first[m], wire_map, pauli_words));
  PauliWordsByFlip by_flip;
  for (const ObservedPauliWord& w : pauli_words) by_flip[w.pauli_word.x].push_back(w);
  return by_flip;
}

// Greedy: each tile takes the flips that it has room for, in order. Tiles are twice as large as those of other passes,
// which need room for factors of phases.
void plan_observables(Plan& plan, const PauliWordsByFlip& pauli_words) {
  const int n = plan.program->num_wires;
  const int tile_bits = plan.layout.tile_bits + 1;
  const int lane_bits = std::min(plan.layout.lane_bits, n);
  std::vector<Mask> left = flips_of(pauli_words);
  observe_in_last_pass(plan, pauli_words, left);
  while (!left.empty()) {
    TileGeometry tile(n, plan.layout.lane_bits, tile_bits, plan.layout.run_bits);
    if (tile_bits >= n) tile.fill();
    std::vector<Mask> held;
    std::vector<Mask> rest;
    for (const Mask x : left) (tile.reach(x) ? held : rest).push_back(x);
    tile.fill();
    ObservablePass pass;
    Index num_active = 0;
    pass.rows = tile.rows();
    pass.tiles = tile.tiles(0, Span(), {}, num_active);
    for (const Mask x : held) pass.groups.push_back(pauli_word_group(x, pauli_words.at(x), tile, lane_bits));
    plan.observables.push_back(std::move(pass));
    left = std::move(rest);
  }
}

}  // namespace ketgrad

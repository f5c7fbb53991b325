#include "plan/plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "math/commutant.h"
#include "plan/light_cone.h"
#include "plan/tile.h"

namespace ketgrad {

namespace {

// Plans a segment of rotations between two unfused gates as passes.
class SegmentPlanner {
 public:
  // `next_flips`: what the last tile, where it has room, shall hold besides.
  SegmentPlanner(Plan& plan, Support& support, std::vector<int> rotations, std::vector<Mask> next_flips)
      : plan_(plan),
        support_(support),
        visited_(support.span),
        remaining_(std::move(rotations)),
        next_flips_(std::move(next_flips)),
        num_bits_(plan.program->num_wires) {}

  void run() {
    while (!remaining_.empty()) plan_pass();
  }

 private:
  using Window = std::vector<int>;  // rotations, in order

  // Looking beyond so many rotations that wait costs more than it finds.
  static constexpr int most_waiting = 256;

  // A pass of so many rotations that flip gains nothing by more, anywhere, while what a GPU has to know of each takes
  // shared memory.
  static constexpr int most_in_pass = 2048;

  const Rotation& rotation(int number) const { return plan_.rotations[number]; }

  const PauliWord& pauli_word(int rotation) const { return plan_.rotations[rotation].pauli_word; }

  const Half& half(int rotation) const { return plan_.rotations[rotation].half; }

  void plan_pass() {
    TileGeometry tile(num_bits_, plan_.layout.lane_bits, plan_.layout.tile_bits, plan_.layout.run_bits);
    const Window window = choose_tile(tile);
    const std::vector<Window> rounds = schedule(tile, window);
    std::vector<Mask> parities;
    Pass pass;
    for (const Window& round : rounds) {
      for (const int t : round) {
        parities.push_back(pauli_word(t).z);
        if (!half(t).is_all()) parities.push_back(half(t).mask);
        add_input(pass.inputs, plan_.rotations[t].angle.input);
      }
    }
    pass.before = support_;
    pass.rows = tile.rows();
    pass.tiles = tile.tiles(support_.origin, visited_, parities, pass.num_active_tiles);
    if (support_.everywhere) pass.num_active_tiles = pass.tiles.size();
    is_local_ = !support_.everywhere && pass.num_active_tiles == 1;
    is_local_ ? visit_a_pair(tile, rounds) : visit_all(tile);
    for (const Window& round : rounds) add_operations(pass, tile, round);
    plan_.passes.push_back(std::move(pass));
  }

  // Rows of a single state go in pairs (PairCell). The second is one that the next rotations trade, or any.
  void visit_a_pair(const TileGeometry& tile, const std::vector<Window>& rounds) {
    if (plan_.layout.part_bits != 0) return;
    const auto has_pair = [&] {
      return std::ranges::any_of(visited_.basis(), [&](Mask v) { return tile.flip(v) >> lane_bits() != 0; });
    };
    const auto visit = [&](Mask flip) {
      if (!has_pair()) visited_.add(flip);
    };
    for (const Window& round : rounds) {
      for (const int t : round) visit(pauli_word(t).x);
    }
    const IndexMap rows = tile.rows();
    if (rows.size() > 1) visit(static_cast<Mask>(rows[1]));
  }

  // Tiles are gone over as a whole where there are several.
  void visit_all(const TileGeometry& tile) {
    for (const Mask v : tile.span().basis()) visited_.add(v);
  }

  // The flips of the first rotations that can be had, and the rotations that were looked at.
  Window choose_tile(TileGeometry& tile) const {
    if (plan_.layout.tile_bits >= num_bits_) {
      tile.fill();
      return remaining_;
    }
    Window window;
    Commutant free(num_bits_);  // to go before those that wait
    int flipping = 0;
    for (const int t : remaining_) {
      if (free.count() > most_waiting || flipping == most_in_pass) break;
      window.push_back(t);
      const PauliWord& w = pauli_word(t);
      if (!w.is_diagonal()) ++flipping;
      if (!contains(free, rotation(t)) || (!w.is_diagonal() && !tile.reach(w.x))) narrow(free, rotation(t));
    }
    const bool is_last = std::ranges::all_of(remaining_, [&](int t) { return tile.reaches(pauli_word(t).x); });
    for (std::size_t i = 0; is_last && i < next_flips_.size(); ++i) tile.reach(next_flips_[i]);
    tile.fill();
    return window;
  }

  // Phases and other rotations in alternation, each round as many as are not held up by others; takes them off the
  // remaining ones.
  std::vector<Window> schedule(const TileGeometry& tile, const Window& window) {
    std::vector<Window> rounds;
    Window left = window;
    auto rotations_left =
        std::count_if(remaining_.begin(), remaining_.end(), [&](int t) { return !pauli_word(t).is_diagonal(); });
    // Phases that are the same all over a tile are left to a pass that sees them change: there they cost nothing.
    const auto phases = [&](const PauliWord& w) {
      return w.is_diagonal() && (w.z == 0 || rotations_left == 0 || tile.parity(w.z) != 0);
    };
    const auto rotations = [&](const PauliWord& w) { return !w.is_diagonal() && tile.reaches(w.x); };
    for (;;) {
      const Window some_phases = take(left, phases);
      const Window some_rotations = take(left, rotations);
      rotations_left -= static_cast<std::ptrdiff_t>(some_rotations.size());
      // Phases that no rotation of this pass waits for are put off: they merge with those of the next pass.
      const bool put_off = some_rotations.empty() && rotations_left > 0;
      if (!some_phases.empty() && !put_off) rounds.push_back(some_phases);
      if (some_rotations.empty()) break;
      rounds.push_back(some_rotations);
    }
    std::vector<bool> taken(plan_.rotations.size(), false);
    for (const Window& round : rounds) {
      for (const int t : round) taken[t] = true;
    }
    std::erase_if(remaining_, [&](int t) { return taken[t]; });
    return rounds;
  }

  // Moves the eligible rotations that nothing holds up from `left` to the result.
  template <class F>
  Window take(Window& left, const F& eligible) const {
    Window taken;
    Window rest;
    Commutant free(num_bits_);  // to go before those that wait
    for (const int t : left) {
      if (eligible(pauli_word(t)) && contains(free, rotation(t))) {
        taken.push_back(t);
      } else {
        narrow(free, rotation(t));
        rest.push_back(t);
      }
    }
    left = std::move(rest);
    return taken;
  }

  void add_operations(Pass& pass, const TileGeometry& tile, const std::vector<int>& round) {
    if (pauli_word(round[0]).is_diagonal()) {
      pass.operations.push_back(phases(pass, tile, round));
      return;
    }
    for (const std::vector<int>& block : blocks(tile, round)) {
      pass.operations.push_back(rotation_block(pass, tile, block));
      for (const int t : block) {
        support_.span.add(pauli_word(t).x);
        visited_.add(pauli_word(t).x);
      }
    }
    if (support_.span.size() == num_bits_) support_.everywhere = true;
  }

  // --- phases --------------------------------------------------------------------------------------------------------

  Phases phases(const Pass& pass, const TileGeometry& tile, const std::vector<int>& round) const {
    Phases found;
    std::vector<Mask> parities;
    std::map<Mask, std::size_t> position;
    for (const int t : round) {
      const Mask z = pauli_word(t).z;
      const auto [at, is_new] = position.try_emplace(z, found.strings.size());
      if (is_new) {
        const Mask local = tile.parity(z);
        parities.push_back(local >> lane_bits());
        found.strings.push_back({0, local & (unit(lane_bits()) - 1), z, false, {}});
      }
      found.strings[at->second].rotations.push_back(t);
    }
    Rows rows = visited_rows(pass, tile);
    // Larger states are gone over in the order of memory, which the machine foresees.
    if (pass.tiles.size() == 1 && plan_.layout.part_bits == 0) tell_apart(rows.visited, parities);
    found.num_active = Index{1} << rows.visited.size();
    std::vector<Mask> basis = rows.visited;
    complete(basis, row_bits(tile));
    found.rows = IndexMap(rows.origin, basis);
    for (std::size_t m = 0; m < parities.size(); ++m) {
      PhaseString& s = found.strings[m];
      s.negative = odd_parity(rows.origin & parities[m]);
      for (std::size_t i = 0; i < basis.size(); ++i) s.row_mask |= Mask{odd_parity(basis[i] & parities[m])} << i;
    }
    return found;
  }

  // Changes a basis into one of the same span on whose vectors few parities are odd: as many parities as are
  // independent are odd on one vector each.
  static void tell_apart(std::vector<Mask>& basis, const std::vector<Mask>& parities) {
    std::size_t told = 0;
    for (const Mask p : parities) {
      const auto odd = [&](Mask v) { return odd_parity(v & p); };
      const auto found = std::find_if(basis.begin() + static_cast<std::ptrdiff_t>(told), basis.end(), odd);
      if (found == basis.end()) continue;
      std::swap(basis[told], *found);
      for (std::size_t k = 0; k < basis.size(); ++k) basis[k] ^= k != told && odd(basis[k]) ? basis[told] : 0;
      ++told;
    }
  }

  static void complete(std::vector<Mask>& basis, int bits) {
    Span taken;
    for (const Mask v : basis) taken.add(v);
    for (int b = 0; b < bits; ++b) {
      if (taken.add(unit(b))) basis.push_back(unit(b));
    }
  }

  // Rows of a tile that are visited: origin + span of `visited`.
  struct Rows {
    Mask origin = 0;
    std::vector<Mask> visited;
  };

  Rows visited_rows(const Pass& pass, const TileGeometry& tile) const {
    Rows rows;
    if (!is_local_) {
      complete(rows.visited, row_bits(tile));
      return rows;
    }
    rows.origin = tile.flip(support_.origin ^ static_cast<Mask>(pass.tiles[0])) >> lane_bits();
    Span span;
    for (const Mask v : visited_.basis()) span.add(tile.flip(v) >> lane_bits());
    rows.visited = span.basis();
    std::sort(rows.visited.begin(), rows.visited.end());
    return rows;
  }

  int row_bits(const TileGeometry& tile) const { return tile.span().size() - lane_bits(); }

  int lane_bits() const { return std::min(plan_.layout.lane_bits, num_bits_); }

  // --- blocks --------------------------------------------------------------------------------------------------------

  // What a rotation trades: only rotations of the same kind share a block.
  struct Flip {
    Mask row;
    Mask lane;

    bool is_like(const Flip& o) const { return (row == 0) == (o.row == 0) && (lane == 0) == (o.lane == 0); }
  };

  Flip flip(const TileGeometry& tile, int rotation) const {
    const Mask local = tile.flip(pauli_word(rotation).x);
    return {local >> lane_bits(), local & (unit(lane_bits()) - 1)};
  }

  // Whether a rotation may join others: pairs that do not meet, rows that are told apart by which rotations they are
  // traded by, the same half of the amplitudes, and the same input, because at a call one may be batched and the other
  // shared.
  bool may_join(const TileGeometry& tile, const std::vector<int>& block, int t) const {
    const Flip own = flip(tile, t);
    if (static_cast<int>(block.size()) == RotationBlock::most || !own.is_like(flip(tile, block[0]))) return false;
    if (half(t) != half(block[0]) || cuts_groups(tile, t) || cuts_groups(tile, block[0])) return false;
    Span rows;
    for (const int b : block) {
      if (plan_.rotations[b].angle.input != plan_.rotations[t].angle.input) return false;
      if (odd_parity(pauli_word(b).x & pauli_word(t).z) || odd_parity(pauli_word(b).z & pauli_word(t).x)) return false;
      rows.add(flip(tile, b).row);
    }
    return own.row == 0 || rows.add(own.row);
  }

  std::vector<std::vector<int>> blocks(const TileGeometry& tile, std::vector<int> left) const {
    std::vector<std::vector<int>> found;
    while (!left.empty()) {
      std::vector<int> block{left[0]};
      std::vector<int> rest;
      Commutant free(num_bits_);
      for (std::size_t i = 1; i < left.size(); ++i) {
        const int t = left[i];
        if (contains(free, rotation(t)) && may_join(tile, block, t)) {
          block.push_back(t);
        } else {
          narrow(free, rotation(t));
          rest.push_back(t);
        }
      }
      found.push_back(std::move(block));
      left = std::move(rest);
    }
    return found;
  }

  RotationBlock rotation_block(const Pass& pass, const TileGeometry& tile, const std::vector<int>& rotations) const {
    RotationBlock block;
    block.rotations = rotations;
    const int parts = plan_.layout.part_bits;
    for (const int t : rotations) {
      const Flip traded = flip(tile, t);
      const Mask parity = tile.parity(pauli_word(t).z);
      block.row_flip.push_back(static_cast<Index>(traded.row << parts));
      block.lane_flip.push_back(traded.lane);
      block.lane_sign.push_back(parity & (unit(lane_bits()) - 1));
      block.row_sign.push_back((parity >> lane_bits()) << parts);
      block.tile_sign.push_back(pauli_word(t).z);
    }
    if (const Half& h = half(rotations[0]); !h.is_all())
      block.half = {h.mask, tile.parity(h.mask) & (unit(lane_bits()) - 1), h.even, cuts_groups(tile, rotations[0]), {},
                    0};
    enumerate_groups(block, pass, tile);
    return block;
  }

  Mask half_rows(const TileGeometry& tile, int rotation) const {
    return tile.parity(half(rotation).mask) >> lane_bits();
  }

  // Whether a rotation takes rows to others that have other lanes in its half.
  bool cuts_groups(const TileGeometry& tile, int rotation) const {
    return !half(rotation).is_all() && odd_parity(half_rows(tile, rotation) & flip(tile, rotation).row);
  }

  // One row of each group, first those that are visited. Of the rows of a group the one is chosen at
  // which all row signs are even, unless lanes have signs that go with them.
  void enumerate_groups(RotationBlock& block, const Pass& pass, const TileGeometry& tile) const {
    const int parts = plan_.layout.part_bits;
    const Rows rows = visited_rows(pass, tile);
    Span flips;
    for (const Index f : block.row_flip) flips.add(static_cast<Mask>(f));
    Span taken = flips;
    std::vector<Mask> basis;
    const auto take = [&](Mask v) {
      v = flips.reduce(v);
      if (taken.add(v)) basis.push_back(v);
    };
    Mask origin = rows.origin << parts;
    if (parts != 0) take(1);
    for (const Mask v : rows.visited) take(v << parts);
    block.num_active = Index{1} << basis.size();
    for (int b = 0; b < row_bits(tile) + parts; ++b) take(unit(b));
    const auto make_even = [&](Mask sign, Index row_flip) {
      const auto other = static_cast<Mask>(row_flip);
      for (Mask& v : basis) v ^= odd_parity(v & sign) ? other : 0;
      origin ^= odd_parity(origin & sign) ? other : 0;
    };
    for (std::size_t j = 0; j < block.rotations.size() && !block.trades_lanes(); ++j)
      make_even(block.row_sign[j], block.row_flip[j]);
    if (block.half) {
      const Mask sign = half_rows(tile, block.rotations[0]) << parts;
      if (block.cuts_groups()) make_even(sign, block.row_flip[0]);
      take_odd_groups(block, sign, origin, basis);
    }
    block.groups = IndexMap(origin, basis);
  }

  // Takes those at which the half's sign is odd, if there are any, off a block's groups: origin + span of the basis.
  static void take_odd_groups(RotationBlock& block, Mask sign, Mask& origin, std::vector<Mask>& basis) {
    const auto odd = [&](Mask v) { return odd_parity(v & sign); };
    const auto first = std::find_if(basis.begin(), basis.end(), odd);
    if (first == basis.end()) return;
    const Mask shift = *first;
    const bool splits_active = Index{1} << (first - basis.begin()) < block.num_active;
    basis.erase(first);
    for (Mask& v : basis) v ^= odd(v) ? shift : 0;
    Index num_active[] = {block.num_active, 0};  // of the groups at the origin, and of the others
    if (splits_active) num_active[0] = num_active[1] = block.num_active / 2;
    const bool is_odd = odd(origin);
    if (is_odd) origin ^= shift;
    block.num_active = num_active[is_odd ? 1 : 0];
    block.half->num_odd_active = num_active[is_odd ? 0 : 1];
    block.half->odd_groups = IndexMap(origin ^ shift, basis);
  }

  Plan& plan_;
  Support& support_;
  // What an operation visits, all that come after it visit too: support_.origin + this, which holds the support.
  // Going back, amplitudes that one of them left out would lack another scale than the state, and rounding errors of
  // ket and bra that lie there would come into the overlaps of those before it.
  Span visited_;
  std::vector<int> remaining_;
  const std::vector<Mask> next_flips_;
  const int num_bits_;
  bool is_local_ = false;  // in this pass, all that is visited lies in the first tile
};

// --- who applies the deferred scale ----------------------------------------------------------------------------------

void apply_scale_in(std::vector<TileOp*>& segment) {
  if (segment.empty()) return;
  std::visit([](auto& op) { op.applies_scale_forward = true; }, *segment.back());
  std::visit([](auto& op) { op.applies_scale_backward = true; }, *segment.front());
  segment.clear();
}

bool carries_scale(const TileOp& op) {
  const auto* block = std::get_if<RotationBlock>(&op);
  return block == nullptr || !block->half;
}

void apply_scales(Plan& plan) {
  std::vector<TileOp*> segment;
  for (Pass& pass : plan.passes) {
    if (pass.gate_op != Element::none) apply_scale_in(segment);
    for (TileOp& op : pass.operations) {
      if (carries_scale(op)) segment.push_back(&op);
    }
  }
  apply_scale_in(segment);
}

// `pauli_word_flips`: of the Pauli words that are measured in the end.
void plan_passes(Plan& plan, const std::vector<Element>& order, const std::vector<Mask>& pauli_word_flips) {
  Support support;
  support.everywhere =
      !plan.layout.tracks_support || plan.program->initial.kind == Preparation::state || plan.initial.everywhere != 0;
  support.origin = static_cast<Mask>(plan.initial.index);
  std::vector<int> rotations;
  const auto finish_segment = [&](const std::vector<Mask>& next_flips) {
    SegmentPlanner(plan, support, std::move(rotations), next_flips).run();
    rotations.clear();
  };
  for (const Element& e : order) {
    if (e.rotation != Element::none) {
      rotations.push_back(e.rotation);
      continue;
    }
    finish_segment({});
    Pass pass;
    pass.gate_op = e.gate_op;
    pass.inputs = plan.gate_ops[e.gate_op].inputs;
    plan.passes.push_back(std::move(pass));
    support.everywhere = true;
  }
  finish_segment(pauli_word_flips);
  apply_scales(plan);
}

// --- measurements ----------------------------------------------------------------------------------------------------

PlannedTerm plan_term(const Term& term, const WireMap& wire_map) {
  PlannedTerm planned{&term, wire_map.pauli_word(term.pauli_word, term.pauli_wires), {}};
  for (const Factor& f : term.factors) {
    PlannedFactor factor{&f, wire_map.groups(f.wires), wire_map.local(f.wires)};
    for (const int bit : f.bits) factor.kept = 2 * factor.kept + bit;
    planned.factors.push_back(std::move(factor));
  }
  return planned;
}

struct ObservedPauliWord {
  const Term* term;
  Index result;
  PauliWord pauli_word;
};

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

using PauliWordsByFlip = std::map<Mask, std::vector<ObservedPauliWord>>;

std::vector<Mask> flips_of(const PauliWordsByFlip& pauli_words) {
  std::vector<Mask> flips;
  for (const auto& [x, list] : pauli_words) flips.push_back(x);
  return flips;
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
  const Pass& last = plan.passes.back();
  if (last.gate_op != Element::none || last.tiles.size() == 1) return;
  TileGeometry tile(plan.program->num_wires, plan.layout.lane_bits, plan.layout.tile_bits, 0);
  for (Index r = 1; r < last.rows.size(); r *= 2) tile.reach(static_cast<Mask>(last.rows[r]));
  ObservablePass pass;
  pass.tiles = last.tiles;
  pass.rows = last.rows;
  for (const Mask x : left) {
    if (tile.reaches(x)) pass.groups.push_back(pauli_word_group(x, pauli_words.at(x), tile, plan.layout.lane_bits));
  }
  std::erase_if(left, [&](Mask x) { return tile.reaches(x); });
  pass.in_last_pass = true;
  if (!pass.groups.empty()) plan.observables.push_back(std::move(pass));
}

// Flips are put into tiles as they come. Without factors beside ket and bra there is room for tiles of twice the size.
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

// Returns the Pauli words that passes over the state measure.
PauliWordsByFlip plan_measurements(Plan& plan, const WireMap& wire_map) {
  const Program& program = *plan.program;
  Index real = 0;
  Index complex = 0;
  std::vector<ObservedPauliWord> pauli_words;
  for (const Measurement& m : program.measurements) {
    Index& next = measurement_info(m.kind).is_complex ? complex : real;
    PlannedMeasurement planned = plan_measurement(m, next, wire_map, pauli_words);
    next += result_size(m, program.num_wires);
    plan.measurements.push_back(std::move(planned));
  }
  PauliWordsByFlip by_flip;
  for (const ObservedPauliWord& w : pauli_words) by_flip[w.pauli_word.x].push_back(w);
  return by_flip;
}

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
    if (info.family == Family::diagonal) has_sum(Index{2} << g.targets.size());
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
    for (const Term& t : m.terms) resources.needs_scratch |= !t.factors.empty();
  }
  return resources;
}

Plan make_plan(const Program& program, const Layout& layout) {
  Lowered lowered = lower(program);
  if (layout.splits_halves) split_halves(lowered);
  keep_light_cone(program, lowered);
  Plan plan;
  plan.program = &program;
  plan.layout = layout;
  plan.rotations = std::move(lowered.rotations);
  plan.gate_ops = std::move(lowered.gate_ops);
  plan.dropped = lowered.dropped;
  plan.initial = lowered.initial;
  plan.basis = lowered.wire_map.basis();
  if (program.initial.kind == Preparation::state)
    plan.initial_offsets = WireMap(program.num_wires).local(program.initial.wires);
  const PauliWordsByFlip pauli_words = plan_measurements(plan, lowered.wire_map);
  plan_passes(plan, lowered.order, layout.measures_in_passes ? flips_of(pauli_words) : std::vector<Mask>{});
  plan_observables(plan, pauli_words);
  return plan;
}

}  // namespace ketgrad

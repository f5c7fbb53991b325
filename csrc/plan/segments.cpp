#include "plan/segments.h"

#include <algorithm>
#include <utility>

#include "math/commutant.h"
#include "plan/tile_ops.h"

namespace ketgrad {

namespace {

// The most flipping rotations of a pass: more gain nothing, and each takes shared memory on a GPU.
constexpr int most_in_pass = 2048;

}  // namespace

SegmentPlanner::SegmentPlanner(Plan& plan, Support& support, std::vector<int> rotations, std::vector<Mask> next_flips)
    : plan_(plan),
      support_(support),
      visited_(support.span),
      remaining_(std::move(rotations)),
      mixing_left_(std::ranges::count_if(remaining_, [&](int t) { return !is_phase(t); })),
      next_flips_(std::move(next_flips)),
      num_bits_(plan.program->num_wires) {}

void SegmentPlanner::run() {
  while (!remaining_.empty()) plan_pass();
}

void SegmentPlanner::plan_pass() {
  TileGeometry tile(num_bits_, plan_.layout.lane_bits, plan_.layout.tile_bits, plan_.layout.run_bits);
  const int* end = choose_tile(tile);
  const std::vector<Window> rounds = schedule(tile, end);
  std::vector<Mask> parities;
  TilePass pass;
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
  const bool is_local = !support_.everywhere && pass.num_active_tiles == 1;
  is_local ? visit_a_pair(tile, rounds) : visit_all(tile);
  for (const Window& round : rounds) add_operations(pass, tile, is_local, round);
  plan_.passes.push_back(std::move(pass));
}

// Rows of a single state are visited in pairs (PairCell). The second row of the first pair is one that the next
// rotations trade, or any.
void SegmentPlanner::visit_a_pair(const TileGeometry& tile, const std::vector<Window>& rounds) {
  if (plan_.layout.part_bits != 0) return;
  const auto has_pair = [&] {
    return std::ranges::any_of(
        visited_.basis(), [&](Mask v) { return tile.flip(v) >> std::min(plan_.layout.lane_bits, num_bits_) != 0; });
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

// Where there are several tiles, each is visited as a whole.
void SegmentPlanner::visit_all(const TileGeometry& tile) {
  for (const Mask v : tile.span().basis()) visited_.add(v);
}

// Puts the flips of the first rotations into the tile, as many as it has room for; returns the end of the rotations that
// were considered.
const int* SegmentPlanner::choose_tile(TileGeometry& tile) const {
  if (plan_.layout.tile_bits >= num_bits_) {
    tile.fill();
    return remaining_.end();
  }
  Commutant free(num_bits_);  // commutes with all rotations that wait
  int flipping = 0;
  const int* end = remaining_.begin();
  for (; end != remaining_.end() && free.count() <= most_waiting && flipping < most_in_pass; ++end) {
    const PauliWord& w = pauli_word(*end);
    if (!w.is_diagonal()) ++flipping;
    if (!contains(free, rotation(*end)) || (!w.is_diagonal() && !tile.reach(w.x))) narrow(free, rotation(*end));
  }
  const bool is_last =
      end == remaining_.end() && std::ranges::all_of(remaining_, [&](int t) { return tile.reaches(pauli_word(t).x); });
  for (std::size_t i = 0; is_last && i < next_flips_.size(); ++i) tile.reach(next_flips_[i]);
  tile.fill();
  return end;
}

// Takes the eligible rotations in front of `end` that nothing holds up.
template <class F>
SegmentPlanner::Window SegmentPlanner::take(const int* end, const F& eligible) {
  Commutant free(num_bits_);  // commutes with all rotations that wait
  int mixing = 0;             // rotations that wait and are no phases: only phases wait before the first of a pass
  return remaining_.take(
      end,
      [&](int t) {
        if (eligible(pauli_word(t)) && contains(free, rotation(t))) return true;
        narrow(free, rotation(t));
        mixing += is_phase(t) ? 0 : 1;
        return false;
      },
      [&] { return free.count() == 0 || (mixing <= most_waiting && !free.is_trivial()); });
}

// Rounds of phases and of other rotations in alternation, each of all rotations that commute with those left before
// them; removes them from the remaining ones.
std::vector<SegmentPlanner::Window> SegmentPlanner::schedule(const TileGeometry& tile, const int* end) {
  std::vector<Window> rounds;
  // Phases that are constant on a tile are left to a pass on whose tiles they vary: there they cost nothing.
  const auto phases = [&](const PauliWord& w) {
    return w.is_diagonal() && (w.z == 0 || mixing_left_ == 0 || tile.parity(w.z) != 0);
  };
  const auto rotations = [&](const PauliWord& w) { return !w.is_diagonal() && tile.reaches(w.x); };
  for (;;) {
    Window some_phases = take(end, phases);
    Window some_rotations = take(end, rotations);
    mixing_left_ -= static_cast<std::ptrdiff_t>(some_rotations.size());
    const bool is_last = some_rotations.empty();
    // Phases that no rotation of this pass waits for are put off: they merge with those of the next pass.
    if (is_last && mixing_left_ > 0) {
      remaining_.put_back(some_phases);
    } else if (!some_phases.empty()) {
      rounds.push_back(std::move(some_phases));
    }
    if (is_last) break;
    rounds.push_back(std::move(some_rotations));
  }
  return rounds;
}

void SegmentPlanner::add_operations(TilePass& pass, const TileGeometry& tile, bool is_local, const Window& round) {
  const TileOpBuilder builder(plan_, pass, tile, support_, visited_, is_local);
  if (pauli_word(round[0]).is_diagonal()) {
    Window everywhere;
    for (const int t : round) {
      if (rotation(t).coset.empty()) everywhere.push_back(t);
    }
    if (!everywhere.empty()) pass.operations.push_back(builder.phases(everywhere));
    for (const int t : round) {
      if (!rotation(t).coset.empty()) pass.operations.push_back(CosetPhase{t, builder.coset(rotation(t).coset)});
    }
    return;
  }
  for (const std::vector<int>& block : builder.blocks(round)) {
    pass.operations.push_back(builder.rotation_block(block));
    for (const int t : block) {
      support_.span.add(pauli_word(t).x);
      visited_.add(pauli_word(t).x);
    }
  }
  if (support_.span.size() == num_bits_) support_.everywhere = true;
}

}  // namespace ketgrad

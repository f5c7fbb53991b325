#include "plan/segments.h"

#include <algorithm>
#include <utility>

#include "math/commutant.h"
#include "plan/tile_ops.h"

namespace ketgrad {

namespace {

// The search for rotations of a pass ends when this many have to wait: beyond, it costs more than it finds.
constexpr int most_waiting = 256;

// The most flipping rotations of a pass: more gain nothing, and each takes shared memory on a GPU.
constexpr int most_in_pass = 2048;

}  // namespace

SegmentPlanner::SegmentPlanner(Plan& plan, Support& support, std::vector<int> rotations, std::vector<Mask> next_flips)
    : plan_(plan),
      support_(support),
      visited_(support.span),
      remaining_(std::move(rotations)),
      next_flips_(std::move(next_flips)),
      num_bits_(plan.program->num_wires) {}

void SegmentPlanner::run() {
  while (!remaining_.empty()) plan_pass();
}

void SegmentPlanner::plan_pass() {
  TileGeometry tile(num_bits_, plan_.layout.lane_bits, plan_.layout.tile_bits, plan_.layout.run_bits);
  const Window window = choose_tile(tile);
  const std::vector<Window> rounds = schedule(tile, window);
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

// Puts the flips of the first rotations into the tile, as many as it has room for; returns the rotations that were
// considered.
SegmentPlanner::Window SegmentPlanner::choose_tile(TileGeometry& tile) const {
  if (plan_.layout.tile_bits >= num_bits_) {
    tile.fill();
    return remaining_;
  }
  Window window;
  Commutant free(num_bits_);  // commutes with all rotations that wait
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

// Moves the eligible rotations that nothing holds up from `left` to the result.
template <class F>
SegmentPlanner::Window SegmentPlanner::take(Window& left, const F& eligible) const {
  Window taken;
  Window rest;
  Commutant free(num_bits_);  // commutes with all rotations that wait
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

// Rounds of phases and of other rotations in alternation, each of all rotations that commute with those left before
// them; removes them from the remaining ones.
std::vector<SegmentPlanner::Window> SegmentPlanner::schedule(const TileGeometry& tile, const Window& window) {
  std::vector<Window> rounds;
  Window left = window;
  auto rotations_left =
      std::count_if(remaining_.begin(), remaining_.end(), [&](int t) { return !pauli_word(t).is_diagonal(); });
  // Phases that are constant on a tile are left to a pass on whose tiles they vary: there they cost nothing.
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

void SegmentPlanner::add_operations(TilePass& pass, const TileGeometry& tile, bool is_local, const Window& round) {
  const TileOpBuilder builder(plan_, pass, tile, support_, visited_, is_local);
  if (pauli_word(round[0]).is_diagonal()) {
    pass.operations.push_back(builder.phases(round));
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

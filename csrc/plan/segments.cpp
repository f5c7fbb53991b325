#include "plan/segments.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "math/commutant.h"

namespace ketgrad {

namespace {

// The most rotations and matrices of a pass that are no phases: more gain nothing, and each takes shared memory on a GPU.
constexpr int most_in_pass = 2048;

}  // namespace

SegmentPlanner::SegmentPlanner(Plan& plan, const Elements& elements, Support& support, std::vector<int> segment,
                               std::vector<Mask> next_flips)
    : plan_(plan),
      elements_(elements),
      support_(support),
      visited_(support.span),
      remaining_(std::move(segment)),
      mixing_left_(std::ranges::count_if(remaining_, [&](int e) { return !elements.is_phase(e); })),
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
    for (const int e : round) {
      elements_.for_each_parity(e, [&](Mask parity) { parities.push_back(parity); });
      elements_.for_each_input(e, [&](int input) { add_input(pass.inputs, input); });
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
    for (const int e : round) elements_.for_each_flip(e, visit);
  }
  const IndexMap rows = tile.rows();
  if (rows.size() > 1) visit(static_cast<Mask>(rows[1]));
}

// Where there are several tiles, each is visited as a whole.
void SegmentPlanner::visit_all(const TileGeometry& tile) {
  for (const Mask v : tile.span().basis()) visited_.add(v);
}

bool SegmentPlanner::reaches(const TileGeometry& tile, int e) const {
  bool all = true;
  elements_.for_each_flip(e, [&](Mask flip) { all = all && tile.reaches(flip); });
  return all;
}

// All flips of an element, or none.
bool SegmentPlanner::reach(TileGeometry& tile, int e) const {
  Vectors flips;
  elements_.for_each_flip(e, [&](Mask flip) { flips.push_back(flip); });
  return tile.reach_all(flips);
}

// Puts the flips of the first elements into the tile, as many as it has room for; returns the end of the elements that
// were considered.
const int* SegmentPlanner::choose_tile(TileGeometry& tile) const {
  if (plan_.layout.tile_bits >= num_bits_) {
    tile.fill();
    return remaining_.end();
  }
  Commutant free(num_bits_);  // commutes with all elements that wait
  int mixing = 0;
  const int* end = remaining_.begin();
  for (; end != remaining_.end() && free.count() <= most_waiting && mixing < most_in_pass; ++end) {
    const bool is_phase = elements_.is_phase(*end);
    if (!is_phase) ++mixing;
    if (!elements_.commutes(free, *end) || (!is_phase && !reach(tile, *end))) elements_.narrow(free, *end);
  }
  const bool is_last =
      end == remaining_.end() && std::ranges::all_of(remaining_, [&](int e) { return reaches(tile, e); });
  for (std::size_t i = 0; is_last && i < next_flips_.size(); ++i) tile.reach(next_flips_[i]);
  tile.fill();
  return end;
}

// Takes the eligible elements in front of `end` that nothing holds up.
template <class F>
SegmentPlanner::Window SegmentPlanner::take(const int* end, const F& eligible) {
  Commutant free(num_bits_);  // commutes with all elements that wait
  int mixing = 0;             // those that wait and are no phases: only phases wait before the first of a pass
  return remaining_.take(
      end,
      [&](int e) {
        if (eligible(e) && elements_.commutes(free, e)) return true;
        elements_.narrow(free, e);
        mixing += elements_.is_phase(e) ? 0 : 1;
        return false;
      },
      [&] { return free.count() == 0 || (mixing <= most_waiting && !free.is_trivial()); });
}

// Rounds of phases and of other elements in alternation, each of all that commute with those left before them; removes
// them from the remaining ones.
std::vector<SegmentPlanner::Window> SegmentPlanner::schedule(const TileGeometry& tile, const int* end) {
  std::vector<Window> rounds;
  // Phases that are constant on a tile are left to a pass on whose tiles they vary: there they cost nothing.
  const auto phases = [&](int e) {
    if (!elements_.is_phase(e)) return false;
    const Mask z = elements_.rotation(e).pauli_word.z;
    return z == 0 || mixing_left_ == 0 || tile.parity(z) != 0;
  };
  const auto others = [&](int e) { return !elements_.is_phase(e) && reaches(tile, e); };
  for (;;) {
    Window some_phases = take(end, phases);
    Window some_others = take(end, others);
    mixing_left_ -= static_cast<std::ptrdiff_t>(some_others.size());
    const bool is_last = some_others.empty();
    // Phases that nothing of this pass waits for are put off: they merge with those of the next pass.
    if (is_last && mixing_left_ > 0) {
      remaining_.put_back(some_phases);
    } else if (!some_phases.empty()) {
      rounds.push_back(std::move(some_phases));
    }
    if (is_last) break;
    rounds.push_back(std::move(some_others));
  }
  return rounds;
}

void SegmentPlanner::add_operations(TilePass& pass, const TileGeometry& tile, bool is_local, const Window& round) {
  const TileOpBuilder builder(plan_, elements_, pass, tile, support_, visited_, is_local);
  if (elements_.is_phase(round[0])) return add_phases(pass, builder, round);
  for (const Window& block : builder.blocks(round)) {
    if (elements_.is_rotation(block[0])) {
      pass.operations.push_back(builder.rotation_block(block));
    } else {
      pass.operations.push_back(builder.matrix(block[0]));
    }
    for (const int e : block) {
      elements_.for_each_flip(e, [&](Mask flip) {
        support_.span.add(flip);
        visited_.add(flip);
      });
    }
  }
  if (support_.span.size() == num_bits_) support_.everywhere = true;
}

void SegmentPlanner::add_phases(TilePass& pass, const TileOpBuilder& builder, const Window& round) {
  const auto on_coset = [&](int e) { return !elements_.rotation(e).coset.empty(); };
  Window everywhere;
  std::ranges::remove_copy_if(round, std::back_inserter(everywhere), on_coset);
  if (!everywhere.empty()) pass.operations.push_back(builder.phases(everywhere));
  for (const int e : round) {
    if (on_coset(e))
      pass.operations.push_back(CosetPhase{elements_.index(e), builder.coset(elements_.rotation(e).coset)});
  }
}

}  // namespace ketgrad

#include "cuda/tables.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

namespace ketgrad::cuda {

namespace {

class TableMaker {
 public:
  explicit TableMaker(const Plan& plan) : plan_(plan), program_(*plan.program) {}

  Tables run() {
    tables_.num_wires = program_.num_wires;
    tables_.whole = plan_.layout.tile_bits >= program_.num_wires;
    for (const Pass& pass : plan_.passes) count_rotations(pass);
    tables_.rotations = rotations_;
    tables_.angles.resize(rotations_);
    rotations_ = 0;
    for (const Pass& pass : plan_.passes) add_pass(pass);
    for (const Step& step : plan_.steps) add_step(step);
    add_words();
    for (const PlannedMeasurement& m : plan_.measurements) add_measurement(m);
    add_elements();
    add_start();
    return std::move(tables_);
  }

 private:
  template <class E>
  static Range append(std::vector<E>& array, const std::vector<E>& more) {
    if (array.size() + more.size() > std::numeric_limits<std::int32_t>::max())
      throw std::invalid_argument("ketgrad: a circuit of more parts than a GPU's tables can count; run it on the CPU");
    const Range range{static_cast<std::int32_t>(array.size()), static_cast<std::int32_t>(more.size())};
    array.insert(array.end(), more.begin(), more.end());
    return range;
  }

  // --- maps ----------------------------------------------------------------------------------------------------------

  static std::vector<Mask> basis_of(const IndexMap& map) {
    std::vector<Mask> basis;
    for (Index r = 1; r < map.size(); r *= 2) basis.push_back(static_cast<Mask>(map[r] ^ map[0]));
    return basis;
  }

  Map map_of(const IndexMap& map) { return {static_cast<Mask>(map[0]), append(tables_.vectors, basis_of(map))}; }

  // Blocks of later layers often have the groups of earlier ones.
  std::int32_t slots_of(const IndexMap& map) {
    std::vector<Mask> key = basis_of(map);
    key.push_back(static_cast<Mask>(map[0]));
    const auto [at, is_new] = group_slots_.try_emplace(key, static_cast<std::int32_t>(tables_.slots.size()));
    for (Index g = 0; is_new && g < map.size(); ++g)
      tables_.slots.push_back(static_cast<std::uint16_t>(slot(static_cast<Local>(map[g]))));
    return at->second;
  }

  // Sorts by pattern; the list begins at `first` of its array.
  template <class E>
  static Patterns sort_patterns(std::vector<E>& list, int tile_bits, std::size_t first) {
    const int shift = thread_bits_of(tile_bits);
    const auto pattern = [&](const E& e) { return static_cast<int>((e.row_mask >> shift) & (own_rows - 1)); };
    std::stable_sort(list.begin(), list.end(), [&](const E& a, const E& b) { return pattern(a) < pattern(b); });
    Patterns patterns;
    patterns.first = static_cast<std::int32_t>(first);
    for (int p = 0; p < own_rows; ++p) {
      const auto count = std::count_if(list.begin(), list.end(), [&](const E& e) { return pattern(e) <= p; });
      patterns.end[p] = static_cast<std::int32_t>(first + static_cast<std::size_t>(count));
    }
    return patterns;
  }

  // A functional on indices as one on the coordinates of a tile.
  static Local parity(Mask functional, const IndexMap& rows) {
    Local mask = 0;
    int bit = 0;
    for (const Mask v : basis_of(rows)) mask |= Local{odd_parity(functional & v)} << bit++;
    return mask;
  }

  static int bits_of(const IndexMap& map) { return std::countr_zero(static_cast<Mask>(map.size())); }

  // --- values and their gradients ------------------------------------------------------------------------------------

  static Value value_of(const Slot& slot, double sign) {
    return {slot.input, slot.column, slot.input == no_input ? 0 : sign * slot.scale, sign * slot.offset};
  }

  Range add_values(const std::vector<Slot>& slots) {
    std::vector<Value> values;
    for (const Slot& s : slots) values.push_back(value_of(s, 1));
    return append(tables_.values, values);
  }

  // The sources of `slots`, one each, for the gradients of their inputs.
  int add_single_sources(const std::vector<Slot>& slots) {
    const int first = tables_.single_sources;
    for (const Slot& s : slots) entries_of(s).push_back({single_source(tables_.single_sources++), s.scale});
    return first;
  }

  // Single sources follow the angles, whose number is not known yet.
  static std::int32_t single_source(int number) { return -1 - number; }

  std::vector<GradientEntry>& entries_of(const Slot& slot) { return gradients_[{slot.input, slot.column}]; }

  void add_angle(int number, const std::vector<int>& turns) {
    std::vector<Value> values;
    for (const int t : turns) {
      const Slot& slot = plan_.turns[t].angle;
      const double sign = turned_around(t) ? -1 : 1;
      values.push_back(value_of(slot, sign));
      if (slot.input != no_input) entries_of(slot).push_back({number, sign * slot.scale});
    }
    const bool constant = std::all_of(values.begin(), values.end(), [](const Value& v) { return v.input == no_input; });
    tables_.angles[number] = {append(tables_.values, values), constant ? 1 : 0};
  }

  // -i P is a real matrix that takes an even row to its partner times +1 or -1; a diagonal word has a sign of its own.
  bool turned_around(int turn) const {
    const PauliWord& word = plan_.turns[turn].word;
    return (!word.is_diagonal() && word.y_count % 4 == 3) != word.negative;
  }

  // --- passes --------------------------------------------------------------------------------------------------------

  void count_rotations(const Pass& pass) {
    for (const ketgrad::Operation& op : pass.operations) {
      if (const auto* block = std::get_if<TurnBlock>(&op)) rotations_ += static_cast<int>(block->turns.size());
    }
  }

  void add_pass(const Pass& pass) {
    TilePass found;
    found.step = pass.step;
    if (pass.step == Element::none) {
      found.tile_bits = bits_of(pass.rows);
      found.tiles = map_of(pass.tiles);
      found.rows = map_of(pass.rows);
      std::vector<Operation> operations;
      for (const ketgrad::Operation& op : pass.operations) {
        const auto* block = std::get_if<TurnBlock>(&op);
        operations.push_back(block != nullptr ? turns(*block) : phases(std::get<Phases>(op), pass));
      }
      found.operations = append(tables_.operations, operations);
    }
    tables_.passes.push_back(found);
    tables_.pass_inputs.push_back(pass.inputs);
  }

  Operation turns(const TurnBlock& block) {
    Operation op;
    op.turns = static_cast<std::int32_t>(block.turns.size());
    op.first_angle = rotations_;
    for (int j = 0; j < op.turns; ++j) {
      add_angle(rotations_++, {block.turns[j]});
      op.flip[j] = slot(static_cast<Local>(block.row_flip[j]));
      op.tile_sign[j] = block.tile_sign[j];
    }
    op.groups = slots_of(block.groups);
    return op;
  }

  // Phases go over all coordinates in their own order, whatever order the plan has for them.
  Operation phases(const Phases& phases, const Pass& pass) {
    struct Found : ZString {
      const PhaseString* string;
    };
    std::vector<Found> found;
    for (const PhaseString& s : phases.strings) found.push_back({{parity(s.tile_mask, pass.rows), s.tile_mask}, &s});
    Operation op;
    op.strings = sort_patterns(found, bits_of(pass.rows), tables_.strings.size());
    for (const Found& f : found) {
      tables_.strings.push_back(f);
      tables_.angles.emplace_back();
      add_angle(static_cast<int>(tables_.angles.size()) - 1, f.string->turns);
    }
    return op;
  }

  void add_step(const Step& step) {
    const Gate& gate = program_.gates[step.gate];
    const GateInfo& info = gate_info(gate.opcode);
    GateStep s;
    s.kind = step.kind;
    s.size = step.size();
    s.groups = map_of(step.groups);
    s.offsets = append(tables_.vectors, std::vector<Mask>(step.offsets.begin(), step.offsets.end()));
    s.word = step.word;
    s.formula = info.formula;
    s.family = info.family;
    s.inverse = gate.inverse ? 1 : 0;
    s.values = add_values(gate.slots);
    s.input = gate.input;
    s.first_source = add_single_sources(gate.slots);
    if (step.kind == StepKind::dense) tables_.largest_step = std::max(tables_.largest_step, s.size);
    tables_.steps.push_back(s);
  }

  // --- measurements --------------------------------------------------------------------------------------------------

  int add_coefficient(const Term& term) {
    const Range values = add_values(term.coefficients);
    tables_.coefficients.push_back({term.scale, values, add_single_sources(term.coefficients)});
    return static_cast<int>(tables_.coefficients.size()) - 1;
  }

  void add_words() {
    tables_.real_results = program_.real_results();
    tables_.complex_results = program_.complex_results();
    for (const ObservablePass& pass : plan_.observables) {
      std::vector<FlipGroup> groups;
      for (const WordGroup& group : pass.groups) groups.push_back(flip_group(group, bits_of(pass.rows)));
      tables_.word_passes.push_back(
          {bits_of(pass.rows), map_of(pass.tiles), map_of(pass.rows), append(tables_.flip_groups, groups)});
    }
    std::vector<std::vector<std::int32_t>> of_result(tables_.real_results);
    for (std::size_t w = 0; w < tables_.words.size(); ++w)
      of_result[tables_.words[w].result].push_back(static_cast<std::int32_t>(w));
    for (std::size_t r = 0; r < of_result.size(); ++r) {
      if (!of_result[r].empty())
        tables_.word_results.push_back({static_cast<std::int32_t>(r), append(tables_.word_lists, of_result[r])});
    }
  }

  FlipGroup flip_group(const WordGroup& group, int tile_bits) {
    FlipGroup found;
    found.flip = static_cast<Local>(group.row_flip);
    for (const bool imaginary : {false, true}) {
      std::vector<Word> words;
      for (const WordGroup::Member& m : group.members) {
        if (((m.quarter & 1) != 0) == imaginary)
          words.push_back({static_cast<Local>(m.row_mask), m.tile_mask, m.quarter, static_cast<std::int32_t>(m.result),
                           add_coefficient(*m.term)});
      }
      (imaginary ? found.imaginary : found.real) = sort_patterns(words, tile_bits, tables_.words.size());
      append(tables_.words, words);
    }
    return found;
  }

  void add_measurement(const PlannedMeasurement& m) {
    TableMeasurement found;
    found.kind = m.measurement->kind;
    found.first_result = m.first_result;
    for (const PlannedTerm& term : m.terms) {
      ObservableTerm t{add_coefficient(*term.term), term.word, {}};
      for (const PlannedFactor& f : term.factors) t.factors.push_back(factor_of(f));
      found.terms.push_back(std::move(t));
    }
    const bool of_words = found.kind == MeasurementKind::expval;
    const bool observes = of_words || found.kind == MeasurementKind::var;
    if (!observes) {
      found.groups = map_of(m.groups);
      found.offsets = map_of(m.offsets);
    }
    tables_.only_words &= of_words && m.terms.empty();
    tables_.needs_scratch |= observes && (!of_words || !m.terms.empty());
    tables_.measurements.push_back(std::move(found));
  }

  ObservableFactor factor_of(const PlannedFactor& f) {
    ObservableFactor found;
    found.kind = f.factor->kind;
    found.input = f.factor->input;
    found.groups = map_of(f.groups);
    found.offsets = map_of(f.offsets);
    found.kept = f.kept;
    if (found.kind == FactorKind::sparse) add_sparse(found, *f.factor, f.offsets.size());
    return found;
  }

  void add_sparse(ObservableFactor& found, const Factor& factor, Index size) {
    found.entry_rows = append(tables_.entries, factor.rows);
    found.entry_columns = append(tables_.entries, factor.columns);
    add_lists(factor.rows, size, found.row_starts, found.row_entries);
    add_lists(factor.columns, size, found.column_starts, found.column_entries);
  }

  // The entries of each row, or of each column, in `line_of` each entry.
  void add_lists(const std::vector<Index>& line_of, Index size, Range& starts, Range& entries) {
    std::vector<std::vector<std::int64_t>> lines(size);
    for (std::size_t k = 0; k < line_of.size(); ++k) lines[line_of[k]].push_back(static_cast<Index>(k));
    std::vector<std::int64_t> ends{0};
    std::vector<std::int64_t> sorted;
    for (const auto& line : lines) {
      sorted.insert(sorted.end(), line.begin(), line.end());
      ends.push_back(static_cast<std::int64_t>(sorted.size()));
    }
    starts = append(tables_.entries, ends);
    entries = append(tables_.entries, sorted);
  }

  // --- the end -------------------------------------------------------------------------------------------------------

  void add_elements() {
    const auto angles = static_cast<std::int32_t>(tables_.angles.size());
    for (auto& [place, entries] : gradients_) {
      if (place.first == no_input) continue;
      for (GradientEntry& e : entries) e.source = e.source < 0 ? angles - 1 - e.source : e.source;
      tables_.elements.push_back({place.first, place.second, append(tables_.gradient_entries, entries)});
    }
  }

  void add_start() {
    tables_.preparation = program_.initial.kind;
    tables_.start = plan_.start;
    tables_.initial_input = program_.initial.input;
    std::vector<Mask> units;
    for (int b = 0; b < program_.num_wires; ++b) units.push_back(unit(b));
    tables_.identity = append(tables_.vectors, units);
    if (tables_.preparation == Preparation::state) tables_.initial_offsets = map_of(plan_.initial_offsets);
  }

  const Plan& plan_;
  const Program& program_;
  Tables tables_;
  int rotations_ = 0;
  std::map<std::pair<int, int>, std::vector<GradientEntry>> gradients_;  // by input and column
  std::map<std::vector<Mask>, std::int32_t> group_slots_;
};

}  // namespace

Tables make_tables(const Plan& plan) { return TableMaker(plan).run(); }

std::size_t Tables::bytes() const {
  std::size_t end = 0;
  place(nullptr, [&](std::size_t offset, const void*, std::size_t bytes) { end = offset + bytes; });
  return detail::aligned(end);
}

}  // namespace ketgrad::cuda

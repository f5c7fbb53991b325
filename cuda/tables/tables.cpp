#include "cuda/tables/tables.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>
#include <tuple>
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
    for (std::size_t p = 0; p < plan_.passes.size(); ++p) add_pass(p);
    for (const GateOp& gate_op : plan_.gate_ops) add_gate_op(gate_op);
    add_words();
    for (const PlannedMeasurement& m : plan_.measurements) add_measurement(m);
    add_elements();
    add_initial_amplitudes();
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

  // Vectors with a number for each of their sums.
  struct Numbered {
    Mask origin = 0;
    std::vector<Mask> basis;

    bool operator<(const Numbered& o) const { return std::tie(origin, basis) < std::tie(o.origin, o.basis); }
  };

  static Numbered numbered(const IndexMap& map) { return {static_cast<Mask>(map[0]), basis_of(map)}; }

  // Calls f(sum) in the order of numbers.
  template <class E, class F>
  static void for_each_sum(E origin, const std::vector<E>& basis, const F& f) {
    E sum = origin;
    for (std::size_t number = 0; number < std::size_t{1} << basis.size(); ++number) {
      f(sum);
      // The next number has other lowest bits, up to its lowest that is set.
      const int changed = std::countr_zero(number + 1);
      for (int b = 0; b <= changed && b < static_cast<int>(basis.size()); ++b) sum ^= basis[b];
    }
  }

  // HugePages of later layers often have the groups of earlier ones.
  std::int32_t slots_of(const Numbered& groups) {
    const auto [at, is_new] = group_slots_.try_emplace(groups, static_cast<std::int32_t>(tables_.slots.size()));
    if (is_new) {
      std::vector<std::uint16_t> slots;
      for_each_sum<Mask>(groups.origin, groups.basis,
                         [&](Mask row) { slots.push_back(static_cast<std::uint16_t>(slot(static_cast<Local>(row)))); });
      append(tables_.slots, slots);
    }
    return at->second;
  }

  // --- signs ---------------------------------------------------------------------------------------------------------

  // A mask whose parity is a sign: over the coordinates of a tile, and over its base.
  struct SignMask {
    Local row = 0;
    Mask tile = 0;
  };

  // A word of the parities of masks with a vector, bit by bit.
  template <class F>
  static std::uint32_t word_of(const std::vector<SignMask>& masks, const F& is_odd) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < masks.size(); ++i) word |= std::uint32_t{is_odd(masks[i])} << i;
    return word;
  }

  static std::uint32_t word_of_tile(const std::vector<SignMask>& masks, Mask base) {
    return word_of(masks, [&](const SignMask& m) { return odd_parity(m.tile & base); });
  }

  // Bit i of the words is masks[i]'s.
  Signs signs_of(const std::vector<SignMask>& masks, const Numbered& groups) {
    const auto of_row = [&](Mask row) {
      return word_of(masks, [&](const SignMask& m) { return odd_parity(m.row & row); });
    };
    std::vector<std::uint32_t> vectors;
    for (const Mask v : groups.basis) vectors.push_back(of_row(v));
    const auto middle = vectors.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(lane_bits, vectors.size()));
    std::vector<std::uint32_t> words;
    const auto add = [&](std::uint32_t origin, const std::vector<std::uint32_t>& basis) {
      words.clear();
      for_each_sum(origin, basis, [&](std::uint32_t word) { words.push_back(word); });
    };
    Signs signs;
    add(0, {vectors.begin(), middle});
    words.resize(most_signs, 0);  // lanes without a group
    signs.lanes = append(tables_.words_of_bits, words).first;
    add(of_row(groups.origin), {middle, vectors.end()});
    signs.warps = append(tables_.words_of_bits, words).first;
    signs.tile = tile_words_.add([&](Mask base) { return word_of_tile(masks, base); });
    return signs;
  }

  // The words of a pass's tiles.
  class TileWordMaker {
   public:
    void begin(const Numbered& tiles) {
      tiles_ = tiles;
      words_.clear();
      known_.clear();
    }

    // f(base) is affine. Returns which of the words this is: many operations have the same.
    template <class F>
    std::int32_t add(const F& f) {
      const std::vector<std::uint32_t> word = word_of(f);
      const auto [at, is_new] = known_.try_emplace(word, count());
      if (is_new) words_.push_back(word);
      return at->second;
    }

    // Of 64 bits: two words, one after the other.
    template <class F>
    std::int32_t add_wide(const F& f) {
      words_.push_back(word_of([&](Mask base) { return f(base) & 0xffffffff; }));
      words_.push_back(word_of([&](Mask base) { return f(base) >> 32; }));
      return count() - 2;
    }

    // [origin, bits][word]
    std::vector<std::uint32_t> list() const {
      std::vector<std::uint32_t> list;
      for (std::size_t v = 0; v <= tiles_.basis.size(); ++v) {
        for (const auto& word : words_) list.push_back(word[v]);
      }
      return list;
    }

    std::int32_t count() const { return static_cast<std::int32_t>(words_.size()); }

   private:
    // Of the origin, and what each vector adds.
    template <class F>
    std::vector<std::uint32_t> word_of(const F& f) const {
      std::vector<std::uint32_t> word{static_cast<std::uint32_t>(f(tiles_.origin))};
      for (const Mask v : tiles_.basis) word.push_back(static_cast<std::uint32_t>(f(tiles_.origin ^ v)) ^ word[0]);
      return word;
    }

    Numbered tiles_;
    std::vector<std::vector<std::uint32_t>> words_;
    std::map<std::vector<std::uint32_t>, std::int32_t> known_;
  };

  TileWords finish_tile_words() {
    const std::int32_t base = tile_words_.add_wide([](Mask base) { return base; });
    return {append(tables_.words_of_bits, tile_words_.list()).first, tile_words_.count(), base};
  }

  // Sorts by pattern; the list begins at `first` of its array.
  template <class E>
  static Patterns sort_patterns(std::vector<E>& list, std::size_t first) {
    std::stable_sort(list.begin(), list.end(), [](const E& a, const E& b) { return a.pattern < b.pattern; });
    Patterns patterns;
    patterns.first = static_cast<std::int32_t>(first);
    for (int p = 0; p < thread_rows; ++p) {
      const auto count = std::count_if(list.begin(), list.end(), [&](const E& e) { return e.pattern <= p; });
      patterns.ends |= static_cast<std::uint64_t>(count) << (8 * p);
    }
    return patterns;
  }

  // Which of the vectors have an odd parity with a mask: the mask as one over the bits of their sums.
  static Local odd_ones(Mask mask, const std::vector<Mask>& vectors) {
    Local found = 0;
    for (std::size_t b = 0; b < vectors.size(); ++b) found |= Local{odd_parity(mask & vectors[b])} << b;
    return found;
  }

  static int bits_of(const IndexMap& map) { return std::countr_zero(static_cast<Mask>(map.size())); }

  // --- values and their gradients ------------------------------------------------------------------------------------

  // The sources of `slots`, one each, for the gradients of their inputs.
  int add_single_sources(const std::vector<Slot>& slots) {
    const int first = tables_.single_sources;
    for (const Slot& s : slots) entries_of(s).push_back({single_source(tables_.single_sources++), s.scale});
    return first;
  }

  // Single sources follow the angles, whose number is not known yet.
  static std::int32_t single_source(int number) { return -1 - number; }

  std::vector<GradientEntry>& entries_of(const Slot& slot) { return gradients_[{slot.input, slot.column}]; }

  void add_angle(int number, const std::vector<int>& rotations) {
    std::vector<Slot> values;
    for (const int t : rotations) {
      const Slot& slot = plan_.rotations[t].angle;
      const double sign = is_negated(t) ? -1 : 1;
      values.push_back({slot.input, slot.column, sign * slot.scale, sign * slot.offset});
      if (slot.input != no_input) entries_of(slot).push_back({number, sign * slot.scale});
    }
    const bool constant = std::all_of(values.begin(), values.end(), [](const Slot& v) { return v.input == no_input; });
    tables_.angles[number] = {append(tables_.values, values), constant ? 1 : 0};
  }

  // -i P is a real matrix that takes an even row to its partner times +1 or -1; a diagonal word has a sign of its own.
  bool is_negated(int rotation) const {
    const PauliWord& word = plan_.rotations[rotation].pauli_word;
    return (!word.is_diagonal() && word.y_count % 4 == 3) != word.negative;
  }

  // --- passes --------------------------------------------------------------------------------------------------------

  void count_rotations(const Pass& pass) {
    for (const TileOp& op : pass.operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) rotations_ += static_cast<int>(block->rotations.size());
    }
  }

  void add_pass(std::size_t number) {
    const Pass& pass = plan_.passes[number];
    TilePass found;
    found.gate_op = pass.gate_op;
    if (pass.gate_op == Element::none) {
      found.tile_bits = bits_of(pass.rows);
      found.tiles = pass.num_active_tiles;
      found.rows = append(tables_.vectors, basis_of(pass.rows));
      tile_words_.begin(numbered(pass.tiles));
      found.before = support_map(pass.before, pass);
      // After an unfused gate, and where measurements are next, states are in memory as a whole.
      const bool goes_on = number + 1 < plan_.passes.size() && plan_.passes[number + 1].gate_op == Element::none;
      if (goes_on) found.after = support_map(plan_.passes[number + 1].before, pass);
      found.operations = append(tables_.operations, operations_of(pass));
      Range groups;
      const bool measures = last_pass_measures() && number + 1 == plan_.passes.size();
      if (measures) groups = flip_groups(plan_.observables[0]);
      found.tile_words = finish_tile_words();
      if (measures)
        tables_.word_passes.push_back({found.tile_bits, pass.tiles.size(), found.rows, found.tile_words, groups});
      tables_.covered |= !after_gate_op_ && pass.num_active_tiles == pass.tiles.size();
    }
    after_gate_op_ |= pass.gate_op != Element::none;
    tables_.passes.push_back(found);
    tables_.pass_inputs.push_back(pass.inputs);
  }

  bool last_pass_measures() const { return !plan_.observables.empty() && plan_.observables[0].in_last_pass; }

  // In the coordinates of a pass.
  SupportMap support_map(const Support& support, const Pass& pass) {
    SupportMap map;
    map.everywhere = support.everywhere || pass.tiles.size() == 1 ? 1 : 0;
    if (map.everywhere != 0) return map;
    map.tile = tile_words_.add_wide([&](Mask base) { return support.span.reduce(base ^ support.origin); });
    std::vector<Mask> rows;
    for (const Mask v : basis_of(pass.rows)) rows.push_back(support.span.reduce(v));
    map.rows = append(tables_.vectors, rows);
    return map;
  }

  // A string that waits for the rotations behind it.
  struct Waiting {
    SignMask mask;
    const PhaseString* string = nullptr;
  };

  // A thread that has rows to rotate gives them their phases first. Those that find no slot wait on where they commute
  // with the rotations, which is where their pattern is zero; else, and where no rotations are left, they are
  // operations of their own.
  std::vector<TableOp> operations_of(const Pass& pass) {
    const std::vector<Mask> rows = basis_of(pass.rows);
    std::vector<TableOp> operations;
    std::vector<Waiting> waiting;
    const auto flush = [&] {
      while (!waiting.empty()) operations.push_back(phases(waiting, static_cast<int>(rows.size())));
    };
    for (const TileOp& op : pass.operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) {
        const TableOp rotated = rotations(*block, waiting, static_cast<int>(rows.size()));
        std::vector<Waiting> later;
        std::erase_if(waiting, [&](const Waiting& w) {
          const bool commutes = std::ranges::none_of(
              block->row_flip, [&](Index flip) { return odd_parity(w.mask.row & static_cast<Mask>(flip)); });
          if (commutes) later.push_back(w);
          return commutes;
        });
        flush();
        operations.push_back(rotated);
        waiting = std::move(later);
      } else {
        for (const PhaseString& s : std::get<Phases>(op).strings)
          waiting.push_back({{odd_ones(s.tile_mask, rows), s.tile_mask}, &s});
      }
    }
    flush();
    return operations;
  }

  // Takes strings off those that wait.
  TableOp rotations(const RotationBlock& block, std::vector<Waiting>& waiting, int tile_bits) {
    TableOp op;
    op.rotations = static_cast<std::int32_t>(block.rotations.size());
    op.first_angle = rotations_;
    op.num_active = static_cast<std::int32_t>(block.num_active);
    std::vector<SignMask> signs;
    for (int j = 0; j < op.rotations; ++j) {
      add_angle(rotations_++, {block.rotations[j]});
      signs.push_back({0, block.tile_sign[j]});  // the first rows of groups are even
    }
    op.rotation_signs = tile_words_.add([&](Mask base) { return word_of_tile(signs, base); });
    std::vector<Mask> flips;
    for (const Index f : block.row_flip) flips.push_back(static_cast<Mask>(f));
    finish(op, std::move(flips), numbered(block.groups), waiting, tile_bits);
    return op;
  }

  // Rows are grouped so that the strings have as different patterns as they may.
  TableOp phases(std::vector<Waiting>& waiting, int tile_bits) {
    std::vector<int> bits(tile_bits);
    std::iota(bits.begin(), bits.end(), 0);
    const auto unevenness = [&](int bit) {
      const auto odd = [&](const Waiting& w) { return ((w.mask.row >> bit) & 1) != 0; };
      return std::abs(2 * std::count_if(waiting.begin(), waiting.end(), odd) - std::ssize(waiting));
    };
    std::stable_sort(bits.begin(), bits.end(), [&](int a, int b) { return unevenness(a) > unevenness(b); });
    std::sort(bits.begin(), bits.begin() + std::max(0, tile_bits - thread_row_bits));
    TableOp op;
    Numbered groups;
    for (const int b : bits) groups.basis.push_back(unit(b));
    op.num_active = std::int32_t{1} << tile_bits;
    finish(op, {}, std::move(groups), waiting, tile_bits);
    return op;
  }

  // The groups of an operation, given those of the rows that it rotates, and its strings.
  void finish(TableOp& op, std::vector<Mask> flips, Numbered groups, std::vector<Waiting>& waiting, int tile_bits) {
    // Groups of fewer rows than a thread holds go together. Those outside the support come last, and stay so.
    for (int b = tile_bits; b < thread_row_bits; ++b) groups.basis.push_back(unit(b));
    while (flips.size() < thread_row_bits) {
      flips.push_back(groups.basis.back());
      groups.basis.pop_back();
    }
    op.num_active = std::min(op.num_active, std::int32_t{1} << groups.basis.size());
    spread(groups.basis, std::countr_zero(static_cast<std::uint32_t>(op.num_active)));
    op.groups = slots_of(groups);
    for (int k = 0; k < thread_row_bits; ++k) op.flip[k] = slot(static_cast<Local>(flips[k]));
    take_strings(op, flips, groups, waiting);
  }

  // Sixteen threads at a time access shared memory, at once if their slots differ in the lowest bits. Takes first, of
  // the vectors that span num_active groups, those that make them differ.
  static void spread(std::vector<Mask>& basis, int num_active) {
    constexpr Local bank = 15;
    Span banks;
    std::vector<Mask> first;
    std::vector<Mask> then;
    for (int b = 0; b < num_active; ++b)
      (banks.add(slot(static_cast<Local>(basis[b])) & bank) ? first : then).push_back(basis[b]);
    std::ranges::copy(first, basis.begin());
    std::ranges::copy(then, basis.begin() + std::ssize(first));
  }

  void take_strings(TableOp& op, const std::vector<Mask>& flips, const Numbered& groups,
                    std::vector<Waiting>& waiting) {
    const std::vector<Mask> lanes(groups.basis.begin(),
                                  groups.basis.begin() + std::min<std::ptrdiff_t>(lane_bits, std::ssize(groups.basis)));
    std::vector<StringSlot> slots(most_layers * layer_strings);
    std::vector<std::vector<SignMask>> masks(most_layers, std::vector<SignMask>(layer_strings));
    std::vector<Waiting> left;
    for (const Waiting& w : waiting) {
      const int place = find_slot(slots, static_cast<int>(odd_ones(w.mask.row, flips)));
      if (place < 0) {
        left.push_back(w);
        continue;
      }
      const auto angle = static_cast<std::int32_t>(tables_.angles.size());
      tables_.angles.emplace_back();
      add_angle(angle, w.string->rotations);
      slots[place] = {angle - tables_.rotations, static_cast<std::int32_t>(odd_ones(w.mask.row, lanes))};
      masks[place / layer_strings][place % layer_strings] = w.mask;
      op.layers = std::max(op.layers, place / layer_strings + 1);
    }
    waiting = std::move(left);
    slots.resize(static_cast<std::size_t>(op.layers) * layer_strings);
    op.first_string = append(tables_.strings, slots).first;
    for (int l = 0; l < op.layers; ++l) op.signs[l] = signs_of(masks[l], groups);
  }

  // The first that is free for a string of this pattern; -1 if none is.
  static int find_slot(const std::vector<StringSlot>& slots, int pattern) {
    for (int l = 0; l < most_layers; ++l) {
      for (int j = 0; j < pattern_strings; ++j) {
        const int place = l * layer_strings + pattern * pattern_strings + j;
        if (slots[place].string < 0) return place;
      }
    }
    return -1;
  }

  void add_gate_op(const GateOp& gate_op) {
    const Gate& gate = program_.gates[gate_op.gate];
    const GateInfo& info = gate_info(gate.opcode);
    TableGateOp s;
    s.kind = gate_op.kind;
    s.size = gate_op.size();
    s.groups = map_of(gate_op.groups);
    s.offsets = append(tables_.vectors, std::vector<Mask>(gate_op.offsets.begin(), gate_op.offsets.end()));
    s.pauli_word = gate_op.pauli_word;
    s.formula = info.formula;
    s.family = info.family;
    s.inverse = gate.inverse ? 1 : 0;
    s.values = append(tables_.values, gate.slots);
    s.input = gate.input;
    s.first_source = add_single_sources(gate.slots);
    if (gate_op.kind == GateOpKind::dense) tables_.largest_gate_op = std::max(tables_.largest_gate_op, s.size);
    tables_.gate_ops.push_back(s);
  }

  // --- measurements --------------------------------------------------------------------------------------------------

  int add_coefficient(const Term& term) {
    const Range values = append(tables_.values, term.coefficients);
    tables_.coefficients.push_back({term.scale, values, add_single_sources(term.coefficients)});
    return static_cast<int>(tables_.coefficients.size()) - 1;
  }

  void add_words() {
    tables_.real_results = program_.real_results();
    tables_.complex_results = program_.complex_results();
    tables_.last_pass_measures = last_pass_measures();
    for (std::size_t p = tables_.word_passes.size(); p < plan_.observables.size(); ++p) {
      const ObservablePass& pass = plan_.observables[p];
      tile_words_.begin(numbered(pass.tiles));
      const Range groups = flip_groups(pass);
      tables_.word_passes.push_back({bits_of(pass.rows), pass.tiles.size(),
                                     append(tables_.vectors, basis_of(pass.rows)), finish_tile_words(), groups});
    }
    std::vector<std::vector<std::int32_t>> of_result(tables_.real_results);
    for (std::size_t w = 0; w < tables_.words.size(); ++w)
      of_result[tables_.words[w].result].push_back(static_cast<std::int32_t>(w));
    for (std::size_t r = 0; r < of_result.size(); ++r) {
      if (!of_result[r].empty())
        tables_.word_results.push_back({static_cast<std::int32_t>(r), append(tables_.word_lists, of_result[r])});
    }
  }

  Range flip_groups(const ObservablePass& pass) {
    std::vector<FlipGroup> groups;
    for (const PauliGroup& group : pass.groups) add_flip_groups(groups, group, pass);
    return append(tables_.flip_groups, groups);
  }

  using Members = std::vector<PauliGroup::Member>;

  // As many as its words take, so many at a time as signs are there for.
  void add_flip_groups(std::vector<FlipGroup>& groups, const PauliGroup& group, const ObservablePass& pass) {
    Members real;
    Members imaginary;
    for (const PauliGroup::Member& m : group.members) ((m.quarter & 1) != 0 ? imaginary : real).push_back(m);
    const auto flip = static_cast<Local>(group.row_flip);
    for (std::size_t first = 0; first < std::max(real.size(), imaginary.size()); first += most_signs) {
      groups.push_back({slot(flip), word_list(some_from(real, first), flip, pass),
                        word_list(some_from(imaginary, first), flip, pass)});
    }
  }

  static Members some_from(const Members& members, std::size_t first) {
    const std::size_t begin = std::min(first, members.size());
    const std::size_t end = std::min(first + most_signs, members.size());
    return {members.begin() + static_cast<std::ptrdiff_t>(begin), members.begin() + static_cast<std::ptrdiff_t>(end)};
  }

  // A round through a tile gives thread k the rows k + u * threads of it: u is the row in its group.
  WordList word_list(const Members& members, Local flip, const ObservablePass& pass) {
    struct Found {
      const PauliGroup::Member* member;
      std::int32_t pattern;
    };
    const int tile_bits = bits_of(pass.rows);
    const int thread_bits = thread_bits_of(tile_bits);
    Numbered groups;
    for (int b = 0; b < tile_bits; ++b) {
      if (b < thread_bits || b >= thread_bits + thread_row_bits) groups.basis.push_back(unit(b));
    }
    std::vector<Found> words;
    for (const PauliGroup::Member& m : members)
      words.push_back({&m, static_cast<std::int32_t>((m.row_mask >> thread_bits) & (thread_rows - 1))});
    WordList list;
    list.words = sort_patterns(words, tables_.words.size());
    if (words.empty()) return list;
    std::vector<SignMask> masks(most_signs);
    std::uint32_t bit = std::uint32_t{1} << (most_signs - 1);
    for (std::size_t i = 0; i < words.size(); ++i, bit /= 2) {
      const PauliGroup::Member& m = *words[i].member;
      masks[most_signs - 1 - i] = {static_cast<Local>(m.row_mask), m.tile_mask};
      if (m.quarter >= 2) list.of_values |= bit;
      if ((m.quarter >= 2) != odd_parity(m.row_mask & flip)) list.of_rows |= bit;
      tables_.words.push_back({static_cast<std::int32_t>(m.result), add_coefficient(*m.term), words[i].pattern,
                               static_cast<std::int32_t>(m.row_mask & ((1 << lane_bits) - 1))});
    }
    list.signs = signs_of(masks, groups);
    return list;
  }

  void add_measurement(const PlannedMeasurement& m) {
    TableMeasurement found;
    found.kind = m.measurement->kind;
    found.first_result = m.first_result;
    for (const PlannedTerm& term : m.terms) {
      ObservableTerm t{add_coefficient(*term.term), term.pauli_word, {}};
      for (const PlannedFactor& f : term.factors) t.factors.push_back(factor_of(f));
      found.terms.push_back(std::move(t));
    }
    const bool of_words = found.kind == MeasurementKind::expval;
    const bool observes = measurement_info(found.kind).subject == Subject::observable;
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

  void add_initial_amplitudes() {
    tables_.preparation = program_.initial.kind;
    tables_.initial = plan_.initial;
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
  bool after_gate_op_ = false;
  std::map<std::pair<int, int>, std::vector<GradientEntry>> gradients_;  // by input and column
  std::map<Numbered, std::int32_t> group_slots_;
  TileWordMaker tile_words_;  // of the pass at hand
};

}  // namespace

Tables make_tables(const Plan& plan) { return TableMaker(plan).run(); }

std::size_t Tables::bytes() const {
  std::size_t end = 0;
  place(nullptr, [&](std::size_t offset, const void*, std::size_t bytes) { end = offset + bytes; });
  return detail::aligned(end);
}

}  // namespace ketgrad::cuda

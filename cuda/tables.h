// A plan as flat tables, which kernels read: a vector of vectors on the host is ranges of one array here.
//
// Tiles have no lanes on a GPU: a row is one amplitude. In a tile an amplitude has coordinates (bits of a number below
// 2^tile_bits) and a slot in shared memory. Slots are a linear map of coordinates (see `slot`), so flips and groups are
// kept as slots already.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/gate_table.h"
#include "core/host_device.h"
#include "core/plan.h"

namespace ketgrad::cuda {

using Local = std::uint32_t;  // coordinates, slots and masks within a tile

struct Range {
  std::int32_t first = 0;
  std::int32_t count = 0;
};

// The index of r: origin + sum of vectors[j] over the bits j of r.
struct Map {
  Mask origin = 0;
  Range vectors;  // of Tables::vectors

  KETGRAD_HOST_DEVICE Index size() const { return Index{1} << vectors.count; }
};

// scale * input[column] + offset; of no input, the offset.
struct Value {
  std::int32_t input = no_input;
  std::int32_t column = 0;
  double scale = 0;
  double offset = 0;
};

// A sum of values: what a turn, or all turns of one diagonal word, turn by. `is_constant`: it reads no input.
struct Angle {
  Range values;  // of Tables::values
  std::int32_t is_constant = 0;
};

// A thread goes through phases and words with so many rows of its own at a time: rows start + thread + u * threads. The
// parity of a mask over them is that of (start + thread) times that of u * threads, and the latter is the same for all
// threads: a pattern, three bits of the mask. What has one pattern lies together in the tables.
inline constexpr int own_row_bits = 3;
inline constexpr int own_rows = 1 << own_row_bits;

// Threads of a block, as a power of two: whole warps, and as many as leave each enough registers for the way back.
KETGRAD_HOST_DEVICE constexpr int thread_bits_of(int tile_bits) {
  return tile_bits - own_row_bits < 5 ? 5 : tile_bits - own_row_bits > 8 ? 8 : tile_bits - own_row_bits;
}
KETGRAD_HOST_DEVICE constexpr int threads_of(int tile_bits) { return 1 << thread_bits_of(tile_bits); }

// A list in the order of patterns: those of pattern p end at end[p].
struct Patterns {
  std::int32_t first = 0;
  std::int32_t end[own_rows] = {};
};

// A block of turns that mix the 2^turns rows of a group, or phases (turns = 0).
struct Operation {
  std::int32_t turns = 0;
  std::int32_t first_angle = 0;          // of the block's turns, one after the other
  Local flip[TurnBlock::most] = {};      // slots
  Mask tile_sign[TurnBlock::most] = {};  // the parity of (tile's base & this) turns the angle around
  std::int32_t groups = 0;               // where the slots of the groups' first rows are among Tables::slots
  Patterns strings;
};

struct ZString {
  Local row_mask = 0;  // over coordinates
  Mask tile_mask = 0;
};

struct TilePass {
  std::int32_t step = Element::none;  // a step of its own; else:
  std::int32_t tile_bits = 0;
  Map tiles;
  Map rows;  // the index of coordinates, the tile's base left out
  Range operations;
};

// A Pauli word of an expectation value: P|q> = i^quarter (-1)^parity |q ^ flip>.
struct Word {
  Local row_mask = 0;
  Mask tile_mask = 0;
  std::int32_t quarter = 0;
  std::int32_t result = 0;
  std::int32_t term = 0;
};

// A real result that is a sum of words: a range of Tables::word_lists.
struct WordResult {
  std::int32_t result = 0;
  Range words;
};

struct FlipGroup {
  Local flip = 0;      // coordinates
  Patterns real;       // words of even quarter
  Patterns imaginary;  // and of odd
};

struct WordPass {
  std::int32_t tile_bits = 0;
  Map tiles;
  Map rows;
  Range groups;
};

// scale * product of values
struct Coefficient {
  double scale = 1;
  Range values;
  std::int32_t first_source = 0;  // of its values' gradients, among the single sources
};

// One gate that is a pass of its own.
struct GateStep {
  StepKind kind = StepKind::dense;
  std::int32_t size = 0;
  Map groups;
  Range offsets;  // of Tables::vectors
  PauliWord word;
  Formula formula = Formula::none;
  Family family = Family::block;
  std::int32_t inverse = 0;
  Range values;  // its parameters
  std::int32_t input = no_input;
  std::int32_t first_source = 0;  // of its parameters' gradients, among the single sources
};

struct ObservableFactor {
  FactorKind kind = FactorKind::hermitian;
  std::int32_t input = no_input;
  Map groups;
  Map offsets;
  Index kept = 0;
  // Of a sparse matrix: entry k is at (entry_rows[k], entry_columns[k]); row a has the entries row_entries[...] from
  // row_starts[a] to row_starts[a + 1], and so have columns.
  Range entry_rows;
  Range entry_columns;
  Range row_starts;
  Range row_entries;
  Range column_starts;
  Range column_entries;
};

struct ObservableTerm {
  std::int32_t coefficient = 0;
  PauliWord word;
  std::vector<ObservableFactor> factors;
};

struct TableMeasurement {
  MeasurementKind kind = MeasurementKind::expval;
  Index first_result = 0;
  std::vector<ObservableTerm> terms;
  Map groups;
  Map offsets;
};

// The gradient of a real input's element: a weighted sum of sources. Source s below the number of angles is the overlap
// of that angle; above, a single source.
struct GradientElement {
  std::int32_t input = 0;
  std::int32_t column = 0;
  Range entries;
};

struct GradientEntry {
  std::int32_t source = 0;
  double weight = 0;
};

// What kernels get: addresses on the device.
struct TablesView {
  const Mask* vectors = nullptr;
  const std::uint16_t* slots = nullptr;
  const Value* values = nullptr;
  const Angle* angles = nullptr;
  const Operation* operations = nullptr;
  const ZString* strings = nullptr;  // string s has the angle rotations + s
  const TilePass* passes = nullptr;
  const Word* words = nullptr;
  const FlipGroup* flip_groups = nullptr;
  const Coefficient* coefficients = nullptr;
  const WordResult* word_results = nullptr;
  const std::int32_t* word_lists = nullptr;
  const std::int64_t* entries = nullptr;  // of sparse matrices
  const GradientElement* elements = nullptr;
  const GradientEntry* gradient_entries = nullptr;
  std::int32_t rotations = 0;  // so many angles, from the first on, are of turns; those of strings follow
};

struct Tables {
  std::vector<Mask> vectors;
  std::vector<std::uint16_t> slots;
  std::vector<Value> values;
  std::vector<Angle> angles;
  std::vector<Operation> operations;
  std::vector<ZString> strings;
  std::vector<TilePass> passes;
  std::vector<Word> words;
  std::vector<FlipGroup> flip_groups;
  std::vector<Coefficient> coefficients;
  std::vector<WordResult> word_results;
  std::vector<std::int32_t> word_lists;
  std::vector<std::int64_t> entries;
  std::vector<GradientElement> elements;
  std::vector<GradientEntry> gradient_entries;
  std::int32_t rotations = 0;

  // For the host alone.
  int num_wires = 0;
  std::vector<GateStep> steps;
  std::vector<WordPass> word_passes;
  std::vector<TableMeasurement> measurements;
  std::vector<std::vector<int>> pass_inputs;  // that a pass reads
  int single_sources = 0;
  Preparation preparation = Preparation::zero;
  Start start;
  Map initial_offsets;
  Range identity;  // the unit vectors
  int initial_input = no_input;
  Index real_results = 0;
  Index complex_results = 0;
  int largest_step = 1;  // rows of the largest matrix of a step
  bool whole = false;    // a tile holds a state
  bool needs_scratch = false;
  bool only_words = true;  // nothing but Pauli words is measured

  Index angle_count() const { return static_cast<Index>(angles.size()); }

  // Bytes of the arrays together, each on a multiple of 16.
  std::size_t bytes() const;

  // Calls copy(offset, source, bytes) for each array; the view has the addresses from `base` on.
  template <class Copy>
  TablesView place(unsigned char* base, const Copy& copy) const;
};

// Tables of a plan whose layout has neither lanes nor parts.
Tables make_tables(const Plan& plan);

// Where coordinates lie in shared memory. Threads of a warp reach for coordinates that differ in any few bits; folding
// the higher bits onto those that choose the bank keeps them apart.
KETGRAD_HOST_DEVICE inline Local slot(Local coordinates) {
  return coordinates ^ ((coordinates >> 4) & 15) ^ ((coordinates >> 8) & 15);
}

namespace detail {

inline constexpr std::size_t alignment = 16;
constexpr std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace detail

template <class Copy>
TablesView Tables::place(unsigned char* base, const Copy& copy) const {
  TablesView view;
  std::size_t offset = 0;
  const auto put = [&](const auto& array, auto& address) {
    using E = typename std::decay_t<decltype(array)>::value_type;
    address = reinterpret_cast<const E*>(reinterpret_cast<std::uintptr_t>(base) + offset);
    if (!array.empty()) copy(offset, array.data(), array.size() * sizeof(E));
    offset += detail::aligned(array.size() * sizeof(E));
  };
  put(vectors, view.vectors);
  put(slots, view.slots);
  put(values, view.values);
  put(angles, view.angles);
  put(operations, view.operations);
  put(strings, view.strings);
  put(passes, view.passes);
  put(words, view.words);
  put(flip_groups, view.flip_groups);
  put(coefficients, view.coefficients);
  put(word_results, view.word_results);
  put(word_lists, view.word_lists);
  put(entries, view.entries);
  put(elements, view.elements);
  put(gradient_entries, view.gradient_entries);
  view.rotations = rotations;
  return view;
}

}  // namespace ketgrad::cuda

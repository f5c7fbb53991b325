// A plan as flat tables, which kernels read: a vector of vectors on the host is ranges of one array here.
//
// Tiles have no lanes on a GPU: a row is one amplitude. In a tile an amplitude has coordinates (bits of a number below
// 2^tile_bits) and a slot in shared memory. Slots are a linear map of coordinates (see `slot`), so flips and groups are
// kept as slots already.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "math/host_device.h"
#include "plan/plan.h"
#include "program/gate_table.h"

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

// A sum of slots: the angle of a rotation, or of all rotations of one diagonal word. `is_constant`: it reads no input.
struct Angle {
  Range values;  // of Tables::values
  std::int32_t is_constant = 0;
};

// A thread holds so many amplitudes at a time: a group of rows. Which of them one is are three bits.
inline constexpr int thread_row_bits = 3;
inline constexpr int thread_rows = 1 << thread_row_bits;

// A warp has 2^5 lanes.
inline constexpr int lane_bits = 5;

// Groups of a tile. One of fewer rows than a thread holds has a group all the same, in part of zeros.
KETGRAD_HOST_DEVICE constexpr int group_bits_of(int tile_bits) {
  return tile_bits < thread_row_bits ? 0 : tile_bits - thread_row_bits;
}

// Threads of a block, as a power of two: whole warps, and as many as leave each enough registers for the way back.
KETGRAD_HOST_DEVICE constexpr int thread_bits_of(int tile_bits) {
  return group_bits_of(tile_bits) < lane_bits ? lane_bits : group_bits_of(tile_bits) > 8 ? 8 : group_bits_of(tile_bits);
}
KETGRAD_HOST_DEVICE constexpr int threads_of(int tile_bits) { return 1 << thread_bits_of(tile_bits); }

// Rows in shared memory: a tile, filled up with zeros to as many as a block's threads hold.
KETGRAD_HOST_DEVICE constexpr int padded_bits(int tile_bits) {
  const int held = thread_bits_of(tile_bits) + thread_row_bits;
  return tile_bits < held ? held : tile_bits;
}

// What is linear in the number of a tile, of 32 bits each: the word of an origin plus one for each bit of the number.
struct TileWords {
  std::int32_t first = 0;  // of Tables::words_of_bits: [origin, bits][word]
  std::int32_t count = 0;
  std::int32_t base = 0;  // which of them has the low half of the tile's base; the next one has the high half
};

// Up to 32 signs, a bit each: the parities of masks over an index, its own bits left out. Parities are linear, so the
// word for a group of a tile is the sum of three: by the low five bits of the group's number, by its other bits, and by
// the tile.
inline constexpr int most_signs = 32;
struct Signs {
  std::int32_t lanes = 0;  // the first of 32 words of Tables::words_of_bits
  std::int32_t warps = 0;  // the first of one word for each 32 groups
  std::int32_t tile = 0;   // which of the pass's TileWords
};

// A list of at most 32 in the order of patterns: how the sign depends on the bits of the row in its group.
struct Patterns {
  std::int32_t first = 0;
  std::uint64_t ends = 0;  // a byte each: how many have that pattern or a lower one

  KETGRAD_HOST_DEVICE constexpr int end(int pattern) const { return static_cast<int>((ends >> (8 * pattern)) & 255); }
  KETGRAD_HOST_DEVICE constexpr int count() const { return end(thread_rows - 1); }
};

// Strings of phases come in layers, in each of which so many have one pattern: their phases have 2^4 products, by the
// signs of each.
inline constexpr int pattern_strings = 4;
inline constexpr int layer_strings = thread_rows * pattern_strings;
inline constexpr int layer_products = thread_rows << pattern_strings;
inline constexpr int most_layers = 2;
static_assert(layer_strings == most_signs);

// String s has the angle rotations + s. The sum over a warp of an amplitude's sign in it is found by a transform over
// the rows of a group, at its pattern, and then over lanes, in the lane of its mask over them.
struct StringSlot {
  std::int32_t string = -1;  // none
  std::int32_t lane = 0;
};

// Phases, and then rotations, of the rows of groups.
struct TableOp {
  std::int32_t rotations = 0;
  std::int32_t first_angle = 0;     // of the rotations, one after the other
  std::int32_t rotation_signs = 0;  // which of the pass's TileWords has their signs, from the lowest bit on
  Local flip[thread_row_bits] =
      {};                       // slots: what the bits of a row in its group add; the first are those of its rotations
  std::int32_t groups = 0;      // where the slots of the groups' first rows are among Tables::slots
  std::int32_t num_active = 0;  // the first `num_active` groups may be non-zero
  std::int32_t layers = 0;
  std::int32_t first_string = 0;  // of Tables::strings, [layer][pattern][pattern_strings]
  Signs signs[most_layers];       // in the same order
};

// Whether an amplitude may be other than zero: where a part of the tile and one of coordinates add up to zero.
struct SupportMap {
  std::int32_t everywhere = 1;
  std::int32_t tile = 0;  // which of the pass's TileWords, and the next
  Range rows;             // of Tables::vectors
};

struct TilePass {
  std::int32_t gate_op = Element::none;  // an unfused gate of its own; else:
  std::int32_t tile_bits = 0;
  Index tiles = 0;  // that are visited: the others are outside the support
  Range rows;       // of Tables::vectors: the index of coordinates, the tile's base left out
  SupportMap before;
  SupportMap after;
  TileWords tile_words;
  Range operations;
};

// A Pauli word of an expectation value; its sum over a warp is found like that of a string.
struct Word {
  std::int32_t result = 0;
  std::int32_t term = 0;
  std::int32_t pattern = 0;
  std::int32_t lane = 0;
};

// A real result that is a sum of words: a range of Tables::word_lists.
struct WordResult {
  std::int32_t result = 0;
  Range words;
};

// Up to 32 words of one flip, all of even quarter or all of odd: P|q> = i^quarter (-1)^parity |q ^ flip>. A row's group
// are the rows that a thread reads in one round through the tile.
struct WordList {
  Patterns words;
  Signs signs;
  std::uint32_t of_values = 0;  // signs besides: in <P>, the sum over q
  std::uint32_t of_rows = 0;    // and in P psi, whose row is q ^ flip
};

struct FlipGroup {
  Local flip = 0;  // a slot
  WordList real;   // of even quarter
  WordList imaginary;
};

struct WordPass {
  std::int32_t tile_bits = 0;
  Index tiles = 0;  // all
  Range rows;
  TileWords tile_words;
  Range groups;
};

// scale * product of values
struct Coefficient {
  double scale = 1;
  Range values;
  std::int32_t first_source = 0;  // of its values' gradients, among the single sources
};

// One gate that is a pass of its own.
struct TableGateOp {
  GateOpKind kind = GateOpKind::dense;
  std::int32_t size = 0;
  Map groups;
  Range offsets;  // of Tables::vectors
  PauliWord pauli_word;
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
  PauliWord pauli_word;
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
  const std::uint32_t* words_of_bits = nullptr;
  const Slot* values = nullptr;
  const Angle* angles = nullptr;
  const TableOp* operations = nullptr;
  const StringSlot* strings = nullptr;
  const TilePass* passes = nullptr;
  const Word* words = nullptr;
  const FlipGroup* flip_groups = nullptr;
  const Coefficient* coefficients = nullptr;
  const WordResult* word_results = nullptr;
  const std::int32_t* word_lists = nullptr;
  const std::int64_t* entries = nullptr;  // of sparse matrices
  const GradientElement* elements = nullptr;
  const GradientEntry* gradient_entries = nullptr;
  std::int32_t rotations = 0;  // so many angles, from the first on, are of rotations; those of strings follow
};

struct Tables {
  std::vector<Mask> vectors;
  std::vector<std::uint16_t> slots;
  std::vector<std::uint32_t> words_of_bits;
  std::vector<Slot> values;
  std::vector<Angle> angles;
  std::vector<TableOp> operations;
  std::vector<StringSlot> strings;
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
  std::vector<TableGateOp> gate_ops;
  std::vector<WordPass> word_passes;
  std::vector<TableMeasurement> measurements;
  std::vector<std::vector<int>> pass_inputs;  // that a pass reads
  int single_sources = 0;
  Preparation preparation = Preparation::zero;
  InitialAmplitudes initial;
  Map initial_offsets;
  Range identity;  // the unit vectors
  int initial_input = no_input;
  Index real_results = 0;
  Index complex_results = 0;
  int largest_gate_op = 1;  // rows of the largest matrix of an unfused gate
  bool whole = false;       // a tile holds a state
  bool covered = false;     // what is in memory after the first passes is a whole state: one of them visits every tile
  bool needs_scratch = false;
  bool only_words = true;           // nothing but Pauli words is measured
  bool last_pass_measures = false;  // the first word pass has the tiles of the last pass

  Index angle_count() const { return static_cast<Index>(angles.size()); }

  // Bytes of the arrays together, each on a multiple of 16.
  std::size_t bytes() const;

  // Calls copy(offset, source, bytes) for each array; the view has the addresses from `base` on.
  template <class Copy>
  TablesView place(unsigned char* base, const Copy& copy) const;
};

// Tables of a plan whose layout has neither lanes nor parts.
Tables make_tables(const Plan& plan);

// Where coordinates lie in shared memory. Threads of a warp reach for coordinates that differ in any few bits, and the
// lowest four bits choose the bank: the others are folded onto them by different multiples in the field of 16 elements,
// so that no two bits, and few sums of them, are folded alike. Linear.
KETGRAD_HOST_DEVICE constexpr Local slot(Local coordinates) {
  // Nibble v is v times 3, 5 and 15, modulo x^4 + x + 1.
  constexpr std::uint64_t by_3 = 0x2147ed8b9afc5630;
  constexpr std::uint64_t by_5 = 0x63c914be8d27fa50;
  constexpr std::uint64_t by_15 = 0xa5783ce1b4692df0;
  const auto folded = [](std::uint64_t multiples, Local nibble) {
    return static_cast<Local>(multiples >> (4 * (nibble & 15))) & 15;
  };
  return coordinates ^ folded(by_3, coordinates >> 4) ^ folded(by_5, coordinates >> 8) ^
         folded(by_15, coordinates >> 12);
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
  put(words_of_bits, view.words_of_bits);
  put(values, view.values);
  put(angles, view.angles);
  put(operations, view.operations);
  put(strings, view.strings);
  std::vector<TilePass> kernel_passes = passes;
  kernel_passes.emplace_back();  // kernels without a pass refer to one all the same
  put(kernel_passes, view.passes);
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

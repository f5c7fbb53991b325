// A plan as flat tables, which kernels read: a vector of vectors on the host becomes ranges of one array here.
//
// Slots are a linear map of coordinates (see tile_geometry.h), so flips and groups are stored as slots already.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "cuda/tables/tile_geometry.h"
#include "math/host_device.h"
#include "plan/plan.h"
#include "program/gate_table.h"

namespace ketgrad::cuda {

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

// A sum of values: the angle of a rotation, or of all rotations by one diagonal Pauli word. `is_constant`: it reads no
// input.
struct Angle {
  Range values;  // of Tables::values
  std::int32_t is_constant = 0;
};

// Up to 32 signs, a bit each: the parities of masks with an index.
using SignBits = std::uint32_t;
inline constexpr int most_signs = 32;

// 32 bits each that depend on a tile's number by an affine map: signs, and halves of indices of 64 bits. Stored as the
// value at the origin, and what each bit of the number adds.
struct TileSignBits {
  std::int32_t first = 0;  // of Tables::sign_bits: [origin, bits of the number][count]
  std::int32_t count = 0;
  std::int32_t base = 0;  // which one has the low half of the tile's base; the next one has the high half
};

// The signs of a group of a tile. Parities are linear, so they are the sum of three: by the low five bits of the
// group's number, which are the lane of the warp, by its other bits, and by the tile.
struct GroupSigns {
  std::int32_t warp_lanes = 0;  // the first of 32 of Tables::sign_bits
  std::int32_t warps = 0;       // the first of one for each 32 groups
  std::int32_t tile = 0;        // which of the pass's TileSignBits
};

// A list of at most 32 entries, sorted by pattern: the mask of the sign over the number of a row in its group.
struct Patterns {
  std::int32_t first = 0;
  std::uint64_t ends = 0;  // a byte each: how many have this pattern or a lower one

  KETGRAD_HOST_DEVICE constexpr int end(int pattern) const { return static_cast<int>((ends >> (8 * pattern)) & 255); }
  KETGRAD_HOST_DEVICE constexpr int count() const { return end(thread_rows - 1); }
};

// The Z-strings of an operation come in layers, with `pattern_strings` slots for each pattern: the phases of these have
// 2^4 products, one for each choice of signs.
inline constexpr int pattern_strings = 4;
inline constexpr int layer_strings = thread_rows * pattern_strings;
inline constexpr int layer_products = thread_rows << pattern_strings;
inline constexpr int most_layers = 2;
static_assert(layer_strings == most_signs);

// Z-string s has the angle rotations + s. Its sum over a warp, with an amplitude's sign, comes from a Hadamard
// transform over the rows of a group, at its pattern, and then over the lanes, in the lane that is its mask over them.
struct ZStringSlot {
  std::int32_t string = -1;  // -1: the slot is free
  std::int32_t warp_lane = 0;
};

// Phases and then rotations, on groups of rows.
struct TableOp {
  std::int32_t rotations = 0;
  std::int32_t first_angle = 0;     // of the rotations, one after the other
  std::int32_t rotation_signs = 0;  // which of the pass's TileSignBits has their signs, bit 0 first
  // Slots: what the bits of a row's number in its group add. The first are the flips of the rotations.
  Local flip[thread_row_bits] = {};
  std::int32_t groups = 0;      // the slots of the groups' first rows, among Tables::slots
  std::int32_t num_active = 0;  // the first `num_active` groups may be non-zero
  std::int32_t layers = 0;
  std::int32_t first_string = 0;  // of Tables::z_strings, [layer][pattern][pattern_strings]
  GroupSigns signs[most_layers];  // in the same order
};

// An amplitude may be non-zero where a mask of its tile and one of its coordinates add up to zero.
struct SupportMap {
  std::int32_t everywhere = 1;
  std::int32_t tile = 0;  // which of the pass's TileSignBits, and the next
  Range rows;             // of Tables::vectors
};

inline constexpr std::int32_t no_gate_op = -1;

struct TablePass {
  std::int32_t gate_op = no_gate_op;  // an unfused gate of its own; else:
  std::int32_t tile_bits = 0;
  Index tiles = 0;  // in the support; the others are not visited
  Range rows;       // of Tables::vectors: the index of coordinates, without the tile's base
  SupportMap before;
  SupportMap after;
  TileSignBits tile_sign_bits;
  Range operations;
};

// A Pauli word of an expectation value; its sum over a warp is found like that of a Z-string.
struct TablePauliWord {
  std::int32_t result = 0;
  std::int32_t term = 0;
  std::int32_t pattern = 0;
  std::int32_t warp_lane = 0;
};

// A real result that is a sum of Pauli words: a range of Tables::pauli_word_lists.
struct PauliWordResult {
  std::int32_t result = 0;
  Range pauli_words;
};

// Up to 32 Pauli words of one flip, all of even quarter or all of odd: P|q> = i^quarter (-1)^parity |q ^ flip>. A group
// is the rows that a thread reads in one round through the tile.
struct PauliWordList {
  Patterns pauli_words;
  GroupSigns signs;
  SignBits of_values = 0;  // more signs: in <P>, the sum over q
  SignBits of_rows = 0;    // and in P psi, whose row is q ^ flip
};

struct FlipGroup {
  Local flip = 0;      // a slot
  PauliWordList real;  // of even quarter
  PauliWordList imaginary;
};

struct PauliWordPass {
  std::int32_t tile_bits = 0;
  Index tiles = 0;  // all
  Range rows;
  TileSignBits tile_sign_bits;
  Range groups;
};

// scale * product of values
struct Coefficient {
  double scale = 1;
  Range values;
  std::int32_t first_source = 0;  // of the gradients of its values, among the single sources
};

// An unfused gate: a pass of its own.
struct TableGateOp {
  GateOpKind kind = GateOpKind::dense;
  std::int32_t size = 0;
  Map groups;
  Range offsets;  // of Tables::vectors
  Map entries;    // of an evolution
  PauliWord pauli_word;
  Formula formula = Formula::none;
  Family family = Family::block;
  std::int32_t inverse = 0;
  Range values;  // its parameters
  std::int32_t input = no_input;
  std::int32_t first_source = 0;  // of the gradients of its parameters, among the single sources
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

// The gradient of a real input's element: a weighted sum of sources. Source s is the overlap of angle s; beyond the
// angles, a single source.
struct GradientElement {
  std::int32_t input = 0;
  std::int32_t column = 0;
  Range entries;
};

struct GradientEntry {
  std::int32_t source = 0;
  double weight = 0;
};

// The tables as kernels get them: addresses on the device.
struct TablesView {
  const Mask* vectors = nullptr;
  const std::uint16_t* slots = nullptr;
  const SignBits* sign_bits = nullptr;
  const Slot* values = nullptr;
  const Angle* angles = nullptr;
  const TableOp* operations = nullptr;
  const ZStringSlot* z_strings = nullptr;
  const TablePass* passes = nullptr;
  const TablePauliWord* pauli_words = nullptr;
  const FlipGroup* flip_groups = nullptr;
  const Coefficient* coefficients = nullptr;
  const PauliWordResult* pauli_word_results = nullptr;
  const std::int32_t* pauli_word_lists = nullptr;
  const std::int64_t* entries = nullptr;  // of sparse matrices
  const GradientElement* elements = nullptr;
  const GradientEntry* gradient_entries = nullptr;
  std::int32_t rotations = 0;  // the first `rotations` angles; those of Z-strings follow
};

struct Tables {
  std::vector<Mask> vectors;
  std::vector<std::uint16_t> slots;
  std::vector<SignBits> sign_bits;
  std::vector<Slot> values;
  std::vector<Angle> angles;
  std::vector<TableOp> operations;
  std::vector<ZStringSlot> z_strings;
  std::vector<TablePass> passes;
  std::vector<TablePauliWord> pauli_words;
  std::vector<FlipGroup> flip_groups;
  std::vector<Coefficient> coefficients;
  std::vector<PauliWordResult> pauli_word_results;
  std::vector<std::int32_t> pauli_word_lists;
  std::vector<std::int64_t> entries;
  std::vector<GradientElement> elements;
  std::vector<GradientEntry> gradient_entries;
  std::int32_t rotations = 0;

  // For the host only.
  int num_wires = 0;
  std::vector<TableGateOp> gate_ops;
  std::vector<PauliWordPass> pauli_word_passes;
  std::vector<TableMeasurement> measurements;
  std::vector<std::vector<int>> pass_inputs;  // the inputs that a pass reads
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
  bool covered = false;     // a pass before the first unfused gate visits every tile, so all of the state is written
  bool needs_scratch = false;
  bool only_pauli_words = true;     // only Pauli words are measured
  bool last_pass_measures = false;  // the last pass measures the first pass over Pauli words

  Index angle_count() const { return static_cast<Index>(angles.size()); }

  // Bytes of the arrays together, each on a multiple of 16.
  std::size_t bytes() const;

  // Calls copy(offset, source, bytes) for each array; the view has the addresses from `base` on.
  template <class Copy>
  TablesView place(unsigned char* base, const Copy& copy) const;
};

// Tables of a plan whose layout has neither batch lanes nor parts.
Tables make_tables(const Plan& plan);

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
  put(sign_bits, view.sign_bits);
  put(values, view.values);
  put(angles, view.angles);
  put(operations, view.operations);
  put(z_strings, view.z_strings);
  std::vector<TablePass> kernel_passes = passes;
  kernel_passes.emplace_back();  // kernels without a pass refer to one all the same
  put(kernel_passes, view.passes);
  put(pauli_words, view.pauli_words);
  put(flip_groups, view.flip_groups);
  put(coefficients, view.coefficients);
  put(pauli_word_results, view.pauli_word_results);
  put(pauli_word_lists, view.pauli_word_lists);
  put(entries, view.entries);
  put(elements, view.elements);
  put(gradient_entries, view.gradient_entries);
  view.rotations = rotations;
  return view;
}

}  // namespace ketgrad::cuda

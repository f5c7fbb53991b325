// A plan as tables: what kernels take for granted about them.
#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "core/gpu_layout.h"
#include "cuda/tables.h"

namespace ketgrad::testing {
namespace {

using cuda::Local;
using cuda::Operation;
using cuda::Patterns;
using cuda::Tables;
using cuda::TilePass;

constexpr std::size_t hopper = std::size_t{227} << 10;

// RX of data, then layers of RZ RY RZ and a ring of CNOT.
Circuit layers(int num_wires, int count) {
  Circuit circuit = empty_circuit(num_wires);
  circuit.program.inputs[0].shape = {num_wires};
  circuit.program.inputs[1].shape = {3 * num_wires * count};
  for (int w = 0; w < num_wires; ++w) circuit.program.gates.push_back(make_gate("RX", {w}, {{0, w, 1, 0}}));
  int column = 0;
  for (int layer = 0; layer < count; ++layer) {
    for (int w = 0; w < num_wires; ++w) {
      for (const char* name : {"RZ", "RY", "RZ"})
        circuit.program.gates.push_back(make_gate(name, {w}, {{1, column++, 1, 0}}));
    }
    for (int w = 0; w < num_wires; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % num_wires}));
  }
  circuit.program.measurements = {{MeasurementKind::expval, {}, {}}};
  for (int w = 0; w < num_wires; ++w) {
    circuit.program.measurements[0].terms.push_back({1, {}, {w, (w + 1) % num_wires}, "ZZ", {}});
    circuit.program.measurements[0].terms.push_back({1, {}, {w}, "X", {}});
  }
  return circuit;
}

Tables tables_of(const Circuit& circuit) {
  const ProgramHandle program = register_program(circuit.program);
  return cuda::make_tables(program->plan(gpu_layout(circuit.program.num_wires, sizeof(float), hopper)));
}

template <class F>
void for_each_operation(const Tables& tables, const F& f) {
  for (const TilePass& pass : tables.passes) {
    for (int k = pass.operations.first; k < pass.operations.first + pass.operations.count; ++k)
      f(pass, tables.operations[k]);
  }
}

// The slots of row k of the groups of a block.
std::vector<Local> row_slots(const Tables& tables, const TilePass& pass, const Operation& op, int k) {
  Local flip = 0;
  for (int j = 0; j < op.turns; ++j) flip ^= ((k >> j) & 1) != 0 ? op.flip[j] : 0;
  std::vector<Local> slots;
  for (int g = 0; g < (1 << pass.tile_bits) >> op.turns; ++g) slots.push_back(tables.slots[op.groups + g] ^ flip);
  return slots;
}

TEST(a_block_has_each_row_of_a_tile_once) {
  for (const int n : {5, 12, 16}) {
    const Tables tables = tables_of(layers(n, 3));
    for_each_operation(tables, [&](const TilePass& pass, const Operation& op) {
      if (op.turns == 0) return;
      std::set<Local> seen;
      for (int k = 0; k < 1 << op.turns; ++k) {
        for (const Local s : row_slots(tables, pass, op, k)) seen.insert(s);
      }
      CHECK(seen.size() == std::size_t{1} << pass.tile_bits);
      CHECK(*seen.rbegin() == (Local{1} << pass.tile_bits) - 1);
    });
  }
}

// Shared memory has 32 banks of four bytes: sixteen threads at a time read or write a complex number each, at once if
// no two want different numbers of one pair of banks.
TEST(threads_seldom_wait_for_a_bank) {
  constexpr int banks = 16;
  for (const int n : {8, 10, 12, 13, 20, 24}) {
    const Tables tables = tables_of(layers(n, 4));
    double accesses = 0;
    double cycles = 0;
    for_each_operation(tables, [&](const TilePass& pass, const Operation& op) {
      for (int k = 0; op.turns > 0 && k < 1 << op.turns; ++k) {
        const std::vector<Local> slots = row_slots(tables, pass, op, k);
        for (std::size_t first = 0; first + banks <= slots.size(); first += banks) {
          std::array<int, banks> wanted{};
          for (std::size_t g = first; g < first + banks; ++g) ++wanted[slots[g] % banks];
          ++accesses;
          cycles += *std::max_element(wanted.begin(), wanted.end());
        }
      }
    });
    CHECK(cycles <= 1.8 * accesses);
  }
}

void check_patterns(const Patterns& list, const std::vector<Local>& masks, int tile_bits) {
  int e = list.first;
  for (int p = 0; p < cuda::own_rows; ++p) {
    for (; e < list.end[p]; ++e)
      CHECK(((masks[e] >> cuda::thread_bits_of(tile_bits)) & (cuda::own_rows - 1)) == static_cast<Local>(p));
  }
}

TEST(strings_and_words_are_in_the_order_of_their_patterns) {
  const Tables tables = tables_of(layers(14, 3));
  std::vector<Local> masks;
  for (const cuda::ZString& s : tables.strings) masks.push_back(s.row_mask);
  for_each_operation(tables, [&](const TilePass& pass, const Operation& op) {
    if (op.turns == 0) check_patterns(op.strings, masks, pass.tile_bits);
  });
  masks.clear();
  for (const cuda::Word& w : tables.words) masks.push_back(w.row_mask);
  CHECK(masks.size() == 28);
  for (const cuda::WordPass& pass : tables.word_passes) {
    for (int g = pass.groups.first; g < pass.groups.first + pass.groups.count; ++g) {
      check_patterns(tables.flip_groups[g].real, masks, pass.tile_bits);
      check_patterns(tables.flip_groups[g].imaginary, masks, pass.tile_bits);
    }
  }
}

// Layers alike share their groups: tables grow with the variety of a circuit.
TEST(groups_of_later_layers_are_those_of_earlier_ones) {
  Circuit circuit = empty_circuit(10);
  for (int layer = 0; layer < 50; ++layer) {
    for (int w = 0; w < 10; ++w) circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 1, 0}}));
    circuit.program.gates.push_back(make_gate("CZ", {layer % 10, (layer + 1) % 10}));
  }
  CHECK(tables_of(circuit).slots.size() <= std::size_t{20} << 10);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }

// A plan as tables: what kernels take for granted about them.
#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "cuda/tables/tables.h"
#include "plan/gpu_layout.h"

namespace ketgrad::testing {
namespace {

using cuda::Local;
using cuda::TableOp;
using cuda::TablePass;
using cuda::Tables;

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
  for (const TablePass& pass : tables.passes) {
    for (int k = pass.operations.first; k < pass.operations.first + pass.operations.count; ++k)
      f(pass, tables.operations[k]);
  }
}

// The slots of row k of the groups of an operation.
std::vector<Local> row_slots(const Tables& tables, const TablePass& pass, const TableOp& op, int k) {
  Local flip = 0;
  for (int j = 0; j < cuda::thread_row_bits; ++j) flip ^= ((k >> j) & 1) != 0 ? op.flip[j] : 0;
  std::vector<Local> slots;
  for (int g = 0; g < 1 << cuda::group_bits_of(pass.tile_bits); ++g)
    slots.push_back(tables.slots[op.groups + g] ^ flip);
  return slots;
}

TEST(an_operation_has_each_row_of_a_tile_once) {
  for (const int n : {2, 3, 5, 12, 16}) {
    const Tables tables = tables_of(layers(n, 3));
    for_each_operation(tables, [&](const TablePass& pass, const TableOp& op) {
      std::set<Local> seen;
      for (int k = 0; k < cuda::thread_rows; ++k) {
        for (const Local s : row_slots(tables, pass, op, k)) seen.insert(s);
      }
      const Local rows = Local{1} << std::max(pass.tile_bits, cuda::thread_row_bits);
      CHECK(seen.size() == rows);
      CHECK(*seen.rbegin() == rows - 1);
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
    for_each_operation(tables, [&](const TablePass& pass, const TableOp& op) {
      for (int k = 0; k < cuda::thread_rows; ++k) {
        const std::vector<Local> slots = row_slots(tables, pass, op, k);
        for (std::size_t first = 0; first + banks <= slots.size(); first += banks) {
          std::array<int, banks> requested{};
          for (std::size_t g = first; g < first + banks; ++g) ++requested[slots[g] % banks];
          ++accesses;
          cycles += *std::max_element(requested.begin(), requested.end());
        }
      }
    });
    CHECK(cycles <= 1.1 * accesses);
  }
}

// Each string of phases has one slot, of one operation.
TEST(strings_have_a_slot_each) {
  // Rotations by Pauli words of which many strings have one pattern, among others.
  Circuit many = empty_circuit(9);
  many.program.inputs[0].shape = {100};
  int column = 0;
  for (int a = 0; a < 9; ++a) many.program.gates.push_back(make_gate("RX", {a}, {{0, column++, 1, 0}}));
  for (int a = 0; a < 9; ++a) {
    for (int b = 0; b < a; ++b) many.program.gates.push_back(make_gate("IsingZZ", {a, b}, {{0, column++, 1, 0}}));
  }
  many.program.measurements = {{MeasurementKind::state, {}, {}}};
  for (const Circuit& circuit : {layers(14, 3), many}) {
    const Tables tables = tables_of(circuit);
    std::vector<int> seen(tables.angles.size() - tables.rotations);
    for_each_operation(tables, [&](const TablePass&, const TableOp& op) {
      for (int s = 0; s < op.layers * cuda::layer_strings; ++s) {
        const int string = tables.z_strings[op.first_string + s].string;
        if (string >= 0) ++seen[string];
      }
    });
    CHECK(!seen.empty());
    CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
  }
}

TEST(lists_of_pauli_words_are_in_the_order_of_their_patterns) {
  const Tables tables = tables_of(layers(14, 3));
  CHECK(tables.pauli_words.size() == 28);
  int listed = 0;
  for (const cuda::PauliWordPass& pass : tables.pauli_word_passes) {
    for (int g = pass.groups.first; g < pass.groups.first + pass.groups.count; ++g) {
      for (const cuda::PauliWordList* list : {&tables.flip_groups[g].real, &tables.flip_groups[g].imaginary}) {
        CHECK(list->pauli_words.first == (list->pauli_words.count() > 0 ? listed : list->pauli_words.first));
        listed += list->pauli_words.count();
        for (int p = 1; p < cuda::thread_rows; ++p) CHECK(list->pauli_words.end(p - 1) <= list->pauli_words.end(p));
      }
    }
  }
  CHECK(listed == 28);
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

// The CUDA engine under the emulation, forward and backward, against the dense simulator: every gate, every measurement,
// both precisions, whole states and tiles, batches in one chunk and in several, and any order of threads and blocks.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cases.h"
#include "core/gpu_layout.h"
#include "cuda/device.h"
#include "cuda/walk.h"

namespace ketgrad::testing {
namespace {

using cuda::DeviceCall;
using cuda::DeviceTables;

// Memory that is anything but zero at first, each piece exactly as large as was asked for.
class EmulatedDevice : public cuda::Device {
 public:
  EmulatedDevice() {
    multiprocessors = 2;
    workspace_bytes = std::size_t{1} << 30;
  }

  void* allocate(std::size_t bytes) override {
    pieces_.push_back(std::make_unique<unsigned char[]>(bytes));
    std::memset(pieces_.back().get(), 0xaa, bytes);
    return pieces_.back().get();
  }
  void zero(void* memory, std::size_t bytes) override { std::memset(memory, 0, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> pieces_;
};

// How a case is run: the size of tiles (0: whole states), how many states the workspace may hold (0: all), and the
// shared memory of a block.
struct Setting {
  int tile_bits = 0;
  Index states = 0;
  std::size_t shared_bytes = std::size_t{64} << 10;
};

template <class T>
class EmulatedRun {
 public:
  std::vector<T> real;
  std::vector<T> complex;
  std::vector<T> ket;
  std::vector<std::vector<T>> gradients;

  EmulatedRun(ProgramHandle program, const std::vector<Values>& values, Index batch, const Setting& setting)
      : program_(std::move(program)), setting_(setting) {
    const int n = program_->program.num_wires;
    Layout layout = gpu_layout(n, sizeof(T), setting.shared_bytes);
    if (setting.tile_bits > 0) {
      layout.tile_bits = setting.tile_bits;
      layout.run_bits = 1;
    }
    plan_ = make_plan(program_->program, layout);
    tables_.tables = cuda::make_tables(plan_);
    memory_.resize(tables_.tables.bytes() / sizeof(std::uint64_t) + 2);
    auto* base = reinterpret_cast<unsigned char*>(memory_.data());
    tables_.view = tables_.tables.place(base, [&](std::size_t offset, const void* from, std::size_t bytes) {
      std::memcpy(base + offset, from, bytes);
    });
    call_.tables = &tables_;
    call_.batch = batch;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const InputSpec& spec = program_->program.inputs[i];
      inputs_.emplace_back(values[i].rows.begin(), values[i].rows.end());
      call_.inputs.push_back({inputs_.back().data(), values[i].batched, spec.is_complex, spec.numel()});
    }
  }

  void forward(bool keep_ket = true) {
    const Program& program = program_->program;
    real.assign(call_.batch * program.real_results(), T(-7));
    complex.assign(2 * call_.batch * program.complex_results(), T(-7));
    ket.assign(keep_ket ? 2 * call_.batch << program.num_wires : 0, T(-7));
    EmulatedDevice device = this->device();
    cuda::execute<T>(device, call_, {real.data(), complex.data(), keep_ket ? ket.data() : nullptr});
  }

  void backward(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                const std::vector<bool>& wanted = {}) {
    const std::vector<T> of_real(g_real.begin(), g_real.end());
    const std::vector<T> of_complex(g_complex.begin(), g_complex.end());
    Cotangents<T> cotangents{ket.empty() ? nullptr : ket.data(), of_real.data(), of_complex.data(), {}};
    gradients.clear();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      gradients.emplace_back(wanted.empty() || wanted[i] ? inputs_[i].size() : 0, T(0));
      cotangents.gradients.push_back(gradients[i].empty() ? nullptr : gradients[i].data());
    }
    EmulatedDevice device = this->device();
    cuda::execute_vjp<T>(device, call_, cotangents);
  }

 private:
  EmulatedDevice device() const {
    EmulatedDevice device;
    device.shared_bytes = setting_.shared_bytes;
    if (setting_.states > 0)
      device.workspace_bytes = setting_.states * (sizeof(Complex<T>) << program_->program.num_wires);
    return device;
  }

  ProgramHandle program_;
  Setting setting_;
  Plan plan_;
  DeviceTables tables_;
  std::vector<std::uint64_t> memory_;
  std::vector<std::vector<T>> inputs_;
  DeviceCall<T> call_;
};

template <class T>
void check_run(const Case& c, const Setting& setting) {
  EmulatedRun<T> run(c.program, c.values, c.batch, setting);
  run.forward();
  check_results(c, run.real, c.expected_real, "real result");
  check_results(c, run.complex, c.expected_complex, "complex result");
  run.backward(c.g_real, c.g_complex);
  check_gradients(c, run.gradients);
}

void check_case(const Case& c, const Setting& setting = {}) {
  check_run<float>(c, setting);
  check_run<double>(c, setting);
}

// --- against the dense simulator ------------------------------------------------------------------------------------

TEST(every_gate) {
  Random random(1);
  for (int opcode = 0; opcode < num_gates; ++opcode) {
    for (int round = 0; round < 2; ++round) {
      const int own = std::max<int>(gate_info(static_cast<Opcode>(opcode)).num_wires, 1);
      Circuit circuit = empty_circuit(std::max(own + round, 2));
      add_rotations(circuit);
      circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), round));
      circuit.program.gates.back().inverse = round == 1;
      add_rotations(circuit);
      circuit.program.measurements.push_back({MeasurementKind::state, {}, {}});
      check_case(make_case(random, circuit, 1 + 2 * round));
    }
  }
}

TEST(every_pauli_word) {
  Random random(16);
  Circuit circuit = empty_circuit(4);
  add_rotations(circuit);
  circuit.program.measurements = {{MeasurementKind::expval, {}, {}}};
  for (const std::string& word : words_of("IXYZ", 4)) {
    if (word[0] != 'Y' && word[3] != 'I') continue;
    Gate gate = make_gate("PauliRot", random.wires(4, 4), {random_slot(random, circuit.program)});
    gate.word = word;
    gate.inverse = random.chance(0.5);
    circuit.program.gates.push_back(gate);
  }
  for (const std::string& word : words_of("XYZ", 4)) {
    circuit.program.measurements[0].terms.push_back(
        {random.uniform(-1, 1), {{0, 0, 1, 0}}, random.wires(4, 4), word, {}});
  }
  check_case(make_case(random, circuit, 3));
}

TEST(every_measurement) {
  Random random(2);
  for (int kind = 0; kind < 5; ++kind) {
    for (int n = 1; n <= 5; ++n) {
      Circuit circuit = empty_circuit(n);
      add_rotations(circuit);
      for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
      circuit.program.measurements.push_back(random_measurement(random, circuit, static_cast<MeasurementKind>(kind)));
      check_case(make_case(random, circuit, n));
    }
  }
}

TEST(random_circuits_in_every_batch) {
  Random random(3);
  for (const Index batch : {1, 3, 5}) {
    for (int n = 1; n <= 5; ++n) {
      const Case c = make_case(random, random_circuit(random, n, 10), batch);
      check_case(c);
      check_case(c, {0, 7});  // a sample or two at a time
    }
  }
}

TEST(no_wires_and_no_gates) {
  Random random(5);
  Circuit circuit = empty_circuit(0);
  circuit.program.gates.push_back(make_gate("GlobalPhase", {}, {{0, 0, 1, 0}}));
  circuit.program.measurements = {{MeasurementKind::state, {}, {}}, {MeasurementKind::probs, {}, {}}};
  check_case(make_case(random, circuit, 3));
  circuit = empty_circuit(3);
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {{1, 0, 1, 0}}, {0, 2}, "ZZ", {}}}},
                                  {MeasurementKind::state, {}, {}}};
  check_case(make_case(random, circuit, 2));
  check_case(make_case(random, circuit, 2), {2, 0});
  circuit.program.measurements.pop_back();
  check_case(make_case(random, circuit, 2));
}

// --- tiles ----------------------------------------------------------------------------------------------------------

TEST(tiles_agree_with_the_dense_simulator) {
  Random random(19);
  for (const int tile_bits : {4, 6}) {
    for (int opcode = 0; opcode < num_gates; ++opcode) {
      Circuit circuit = empty_circuit(7);
      add_rotations(circuit);
      for (int w = 0; w < 7; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % 7}));
      circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), 2));
      add_rotations(circuit);
      circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
      circuit.program.measurements.push_back(
          random_measurement(random, circuit, static_cast<MeasurementKind>(opcode % 5)));
      check_case(make_case(random, circuit, 1), {tile_bits, 0});
    }
    for (int round = 0; round < 4; ++round)
      check_case(make_case(random, random_circuit(random, 6 + round % 3, 25), 3), {tile_bits, round % 2 == 0 ? 0 : 13});
  }
}

// --- tiles of many warps, against the kernels of the CPU ---------------------------------------------------------------

template <class T>
void check_like_cpu(const Case& c, const Setting& setting) {
  Run<T> expected(c.program, c.values, c.batch, 1);
  expected.forward();
  expected.backward(c.g_real, c.g_complex);
  EmulatedRun<T> found(c.program, c.values, c.batch, setting);
  found.forward();
  found.backward(c.g_real, c.g_complex);
  check_results(c, found.real, {expected.real.begin(), expected.real.end()}, "real result");
  check_results(c, found.complex, {expected.complex.begin(), expected.complex.end()}, "complex result");
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    for (std::size_t e = 0; e < expected.gradients[i].size(); ++e)
      check_close<T>(c, found.gradients[i][e], expected.gradients[i][e], "gradient of input", i);
  }
}

// Blocks of 256 threads that go through a tile once and several times.
TEST(large_tiles_agree_with_the_cpu) {
  Random random(23);
  constexpr std::size_t hopper = std::size_t{227} << 10;
  for (const int n : {11, 12}) {
    Circuit circuit = empty_circuit(n);
    for (int layer = 0; layer < 3; ++layer) {
      add_rotations(circuit);
      for (int w = 0; w < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % n}));
      for (int w = 0; w + 1 < n; ++w)
        circuit.program.gates.push_back(make_gate("IsingZZ", {w, w + 1}, {random_slot(random, circuit.program)}));
    }
    circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
    for (int w = 0; w < n; ++w)
      circuit.program.measurements.push_back({MeasurementKind::expval, {}, {{1, {{0, w % 4, 1, 0}}, {w}, "Z", {}}}});
    const Case c = unsolved_case(random, circuit, 2);
    check_like_cpu<float>(c, {0, 0, hopper});
    check_like_cpu<double>(c, {0, 0, hopper});
    check_like_cpu<double>(c, {10, 0, hopper});
  }
}

// Several parts of a sample's tiles, sums over groups in several pieces, and every kind of step and measurement.
TEST(large_states_agree_with_the_cpu) {
  Random random(24);
  const Case c = unsolved_case(random, large_circuit(random, 13), 1);
  check_like_cpu<double>(c, {});
}

// --- what a call may leave out --------------------------------------------------------------------------------------

template <class T>
void check_wanted(const Case& c, const std::vector<bool>& wanted, const Setting& setting) {
  EmulatedRun<T> all(c.program, c.values, c.batch, setting);
  all.forward(false);
  all.backward(c.g_real, c.g_complex);
  check_gradients(c, all.gradients);
  EmulatedRun<T> some(c.program, c.values, c.batch, setting);
  some.forward();
  some.backward(c.g_real, c.g_complex, wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    for (std::size_t e = 0; e < all.gradients[i].size(); ++e) {
      check_close<T>(c, some.gradients[i][e], all.gradients[i][e], "gradient of wanted input", i);
    }
  }
}

TEST(only_what_is_wanted_and_without_a_ket) {
  Random random(6);
  for (int round = 0; round < 8; ++round) {
    const Case c = make_case(random, random_circuit(random, 4, 8), 1 + 2 * (round % 2));
    std::vector<bool> wanted;
    for (std::size_t i = 0; i < c.values.size(); ++i) wanted.push_back(random.chance(0.4));
    check_wanted<float>(c, wanted, {round % 3 == 0 ? 3 : 0, 0});
    check_wanted<double>(c, wanted, {round % 3 == 0 ? 3 : 0, 0});
  }
}

// NaN stays with the sample that has it, and reaches every amplitude there.
TEST(nan_propagates) {
  for (const char* gate : {"RX", "RZ"}) {
    for (const int tile_bits : {0, 3}) {
      Circuit circuit = empty_circuit(5);
      circuit.program.gates = {make_gate(gate, {0}, {{0, 0, 1, 0}}), make_gate("RY", {1}, {{1, 0, 1, 0}})};
      circuit.program.measurements = {{MeasurementKind::probs, {0, 1, 2, 3, 4}, {}},
                                      {MeasurementKind::expval, {}, {{1, {}, {1}, "Z", {}}}}};
      Random random(9);
      std::vector<Values> values = random_values(random, circuit, 3);
      values[0] = {true, 4, random_numbers(random, 12)};
      values[0].rows[4] = std::numeric_limits<double>::quiet_NaN();
      EmulatedRun<float> run(register_program(circuit.program), values, 3, {tile_bits, 0});
      run.forward();
      run.backward(std::vector<double>(3 * 33, 1.0), {});
      for (int e = 0; e < 3 * 33; ++e) CHECK(std::isnan(run.real[e]) == (e / 33 == 1));
      for (int sample = 0; sample < 3; ++sample) CHECK(std::isnan(run.gradients[0][4 * sample]) == (sample == 1));
    }
  }
}

// --- the GPU's freedoms ---------------------------------------------------------------------------------------------

// Whatever runs first, the bits are the same: no sum depends on the order of threads or blocks.
TEST(order_does_not_show_in_the_bits) {
  Random random(11);
  Circuit circuit = large_circuit(random, 8);
  const Case c = unsolved_case(random, circuit, 2);
  for (const int tile_bits : {0, 5}) {
    std::vector<std::vector<std::vector<float>>> seen;
    for (const std::uint64_t seed : {1, 2, 3}) {
      cuda::seed_emulation(seed);
      EmulatedRun<float> run(c.program, c.values, c.batch, {tile_bits, 0});
      run.forward();
      run.backward(c.g_real, c.g_complex);
      run.gradients.push_back(run.real);
      run.gradients.push_back(run.complex);
      seen.push_back(run.gradients);
    }
    CHECK(seen[0] == seen[1]);
    CHECK(seen[0] == seen[2]);
  }
  cuda::seed_emulation(0);
}

// A circuit of turns, phases and Pauli words is one launch forward and one backward, and a few small ones around them.
TEST(whole_circuits_take_few_launches) {
  Random random(12);
  Circuit circuit = empty_circuit(6);
  for (int layer = 0; layer < 5; ++layer) {
    add_rotations(circuit);
    for (int w = 0; w < 6; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % 6}));
  }
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {0}, "Z", {}}}}};
  const Case c = make_case(random, circuit, 3);
  EmulatedRun<float> run(c.program, c.values, c.batch, {});
  const Index start = cuda::launch_count();
  run.forward();
  CHECK(cuda::launch_count() - start == 4);  // inputs, angles, the circuit, results
  run.backward(c.g_real, c.g_complex);
  CHECK(cuda::launch_count() - start <= 4 + 6);  // inputs, angles, weights, the circuit, gradients of two inputs
  check_gradients(c, run.gradients);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }

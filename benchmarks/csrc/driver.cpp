// Runs value and gradient of one workload through the kernels alone, without torch or Python.
//
//   driver NAME            once: what `make count` counts the instructions of
//   driver NAME REPEATS    prints the median time of so many runs, on all cores
//
// The workloads are those of benchmarks/workloads.py, some of them smaller.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "cpu/execute.h"
#include "cpu/thresholds.h"
#include "plan/registry.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

// The same numbers everywhere.
class Numbers {
 public:
  double next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state_ >> 40) * 0x1p-24;
  }

 private:
  std::uint64_t state_ = 1;
};

struct Workload {
  Program program;
  Index batch = 1;
  std::vector<bool> batched{false};  // per input
  bool twice = false;                // complex128
  bool second = false;               // the derivatives of results and gradients along a direction, in place of them
};

Gate gate(std::string_view name, std::vector<int> targets, std::vector<int> controls, std::vector<Slot> slots) {
  Gate g;
  g.opcode = static_cast<Opcode>(find_gate(name));
  g.targets = std::move(targets);
  g.control_values.assign(controls.size(), true);
  g.controls = std::move(controls);
  g.slots = std::move(slots);
  g.pauli_word = gate_info(g.opcode).pauli_word;
  return g;
}

class Builder {
 public:
  Builder(int num_wires, int layers) : layers_(layers) { workload_.program.num_wires = num_wires; }

  int wires() const { return workload_.program.num_wires; }

  void add(std::string_view name, std::vector<int> targets, int input, std::vector<int> controls = {}) {
    Slot slot{input, columns_[input]++, 1, 0};
    workload_.program.gates.push_back(gate(name, std::move(targets), std::move(controls), {slot}));
  }

  void fixed(std::string_view name, int control, int target) {
    workload_.program.gates.push_back(gate(name, {target}, {control}, {}));
  }

  void rotations(const std::vector<std::string_view>& names, int input) {
    for (int w = 0; w < wires(); ++w) {
      for (const std::string_view name : names) add(name, {w}, input);
    }
  }

  void ring() {
    for (int w = 0; w < wires(); ++w) fixed("CNOT", w, (w + 1) % wires());
  }

  void brickwork() {
    for (int w = 0; w + 1 < wires(); w += 2) fixed("CZ", w, w + 1);
    for (int w = 1; w + 1 < wires(); w += 2) add("IsingXX", {w, w + 1}, 0);
  }

  // Rotations and, as it goes with them, a ring or a brickwork.
  void layers(const std::vector<std::string_view>& names) {
    for (int layer = 0; layer < layers_; ++layer) {
      rotations(names, 0);
      names[0] == "RZ" ? ring() : brickwork();
    }
  }

  Term pauli_word(double scale, std::string letters, std::vector<int> on) {
    return {scale, {}, std::move(on), std::move(letters), {}};
  }

  // -sum Z Z - 0.7 sum X on a ring
  void ising() {
    Measurement m;
    for (int w = 0; w < wires(); ++w) m.terms.push_back(pauli_word(-1, "ZZ", {w, (w + 1) % wires()}));
    for (int w = 0; w < wires(); ++w) m.terms.push_back(pauli_word(-0.7, "X", {w}));
    workload_.program.measurements = {m};
  }

  void each_z() {
    for (int w = 0; w < wires(); ++w)
      workload_.program.measurements.push_back({MeasurementKind::expval, {}, {pauli_word(1, "Z", {w})}});
  }

  // Many Pauli words of four letters, as a molecule has.
  void many_pauli_words(int count) {
    Numbers numbers;
    Measurement m;
    for (int t = 0; t < count; ++t) {
      std::string letters;
      std::vector<int> on;
      for (int w = static_cast<int>(numbers.next() * 3); w < wires() && letters.size() < 4;
           w += 1 + numbers.next() * 4) {
        letters += "XYZ"[static_cast<int>(numbers.next() * 3)];
        on.push_back(w);
      }
      m.terms.push_back(pauli_word(numbers.next() - 0.5, letters, on));
    }
    workload_.program.measurements = {m};
  }

  Workload finish(Index batch = 1) {
    workload_.batch = batch;
    workload_.program.inputs.clear();
    for (const int columns : columns_) workload_.program.inputs.push_back({false, {columns}});
    workload_.batched = {false, batch > 1};
    return workload_;
  }

 private:
  int layers_;
  Workload workload_;
  std::vector<int> columns_{0, 0};  // weights, data
};

Workload qml(int n, int layers, Index batch, const std::vector<std::string_view>& names = {"RZ", "RY", "RZ"}) {
  Builder b(n, layers);
  b.rotations({"RX"}, 1);
  b.layers(names);
  b.each_z();
  return b.finish(batch);
}

Workload vqe(int n, int layers, const std::vector<std::string_view>& names = {"RZ", "RY", "RZ"}) {
  Builder b(n, layers);
  b.layers(names);
  b.ising();
  return b.finish();
}

Workload tfim(int n, int layers) {
  Builder b(n, layers);
  for (int layer = 0; layer < layers; ++layer) {
    for (int w = 0; w + 1 < n; ++w) b.add("IsingZZ", {w, w + 1}, 0);
    b.rotations({"RX"}, 0);
  }
  b.ising();
  return b.finish();
}

Workload molecule(int n, int pauli_words) {
  Builder b(n, 2);
  for (int layer = 0; layer < 2; ++layer) {
    for (int w = 0; w + 3 < n; ++w) b.add("DoubleExcitation", {w, w + 1, w + 2, w + 3}, 0);
    for (int w = 0; w + 1 < n; ++w) b.add("SingleExcitation", {w, w + 1}, 0);
  }
  b.many_pauli_words(pauli_words);
  Workload found = b.finish();
  for (int w = 0; w < n / 2; ++w) {
    found.program.initial.wires.push_back(w);
    found.program.initial.bits.push_back(1);
  }
  found.program.initial.kind = Preparation::basis;
  return found;
}

// Rotations and a ring of controlled ones.
Workload controlled(int n, int layers) {
  Builder b(n, layers);
  for (int layer = 0; layer < layers; ++layer) {
    b.rotations({"RY"}, 0);
    for (int w = 0; w < n; ++w) b.add("CRX", {(w + 1) % n}, 0, {w});
  }
  b.each_z();
  return b.finish();
}

Workload twice(Workload w) {
  w.twice = true;
  return w;
}

Workload second(Workload w) {
  w.second = true;
  return w;
}

using Make = Workload (*)();

const std::pair<const char*, Make> workloads[] = {
    {"qml_4_3_64", [] { return qml(4, 3, 64); }},
    {"qml_8_4_32", [] { return qml(8, 4, 32); }},
    {"qml_8_4_256", [] { return qml(8, 4, 256); }},
    {"qml_10_4_256", [] { return qml(10, 4, 256); }},
    {"qml_12_4_128", [] { return qml(12, 4, 128); }},
    {"qml_13_4_64", [] { return qml(13, 4, 64); }},
    {"qml_14_4_64", [] { return qml(14, 4, 64); }},
    {"qml_16_2_32", [] { return qml(16, 2, 32); }},
    {"qml_8_4_256_brick", [] { return qml(8, 4, 256, {"RX", "RZ", "RX"}); }},
    {"qml_8_4_32_second", [] { return second(qml(8, 4, 32)); }},
    {"qml_8_4_256_second", [] { return second(qml(8, 4, 256)); }},
    {"qml_12_4_128_second", [] { return second(qml(12, 4, 128)); }},
    {"vqe_12_4_second", [] { return second(vqe(12, 4)); }},
    {"vqe_20_4_second", [] { return second(vqe(20, 4)); }},
    {"vqe_2_1", [] { return vqe(2, 1); }},
    {"vqe_4_300", [] { return vqe(4, 300); }},
    {"vqe_6_2", [] { return vqe(6, 2); }},
    {"vqe_12_4", [] { return vqe(12, 4); }},
    {"vqe_16_4", [] { return vqe(16, 4); }},
    {"vqe_20_4", [] { return vqe(20, 4); }},
    {"vqe_20_4_twice", [] { return twice(vqe(20, 4)); }},
    {"vqe_24_2", [] { return vqe(24, 2); }},
    {"vqe_16_4_brick", [] { return vqe(16, 4, {"RX", "RZ", "RX"}); }},
    {"vqe_20_4_brick", [] { return vqe(20, 4, {"RX", "RZ", "RX"}); }},
    {"tfim_4_500", [] { return tfim(4, 500); }},
    {"tfim_14_4", [] { return tfim(14, 4); }},
    {"tfim_20_10", [] { return tfim(20, 10); }},
    {"controlled_12_4", [] { return controlled(12, 4); }},
    {"molecule_10", [] { return molecule(10, 300); }},
    {"molecule_12", [] { return molecule(12, 600); }},
};

#if defined(_OPENMP)
constexpr bool has_pool = true;
void on_all_cores(Index tasks, void (*body)(void*, Index), void* context) {
#pragma omp parallel for schedule(dynamic, 1)
  for (Index t = 0; t < tasks; ++t) body(context, t);
}
int cores() { return omp_get_max_threads(); }
#else
constexpr bool has_pool = false;
void on_all_cores(Index tasks, void (*body)(void*, Index), void* context) {
  for (Index t = 0; t < tasks; ++t) body(context, t);
}
int cores() { return 1; }
#endif

template <class T>
class Run {
 public:
  Run(const Workload& w, int threads) : handle_(register_program(w.program)) {
    Numbers numbers;
    call_.planned = handle_.get();
    call_.batch = w.batch;
    call_.threads = threads;
    call_.parallel = on_all_cores;
    for (std::size_t i = 0; i < w.program.inputs.size(); ++i) {
      const Index numel = w.program.inputs[i].numel();
      const bool batched = i < w.batched.size() && w.batched[i];
      inputs_.emplace_back(numel * (batched ? w.batch : 1));
      for (T& x : inputs_.back()) x = static_cast<T>(6.28 * numbers.next());
      gradients_.emplace_back(inputs_.back().size());
      call_.inputs.push_back({inputs_.back().data(), batched, false, numel});
    }
    if (w.second) call_.tangents = call_.inputs;
    real_.resize(w.batch * w.program.real_results());
    cotangent_.assign(real_.size(), T(1));
  }

  void once() { call_.tangents.empty() ? value_and_gradient() : derivatives_along_a_direction(); }

  double check() const {
    double sum = real_[0];
    for (const auto& g : gradients_) {
      for (const T x : g) sum += x;
    }
    return sum;
  }

 private:
  Cotangents<T> cotangents(const T* ket) {
    Cotangents<T> found{ket, cotangent_.data(), nullptr, {}};
    for (std::vector<T>& g : gradients_) {
      std::fill(g.begin(), g.end(), T(0));
      found.gradients.push_back(g.empty() ? nullptr : g.data());
    }
    return found;
  }

  void value_and_gradient() {
    const HugePageBuffer<T> ket(2 * call_.batch * call_.dimension());
    execute<T>(call_, {real_.data(), nullptr, ket.data()});
    execute_vjp<T>(call_, cotangents(ket.data()));
  }

  void derivatives_along_a_direction() {
    execute_tangents<T>(call_, {{real_.data(), nullptr, nullptr}, cotangents(nullptr)});
  }

  ProgramHandle handle_;
  Call<T> call_;
  std::vector<std::vector<T>> inputs_;
  std::vector<std::vector<T>> gradients_;
  std::vector<T> real_;
  std::vector<T> cotangent_;
};

template <class T>
void measure(const char* name, const Workload& w, int repeats) {
  Run<T> run(w, repeats == 0 ? 1 : cores());
  run.once();
  std::vector<double> times;
  for (int r = 0; r < repeats; ++r) {
    const auto start = std::chrono::steady_clock::now();
    run.once();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  if (times.empty()) {
    std::printf("%s %.6f\n", name, run.check());
  } else {
    std::printf("%-20s median %9.4f ms, best %9.4f ms (%s)\n", name, times[times.size() / 2], times[0],
                has_pool ? "all cores" : "one core");
  }
}

}  // namespace
}  // namespace ketgrad

int main(int argc, char** argv) {
  using namespace ketgrad;
  const std::string_view requested = argc > 1 ? argv[1] : "";
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 0;
  if (argc > 3) set_thresholds({.tile_bits = std::atoi(argv[3])});
  bool found = false;
  for (const auto& [name, make] : workloads) {
    if (requested != "all" && requested != name) continue;
    found = true;
    const Workload w = make();
    w.twice ? measure<double>(name, w, repeats) : measure<float>(name, w, repeats);
  }
  if (found) return 0;
  std::fprintf(stderr, "usage: driver NAME|all [REPEATS [TILE_BITS]], NAME one of");
  for (const auto& [name, make] : workloads) std::fprintf(stderr, " %s", name);
  std::fprintf(stderr, "\n");
  return 2;
}

// A call of the CUDA engine under the emulation, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cases.h"
#include "cuda/engine/engine.h"
#include "cuda/kernels/device.h"
#include "math/dual.h"
#include "plan/gpu_layout.h"
#include "tangents.h"

namespace ketgrad::testing {

using cuda::DeviceCall;
using cuda::DeviceTables;

// Memory that is not zero at first, each allocation exactly as large as requested.
class EmulatedDevice : public cuda::Device {
 public:
  EmulatedDevice() { workspace_bytes = std::size_t{1} << 30; }

  void* allocate(std::size_t bytes) override {
    allocations_.push_back(std::make_unique<unsigned char[]>(bytes));
    std::memset(allocations_.back().get(), 0xff, bytes);
    return allocations_.back().get();
  }
  void zero(void* memory, std::size_t bytes) override { std::memset(memory, 0, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> allocations_;
};

// How a case is run: the size of tiles (0: whole states), how many states the workspace may hold (0: all), the shared
// memory of a block, and how many multiprocessors there are.
struct Setting {
  int tile_bits = 0;
  Index states = 0;
  std::size_t shared_bytes = std::size_t{64} << 10;
  int multiprocessors = 2;
};

// Shared memory of a block and multiprocessors of an H100, on which that many blocks share a large state.
inline constexpr std::size_t hopper_shared_bytes = std::size_t{227} << 10;
inline constexpr int hopper_multiprocessors = 132;

template <class T>
class EmulatedRun : public CallMemory<T> {
 public:
  EmulatedRun(ProgramHandle program, const std::vector<Values>& values, Index batch, const Setting& setting)
      : CallMemory<T>(std::move(program), values, batch), setting_(setting) {
    const Program& p = this->program_->program;
    place(plain_, gpu_layout(p.num_wires, sizeof(T), setting.shared_bytes));
    place(dual_, gpu_layout(p.num_wires, sizeof(DualOf<T>), setting.shared_bytes));
    call_.batch = batch;
    call_.inputs = this->views_;
  }

  const cuda::Tables& tables() const { return plain_.tables.tables; }

  void forward(bool keep_ket = true) {
    EmulatedDevice device = this->device();
    call_.tables = &plain_.tables;
    cuda::execute<T>(device, call_, this->results(keep_ket));
  }

  void backward(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                const std::vector<bool>& requested = {}) {
    EmulatedDevice device = this->device();
    call_.tables = &plain_.tables;
    cuda::execute_vjp<T>(device, call_, this->cotangents(g_real, g_complex, requested));
  }

  void tangents(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                const std::vector<std::vector<double>>& inputs, const std::vector<double>& dg_real,
                const std::vector<double>& dg_complex, bool goes_back) {
    EmulatedDevice device = this->device();
    call_.tables = &dual_.tables;
    call_.tangents = this->directions(inputs);
    cuda::execute_tangents<T>(device, call_, this->directional(g_real, g_complex, dg_real, dg_complex, goes_back));
    call_.tangents.clear();
  }

 private:
  struct PlacedTables {
    DeviceTables tables;
    std::vector<std::uint64_t> memory;
  };

  void place(PlacedTables& placed, Layout layout) const {
    if (setting_.tile_bits > 0) {
      layout.tile_bits = setting_.tile_bits;
      layout.run_bits = 1;
    }
    cuda::Tables& tables = placed.tables.tables;
    tables = cuda::make_tables(make_plan(this->program_->program, layout));
    placed.memory.resize(tables.bytes() / sizeof(std::uint64_t) + 2);
    auto* base = reinterpret_cast<unsigned char*>(placed.memory.data());
    placed.tables.view = tables.place(base, [&](std::size_t offset, const void* from, std::size_t bytes) {
      std::memcpy(base + offset, from, bytes);
    });
  }

  EmulatedDevice device() const {
    EmulatedDevice device;
    device.shared_bytes = setting_.shared_bytes;
    device.multiprocessors = setting_.multiprocessors;
    if (setting_.states > 0)
      device.workspace_bytes = setting_.states * (sizeof(Complex<T>) << this->program_->program.num_wires);
    return device;
  }

  Setting setting_;
  PlacedTables plain_;
  PlacedTables dual_;
  DeviceCall<T> call_;
};

// The emulated GPU against the kernels of the CPU.
template <class T>
void check_like_cpu(const Case& c, const Setting& setting) {
  Run<T> expected(c.program, c.values, c.batch, 1);
  expected.forward();
  expected.backward(c.g_real, c.g_complex);
  EmulatedRun<T> found(c.program, c.values, c.batch, setting);
  found.forward();
  found.backward(c.g_real, c.g_complex);
  check_alike<T>(c, found, expected);
}

template <class T>
void check_tangents_like_cpu(const Case& c, const Tangents& t, const Setting& setting) {
  Run<T> expected(c.program, c.values, c.batch, 1);
  expected.tangents(c.g_real, c.g_complex, t.inputs, t.g_real, t.g_complex, true);
  EmulatedRun<T> found(c.program, c.values, c.batch, setting);
  found.tangents(c.g_real, c.g_complex, t.inputs, t.g_real, t.g_complex, true);
  check_alike<T>(c, found, expected);
}

// Whatever runs first, the bits are the same: no sum depends on the order of threads or blocks.
template <class F>
void check_any_order(const Case& c, const Setting& setting, const F& call) {
  std::vector<std::vector<std::vector<float>>> seen;
  for (const std::uint64_t seed : {1, 2, 3}) {
    cuda::seed_emulation(seed);
    EmulatedRun<float> run(c.program, c.values, c.batch, setting);
    call(run);
    run.gradients.push_back(run.real);
    run.gradients.push_back(run.complex);
    seen.push_back(run.gradients);
  }
  CHECK(seen[0] == seen[1]);
  CHECK(seen[0] == seen[2]);
  cuda::seed_emulation(0);
}

}  // namespace ketgrad::testing

// The operators on CUDA: checks what torch hands over, allocates from torch's caching allocator, calls the walk on the
// current stream of the first input's device.
#include "cuda/execute_cuda.h"

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dual.h"
#include "core/gpu_layout.h"
#include "core/memory.h"
#include "cuda/connection.h"
#include "cuda/errors.h"
#include "cuda/walk.h"
#include "ops/arguments.h"

namespace ketgrad::cuda {
namespace {

using ops::Arguments;
using ops::complex_type;
using ops::data;
using ops::real_type;
using ops::ScalarType;
using torch::stable::Tensor;

// torch says no more than that an allocation failed. Where CUDA has another error than that memory is short, such as one of
// an earlier launch, it is that; else in Python torch.OutOfMemoryError, which people's retry code knows.
[[noreturn]] void throw_failed_allocation(double bytes, int device) {
  const cudaError_t error = cudaPeekAtLastError();
  if (error != cudaErrorMemoryAllocation) require_success(error, "an allocation");
  throw OutOfMemory("CUDA out of memory: ketgrad asked for " + std::to_string(static_cast<std::int64_t>(bytes)) +
                    " bytes on cuda:" + std::to_string(device));
}

// --- memory -----------------------------------------------------------------------------------------------------------

// Of torch's caching allocator, on the current stream; given back when this ends.
class Block {
 public:
  Block(std::size_t bytes, int device) {
    if (aoti_torch_cuda_caching_allocator_raw_alloc(bytes, &memory_) != AOTI_TORCH_SUCCESS)
      throw_failed_allocation(static_cast<double>(bytes), device);
  }
  Block(Block&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  Block& operator=(Block&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    if (memory_ != nullptr) aoti_torch_cuda_caching_allocator_raw_delete(memory_);
  }

  unsigned char* address() const { return static_cast<unsigned char*>(memory_); }

 private:
  void* memory_ = nullptr;
};

struct Limits {
  int multiprocessors = 0;
  std::size_t shared_bytes = 0;
  std::size_t memory_bytes = 0;
};

// Asked once for each device.
Limits limits_of(int device) {
  static std::mutex mutex;
  static std::map<int, Limits> known;
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = known.try_emplace(device);
  if (is_new) {
    cudaDeviceProp properties;
    require_success(cudaGetDeviceProperties(&properties, device), "reading the device's properties");
    at->second = {properties.multiProcessorCount, properties.sharedMemPerBlockOptin, properties.totalGlobalMem};
  }
  return at->second;
}

class TorchDevice final : public Device {
 public:
  explicit TorchDevice(int index) : index_(index) {
    const Limits limits = limits_of(index);
    multiprocessors = limits.multiprocessors;
    shared_bytes = limits.shared_bytes;
    workspace_bytes = limits.memory_bytes / 4;
    if (aoti_torch_get_current_cuda_stream(index, &queue.stream) != AOTI_TORCH_SUCCESS)
      throw std::runtime_error("ketgrad: torch has no current stream for cuda:" + std::to_string(index));
  }

  // Small pieces share a block: asking for each would take longer than a small circuit.
  void* allocate(std::size_t bytes) override {
    constexpr std::size_t alignment = 256;
    constexpr std::size_t small_block = std::size_t{1} << 20;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    if (bytes > left_) {
      const std::size_t taken = std::max(bytes, small_block);
      blocks_.emplace_back(taken, index_);
      if (taken > bytes || left_ == 0) {
        next_ = blocks_.back().address();
        left_ = taken;
      } else {
        return blocks_.back().address();
      }
    }
    left_ -= bytes;
    return std::exchange(next_, next_ + bytes);
  }

  void zero(void* memory, std::size_t bytes) override {
    if (bytes > 0) require_success(cudaMemsetAsync(memory, 0, bytes, stream()), "clearing memory");
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    require_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copying a state");
  }

  cudaStream_t stream() const { return static_cast<cudaStream_t>(queue.stream); }
  int index() const { return index_; }

 private:
  int index_;
  std::vector<Block> blocks_;
  unsigned char* next_ = nullptr;
  std::size_t left_ = 0;
};

// --- tables -----------------------------------------------------------------------------------------------------------

// A program's tables on a device. They are made at its first call there, and go with the first call of another program
// after it has gone itself.
class TableCache {
 public:
  template <class T>
  const DeviceTables& find(const ProgramHandle& program, TorchDevice& device) {
    const std::lock_guard lock(mutex_);
    const Key key{program->id, device.index(), static_cast<int>(sizeof(T))};
    const bool captures = is_capturing(device);
    const auto at = entries_.find(key);
    if (at != entries_.end() && !at->second.program.expired()) {
      if (captures) at->second.captured = program;
      return *at->second.tables;
    }
    if (captures)
      throw std::runtime_error(
          "ketgrad: a circuit's first call on a device copies its tables there, which a CUDA graph cannot capture; "
          "run it once before the capture (warm-up)");
    forget_expired(device);
    const Layout layout = gpu_layout(program->program.num_wires, sizeof(T), device.shared_bytes);
    Entry entry{program, nullptr, Block(1, device.index()), std::make_unique<DeviceTables>()};
    upload(make_tables(program->plan(layout)), device, entry);
    return *entries_.insert_or_assign(key, std::move(entry)).first->second.tables;
  }

 private:
  struct Key {
    std::int64_t program;
    int device;
    int number_bytes;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Entry {
    std::weak_ptr<const PlannedProgram> program;
    ProgramHandle captured;  // a graph that may be replayed at any time reads the tables: they stay for good
    Block memory;
    std::unique_ptr<DeviceTables> tables;
  };

  static bool is_capturing(const TorchDevice& device) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    require_success(cudaStreamIsCapturing(device.stream(), &status), "asking about a capture");
    return status != cudaStreamCaptureStatusNone;
  }

  // Of this device, for which it waits: a launch that reads tables may still be pending.
  void forget_expired(const TorchDevice& device) {
    std::vector<Key> expired;
    for (const auto& [key, entry] : entries_) {
      if (key.device == device.index() && entry.program.expired()) expired.push_back(key);
    }
    if (expired.empty()) return;
    require_success(cudaDeviceSynchronize(), "waiting for the device");
    for (const Key& key : expired) entries_.erase(key);
  }

  // Other streams may call the program next, so this waits: once for each program and device.
  static void upload(Tables tables, const TorchDevice& device, Entry& entry) {
    std::vector<unsigned char> bytes(tables.bytes());
    entry.memory = Block(std::max<std::size_t>(bytes.size(), 1), device.index());
    entry.tables->view = tables.place(entry.memory.address(), [&](std::size_t offset, const void* from, std::size_t n) {
      std::memcpy(bytes.data() + offset, from, n);
    });
    entry.tables->tables = std::move(tables);
    require_success(
        cudaMemcpyAsync(entry.memory.address(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, device.stream()),
        "copying a program's tables");
    require_success(cudaStreamSynchronize(device.stream()), "copying a program's tables");
  }

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

// Never destroyed: at exit the allocator may be gone already.
TableCache& table_cache() {
  static auto* cache = new TableCache;
  return *cache;
}

// --- the operators ----------------------------------------------------------------------------------------------------

Tensor empty(const std::vector<Index>& shape, ScalarType type, const Tensor& like) {
  try {
    return ops::empty_on(like.device(), shape, type);
  } catch (const std::exception&) {
    double numbers = 1;
    for (const Index size : shape) numbers *= static_cast<double>(size);
    const bool single = type == ScalarType::Float || type == ScalarType::ComplexFloat;
    const bool complex = type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble;
    throw_failed_allocation(numbers * (single ? 4 : 8) * (complex ? 2 : 1), like.get_device_index());
  }
}

// For a walk on numbers of kind N.
template <class N, class T>
DeviceCall<T> device_call(const Arguments<T>& arguments, TorchDevice& device) {
  return {&table_cache().find<N>(arguments.program, device), arguments.batch, arguments.views, {}};
}

// A gradient of zeros, known to the call as the place of the input's.
template <class T>
Tensor empty_gradient(Index input, const Tensor& like, TorchDevice& device, Cotangents<T>& cotangents) {
  Tensor gradient = empty(ops::shape_of(like), like.scalar_type(), like);
  const ScalarType type = like.scalar_type();
  const bool is_complex = type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble;
  device.zero(data<T>(gradient), gradient.numel() * (is_complex ? 2 : 1) * sizeof(T));
  cotangents.gradients[input] = ops::gradient_address<T>(gradient);
  return gradient;
}

template <class T>
Executed execute_as(const ProgramHandle& program, const std::vector<Tensor>& inputs, bool keep_ket) {
  const Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  TorchDevice device(inputs[0].get_device_index());
  const DeviceCall<T> call = device_call<T>(arguments, device);
  const Program& p = program->program;
  const Tensor real = empty({arguments.batch, p.real_results()}, real_type<T>, inputs[0]);
  const Tensor complex = empty({arguments.batch, p.complex_results()}, complex_type<T>, inputs[0]);
  const Tensor ket = empty({arguments.batch, keep_ket ? Index{1} << p.num_wires : 0}, complex_type<T>, inputs[0]);
  execute<T>(device, call, {data<T>(real), data<T>(complex), keep_ket ? data<T>(ket) : nullptr});
  return {real, complex, ket};
}

template <class T>
std::vector<Tensor> execute_vjp_as(const ProgramHandle& program, const std::vector<Tensor>& inputs, const Tensor& ket,
                                   const Tensor& g_real, const Tensor& g_complex, const std::vector<Index>& wanted) {
  const Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  const ops::CheckedCotangents<T> checked(arguments, inputs[0], ket, g_real, g_complex);
  ops::check_wanted(wanted, inputs.size());
  TorchDevice device(inputs[0].get_device_index());
  const DeviceCall<T> call = device_call<T>(arguments, device);
  Cotangents<T> cotangents = checked.view(inputs.size());
  std::vector<Tensor> gradients;
  for (const Index input : wanted) gradients.push_back(empty_gradient(input, inputs[input], device, cotangents));
  execute_vjp<T>(device, call, cotangents);
  return gradients;
}

template <class T>
Slopes execute_tangents_as(const ProgramHandle& program, const std::vector<Tensor>& inputs,
                           const std::vector<Tensor>& tangents, const std::vector<Index>& moving,
                           const std::vector<Tensor>& cotangents, const std::vector<Index>& wanted) {
  const Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  const ops::CheckedTangents<T> directions(arguments, tangents, moving);
  ops::CheckedDirectional<T> checked(arguments, inputs[0], wanted.empty() ? std::vector<Tensor>{} : cotangents);
  Directional<T>& directional = checked.directional;
  ops::check_wanted(wanted, inputs.size());
  TorchDevice device(inputs[0].get_device_index());
  DeviceCall<T> call = device_call<DualOf<T>>(arguments, device);
  call.tangents = directions.of_inputs;
  const Program& p = program->program;
  const Tensor real = empty({arguments.batch, p.real_results()}, real_type<T>, inputs[0]);
  const Tensor complex = empty({arguments.batch, p.complex_results()}, complex_type<T>, inputs[0]);
  directional.results = {data<T>(real), data<T>(complex), nullptr};
  std::vector<Tensor> gradients;
  for (const Index input : wanted)
    gradients.push_back(empty_gradient(input, inputs[input], device, directional.cotangents));
  execute_tangents<T>(device, call, directional);
  return {real, complex, gradients};
}

// The first input's device is the current one. Where that is the CPU, the arguments are refused by name later on.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& first) {
    if (first.is_cuda()) guard_.emplace(first.get_device_index());
  }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

}  // namespace

Executed execute_cuda(std::int64_t program, std::vector<Tensor> inputs, bool keep_ket) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  return single ? execute_as<float>(found, inputs, keep_ket) : execute_as<double>(found, inputs, keep_ket);
}

std::vector<Tensor> execute_vjp_cuda(std::int64_t program, std::vector<Tensor> inputs, const Tensor& ket,
                                     const Tensor& g_real, const Tensor& g_complex, std::vector<std::int64_t> wanted) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  const std::vector<Index> list(wanted.begin(), wanted.end());
  return single ? execute_vjp_as<float>(found, inputs, ket, g_real, g_complex, list)
                : execute_vjp_as<double>(found, inputs, ket, g_real, g_complex, list);
}

namespace {

Slopes execute_tangents(std::int64_t program, const std::vector<Tensor>& inputs, const std::vector<Tensor>& tangents,
                        const std::vector<std::int64_t>& moving, const std::vector<Tensor>& cotangents,
                        const std::vector<std::int64_t>& wanted) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  const std::vector<Index> moves(moving.begin(), moving.end());
  const std::vector<Index> wants(wanted.begin(), wanted.end());
  return single ? execute_tangents_as<float>(found, inputs, tangents, moves, cotangents, wants)
                : execute_tangents_as<double>(found, inputs, tangents, moves, cotangents, wants);
}

}  // namespace

std::tuple<Tensor, Tensor> execute_jvp_cuda(std::int64_t program, std::vector<Tensor> inputs,
                                            std::vector<Tensor> tangents, std::vector<std::int64_t> moving) {
  const Slopes found = execute_tangents(program, inputs, tangents, moving, {}, {});
  return {std::get<0>(found), std::get<1>(found)};
}

Slopes execute_vjp_jvp_cuda(std::int64_t program, std::vector<Tensor> inputs, std::vector<Tensor> tangents,
                            std::vector<std::int64_t> moving, const Tensor& g_real, const Tensor& g_complex,
                            const Tensor& dg_real, const Tensor& dg_complex, std::vector<std::int64_t> wanted) {
  return execute_tangents(program, inputs, tangents, moving, {g_real, g_complex, dg_real, dg_complex}, wanted);
}

}  // namespace ketgrad::cuda

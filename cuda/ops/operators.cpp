// The operators on CUDA: checks what torch hands over, allocates from torch's caching allocator, calls the engine on
// the current stream of the first input's device.
#include "cuda/ops/operators.h"

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

#include "cuda/engine/engine.h"
#include "cuda/kernels/errors.h"
#include "cuda/ops/connection.h"
#include "cuda/ops/tensors.h"
#include "math/dual.h"
#include "ops/checks.h"
#include "plan/gpu_layout.h"

namespace ketgrad::cuda {
namespace {

using ops::Arguments;
using ops::complex_type;
using ops::data;
using ops::real_type;

// While this lives, its thread may make calls that CUDA forbids to all threads while one of them captures a graph,
// since they could invalidate the capture: allocate, query events, wait for a stream. Ours do not touch the captured
// stream.
class DuringCaptures {
 public:
  DuringCaptures() { require_success(cudaThreadExchangeStreamCaptureMode(&other_mode_), "setting the capture mode"); }
  DuringCaptures(const DuringCaptures&) = delete;
  DuringCaptures& operator=(const DuringCaptures&) = delete;
  ~DuringCaptures() { cudaThreadExchangeStreamCaptureMode(&other_mode_); }

 private:
  cudaStreamCaptureMode other_mode_ = cudaStreamCaptureModeRelaxed;
};

// --- memory ----------------------------------------------------------------------------------------------------------

// Memory of torch's caching allocator, on the current stream; freed by the destructor.
class DeviceMemory {
 public:
  DeviceMemory(std::size_t bytes, int device) {
    if (aoti_torch_cuda_caching_allocator_raw_alloc(bytes, &memory_) != AOTI_TORCH_SUCCESS)
      throw_failed_allocation(static_cast<double>(bytes), device);
  }
  DeviceMemory(DeviceMemory&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() {
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

// Queried once for each device.
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

  // Small allocations share one of torch's: an allocation for each would take longer than a small circuit.
  void* allocate(std::size_t bytes) override {
    constexpr std::size_t alignment = 256;
    constexpr std::size_t shared_allocation = std::size_t{1} << 20;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    if (bytes > left_) {
      const std::size_t taken = std::max(bytes, shared_allocation);
      memory_.emplace_back(taken, index_);
      if (taken > bytes || left_ == 0) {
        next_ = memory_.back().address();
        left_ = taken;
      } else {
        return memory_.back().address();
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
  std::vector<DeviceMemory> memory_;
  unsigned char* next_ = nullptr;
  std::size_t left_ = 0;
};

// --- tables ----------------------------------------------------------------------------------------------------------

// A point in a stream of work.
class Event {
 public:
  Event() { require_success(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event"); }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }

  void record(cudaStream_t stream) { require_success(cudaEventRecord(event_, stream), "recording an event"); }

  // False also where CUDA reports a failure: then it is unknown.
  bool has_passed() const {
    const cudaError_t error = cudaEventQuery(event_);
    if (error == cudaErrorNotReady) cudaGetLastError();  // not a failure: the next launch must not report it
    return error == cudaSuccess;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  require_success(cudaStreamIsCapturing(stream, &status), "asking about a capture");
  return status != cudaStreamCaptureStatusNone;
}

// A program's tables on a device, for numbers of one size. Their memory is allocated on the stream of the first call
// and freed there, which does not wait for reads by other streams: an event for each of these says when they have
// ended.
class ProgramTables {
 public:
  explicit ProgramTables(const ProgramHandle& program) : program_(program) {}

  // Before a call's launches. Threads that need the same tables wait while the first one makes them.
  const DeviceTables& begin_use(const ProgramHandle& program, TorchDevice& device, std::size_t number_bytes) {
    const std::lock_guard lock(mutex_);
    const bool captures = is_capturing(device.stream());
    if (!memory_.has_value()) {
      if (captures)
        throw std::runtime_error(
            "ketgrad: a circuit's first call on a device copies its tables there, which a CUDA graph cannot capture; "
            "run it once before the capture (warm-up)");
      upload(make_tables(program->plan(gpu_layout(program->program.num_wires, number_bytes, device.shared_bytes))),
             device);
    }
    if (captures) captured_ = program;
    return tables_;
  }

  // After a call's launches, some of which may have failed.
  void end_use(cudaStream_t stream) noexcept {
    const std::lock_guard lock(mutex_);
    if (stream == home_ || captured_ != nullptr) return;
    try {
      readers_[stream].record(stream);
    } catch (const std::exception&) {
      is_lost_ = true;
    }
  }

  bool is_expired() const { return program_.expired(); }

  // Whether the memory may be freed, once the program is gone.
  bool is_unread() {
    const std::lock_guard lock(mutex_);
    std::erase_if(readers_, [](const auto& reader) { return reader.second.has_passed(); });
    return readers_.empty() && !is_lost_;
  }

 private:
  // Waits for the copy, since other streams may call the program next: once for each program and device.
  void upload(Tables tables, const TorchDevice& device) {
    std::vector<unsigned char> bytes(tables.bytes());
    DeviceMemory memory(std::max<std::size_t>(bytes.size(), 1), device.index());
    tables_.view = tables.place(memory.address(), [&](std::size_t offset, const void* from, std::size_t n) {
      std::memcpy(bytes.data() + offset, from, n);
    });
    tables_.tables = std::move(tables);
    require_success(
        cudaMemcpyAsync(memory.address(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, device.stream()),
        "copying a program's tables");
    require_success(cudaStreamSynchronize(device.stream()), "copying a program's tables");
    home_ = device.stream();
    memory_ = std::move(memory);
  }

  const std::weak_ptr<const PlannedProgram> program_;
  std::mutex mutex_;        // guards all below; tables do not change once they are made
  ProgramHandle captured_;  // a graph may be replayed at any time and reads the tables: they are never freed
  std::optional<DeviceMemory> memory_;  // none before the first call
  DeviceTables tables_;
  cudaStream_t home_ = nullptr;  // the stream of the memory
  std::map<cudaStream_t, Event> readers_;
  bool is_lost_ = false;  // a reader has no event, so the memory is not freed
};

// Holds a call's tables while it launches. Destroyed before the call releases the program.
class TableUse {
 public:
  TableUse(std::shared_ptr<ProgramTables> program_tables, const ProgramHandle& program, TorchDevice& device,
           std::size_t number_bytes)
      : program_tables_(std::move(program_tables)),
        stream_(device.stream()),
        tables_(program_tables_->begin_use(program, device, number_bytes)) {}
  TableUse(const TableUse&) = delete;
  TableUse& operator=(const TableUse&) = delete;
  ~TableUse() { program_tables_->end_use(stream_); }

  const DeviceTables& tables() const { return tables_; }

 private:
  std::shared_ptr<ProgramTables> program_tables_;
  cudaStream_t stream_;
  const DeviceTables& tables_;
};

// Tables are made at a program's first call on a device. Once the program is gone, the first call of another program
// that finds them unread frees them, without waiting.
class TableCache {
 public:
  // For an engine on numbers of type N.
  template <class N>
  TableUse use(const ProgramHandle& program, TorchDevice& device) {
    return TableUse(find({program->id, device.index(), sizeof(N)}, program), program, device, sizeof(N));
  }

 private:
  struct Key {
    std::int64_t program;
    int device;
    std::size_t number_bytes;
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  // The lock is never held while planning, copying or waiting.
  std::shared_ptr<ProgramTables> find(const Key& key, const ProgramHandle& program) {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    if (at != entries_.end() && !at->second->is_expired()) return at->second;
    forget_expired();
    return entries_[key] = std::make_shared<ProgramTables>(program);
  }

  // An equal program may be registered again before the tables of the expired one are unread.
  void forget_expired() {
    std::erase_if(entries_, [this](const auto& entry) {
      if (!entry.second->is_expired()) return false;
      expired_.push_back(entry.second);
      return true;
    });
    std::erase_if(expired_, [](const auto& tables) { return tables->is_unread(); });
  }

  std::mutex mutex_;
  std::map<Key, std::shared_ptr<ProgramTables>> entries_;
  std::vector<std::shared_ptr<ProgramTables>> expired_;
};

// Never destroyed: at exit the allocator may already be gone.
TableCache& table_cache() {
  static auto* cache = new TableCache;
  return *cache;
}

// --- the operators ---------------------------------------------------------------------------------------------------

template <class T>
DeviceCall<T> device_call(const Arguments<T>& arguments, const TableUse& use) {
  return {&use.tables(), arguments.samples(), arguments.views, {}};
}

// Kernels know no copies of circuits: each input that is batched, or has gradients or tangents of its own for each
// sample, gets a row for each sample.
template <class T>
void repeat_inputs(Arguments<T>& arguments, const std::vector<Index>& own, TorchDevice& device) {
  if (!arguments.copies.has_value()) return;
  for (std::size_t i = 0; i < arguments.inputs.size(); ++i) {
    InputView<T>& view = arguments.views[i];
    if (!view.batched && std::find(own.begin(), own.end(), static_cast<Index>(i)) == own.end()) continue;
    std::vector<Index> shape = arguments.program->program.inputs[i].shape;
    shape.insert(shape.begin(), arguments.samples());
    arguments.inputs[i] = repeated(arguments.inputs[i], shape, device);
    view.data = data<const T>(arguments.inputs[i]);
    view.batched = true;
  }
}

// A gradient of zeros, to which the call adds the input's.
template <class T>
Tensor empty_gradient(const Arguments<T>& arguments, Index input, TorchDevice& device, Cotangents<T>& cotangents) {
  const Tensor& like = arguments.inputs[input];
  Tensor gradient = empty(arguments.gradient_shape(input), like.scalar_type(), like);
  const ScalarType type = like.scalar_type();
  const bool is_complex = type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble;
  device.zero(data<T>(gradient), gradient.numel() * (is_complex ? 2 : 1) * sizeof(T));
  cotangents.gradients[input] = ops::gradient_address<T>(gradient);
  return gradient;
}

template <class T>
ForwardTensors execute_as(const ProgramHandle& program, const std::vector<Tensor>& inputs, ops::KeepKet keep_ket) {
  const Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  TorchDevice device(inputs[0].get_device_index());
  const TableUse use = table_cache().use<T>(arguments.program, device);
  const DeviceCall<T> call = device_call(arguments, use);
  const Program& p = program->program;
  const Tensor real = empty({arguments.batch, p.real_results()}, real_type<T>, inputs[0]);
  const Tensor complex = empty({arguments.batch, p.complex_results()}, complex_type<T>, inputs[0]);
  const Index ket_size = keep_ket == ops::KeepKet::no ? 0 : program->ket_size();
  const Tensor ket = empty({arguments.batch, ket_size}, complex_type<T>, inputs[0]);
  execute<T>(device, call, {data<T>(real), data<T>(complex), ket_size > 0 ? data<T>(ket) : nullptr});
  return {real, complex, ket};
}

template <class T>
std::vector<Tensor> execute_vjp_as(const ProgramHandle& program, const std::vector<Tensor>& inputs, const Tensor& ket,
                                   const Tensor& g_real, const Tensor& g_complex, const std::vector<Index>& requested) {
  Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  arguments.copies = ops::copies_of(g_real, 2);
  ops::CheckedCotangents<T> checked(arguments, inputs[0], ket, g_real, g_complex);
  ops::check_requested(requested, inputs.size());
  TorchDevice device(inputs[0].get_device_index());
  repeat_inputs(arguments, requested, device);
  if (checked.has_ket && arguments.copies.has_value())
    checked.ket = repeated(checked.ket, {arguments.samples(), program->ket_size()}, device);
  const TableUse use = table_cache().use<T>(arguments.program, device);
  const DeviceCall<T> call = device_call(arguments, use);
  Cotangents<T> cotangents = checked.view(inputs.size());
  std::vector<Tensor> gradients;
  for (const Index input : requested) gradients.push_back(empty_gradient(arguments, input, device, cotangents));
  execute_vjp<T>(device, call, cotangents);
  return gradients;
}

template <class T>
TensorsAndGradients execute_tangents_as(const ProgramHandle& program, const std::vector<Tensor>& inputs,
                                        const std::vector<Tensor>& tangents, const std::vector<Index>& with_tangent,
                                        const std::vector<Tensor>& cotangents, const std::vector<Index>& requested) {
  Arguments<T> arguments = ops::check_arguments<T>(program, inputs);
  arguments.copies =
      requested.empty() ? ops::copies_of(arguments, tangents, with_tangent) : ops::copies_of(cotangents[0], 2);
  const ops::CheckedTangents<T> directions(arguments, tangents, with_tangent);
  ops::CheckedDirectional<T> checked(arguments, inputs[0], requested.empty() ? std::vector<Tensor>{} : cotangents);
  Directional<T>& directional = checked.directional;
  ops::check_requested(requested, inputs.size());
  TorchDevice device(inputs[0].get_device_index());
  std::vector<Index> own = with_tangent;
  own.insert(own.end(), requested.begin(), requested.end());
  repeat_inputs(arguments, own, device);
  const TableUse use = table_cache().use<DualOf<T>>(arguments.program, device);
  DeviceCall<T> call = device_call(arguments, use);
  call.tangents = directions.of_inputs;
  const Program& p = program->program;
  const Tensor real = empty(arguments.of_samples({p.real_results()}), real_type<T>, inputs[0]);
  const Tensor complex = empty(arguments.of_samples({p.complex_results()}), complex_type<T>, inputs[0]);
  directional.results = {data<T>(real), data<T>(complex), nullptr};
  std::vector<Tensor> gradients;
  for (const Index input : requested)
    gradients.push_back(empty_gradient(arguments, input, device, directional.cotangents));
  execute_tangents<T>(device, call, directional);
  return {real, complex, gradients};
}

// An operator runs with the first input's device as the current one. If that is the CPU, the checks of arguments refuse
// it later, by name.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& first) {
    if (first.is_cuda()) guard_.emplace(first.get_device_index());
  }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  DuringCaptures during_captures_;
};

}  // namespace

ForwardTensors execute_cuda(std::int64_t program, std::vector<Tensor> inputs, std::int64_t keep_ket) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  const ops::KeepKet keep = ops::check_keep_ket(keep_ket);
  return single ? execute_as<float>(found, inputs, keep) : execute_as<double>(found, inputs, keep);
}

std::vector<Tensor> execute_vjp_cuda(std::int64_t program, std::vector<Tensor> inputs, const Tensor& ket,
                                     const Tensor& g_real, const Tensor& g_complex,
                                     std::vector<std::int64_t> requested) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  const std::vector<Index> list(requested.begin(), requested.end());
  return single ? execute_vjp_as<float>(found, inputs, ket, g_real, g_complex, list)
                : execute_vjp_as<double>(found, inputs, ket, g_real, g_complex, list);
}

// The kets of a batch do not stay in any cache of a GPU: one sweep after the other.
TensorsAndGradients execute_and_vjp_cuda(std::int64_t program, std::vector<Tensor> inputs, const Tensor& g_real,
                                         const Tensor& g_complex, double curvature,
                                         std::vector<std::int64_t> requested) {
  const auto [real, complex, ket] = execute_cuda(program, inputs, true);
  const Tensor cotangent = curvature == 0 ? g_real : torch::stable::subtract(g_real, real, -curvature);
  return {real, complex, execute_vjp_cuda(program, inputs, ket, cotangent, g_complex, requested)};
}

namespace {

TensorsAndGradients execute_tangents(std::int64_t program, const std::vector<Tensor>& inputs,
                                     const std::vector<Tensor>& tangents, const std::vector<std::int64_t>& with_tangent,
                                     const std::vector<Tensor>& cotangents,
                                     const std::vector<std::int64_t>& requested) {
  const bool single = ops::is_single(inputs);
  const OnDevice guard(inputs[0]);
  const ProgramHandle found = connected_program(program);
  const std::vector<Index> inputs_with_tangent(with_tangent.begin(), with_tangent.end());
  const std::vector<Index> requested_inputs(requested.begin(), requested.end());
  return single
             ? execute_tangents_as<float>(found, inputs, tangents, inputs_with_tangent, cotangents, requested_inputs)
             : execute_tangents_as<double>(found, inputs, tangents, inputs_with_tangent, cotangents, requested_inputs);
}

}  // namespace

std::tuple<Tensor, Tensor> execute_jvp_cuda(std::int64_t program, std::vector<Tensor> inputs,
                                            std::vector<Tensor> tangents, std::vector<std::int64_t> with_tangent) {
  const TensorsAndGradients found = execute_tangents(program, inputs, tangents, with_tangent, {}, {});
  return {std::get<0>(found), std::get<1>(found)};
}

TensorsAndGradients execute_vjp_jvp_cuda(std::int64_t program, std::vector<Tensor> inputs, std::vector<Tensor> tangents,
                                         std::vector<std::int64_t> with_tangent, const Tensor& g_real,
                                         const Tensor& g_complex, const Tensor& dg_real, const Tensor& dg_complex,
                                         std::vector<std::int64_t> requested) {
  return execute_tangents(program, inputs, tangents, with_tangent, {g_real, g_complex, dg_real, dg_complex}, requested);
}

}  // namespace ketgrad::cuda

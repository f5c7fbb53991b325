// The CUDA runtime, and torch's allocator for it, as far as execute_cuda.cpp calls them, on the host: one device whose
// memory is the host's and whose streams do everything at once. What it hands out is anything but zero.
//
// Nothing here waits for a device or frees its memory past torch (cudaDeviceSynchronize, cudaFree): who calls that does
// not compile. Tests say which stream a thread is on, hold streams, as if their work took long, and begin captures
// (runtime.cpp).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToDevice = 3 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal = 0, cudaStreamCaptureModeRelaxed = 2 };
using cudaStream_t = void*;
using cudaEvent_t = int*;
inline constexpr unsigned cudaEventDisableTiming = 2;

struct cudaDeviceProp {
  int multiProcessorCount = 2;
  std::size_t sharedMemPerBlockOptin = std::size_t{64} << 10;
  std::size_t totalGlobalMem = std::size_t{1} << 34;
};

namespace ketgrad::host {

struct Runtime {
  std::mutex mutex;  // of all below
  std::condition_variable released;
  std::set<cudaStream_t> held;
  int waiting = 0;                              // threads, for streams that are held
  std::map<cudaEvent_t, cudaStream_t> pending;  // recorded on a stream that is held since
  std::set<cudaStream_t> capturing;
  bool captures_are_valid = true;
  int blocks = 0;  // of memory that are not given back
};

inline Runtime runtime;
inline thread_local cudaStream_t current_stream = nullptr;
inline thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

// What no thread may do while any captures, unless it has said that it knows. The lock is held.
inline cudaError_t unsafe_in_captures() {
  if (runtime.capturing.empty() || capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  runtime.captures_are_valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace ketgrad::host

inline const char* cudaGetErrorString(cudaError_t) { return "an error of the emulation"; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const cudaStreamCaptureMode before = ketgrad::host::capture_mode;
  ketgrad::host::capture_mode = *mode;
  *mode = before;
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  auto& runtime = ketgrad::host::runtime;
  std::unique_lock lock(runtime.mutex);
  if (const cudaError_t error = ketgrad::host::unsafe_in_captures()) return error;
  ++runtime.waiting;
  runtime.released.wait(lock, [&] { return !runtime.held.contains(stream); });
  --runtime.waiting;
  return cudaSuccess;
}

inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const std::lock_guard lock(ketgrad::host::runtime.mutex);
  const bool captures = ketgrad::host::runtime.capturing.contains(stream);
  *status = captures ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new int{};
  return cudaSuccess;
}

inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  auto& runtime = ketgrad::host::runtime;
  const std::lock_guard lock(runtime.mutex);
  runtime.pending.erase(event);
  if (runtime.held.contains(stream)) runtime.pending.emplace(event, stream);
  return cudaSuccess;
}

inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(ketgrad::host::runtime.mutex);
  if (const cudaError_t error = ketgrad::host::unsafe_in_captures()) return error;
  return ketgrad::host::runtime.pending.contains(event) ? cudaErrorNotReady : cudaSuccess;
}

inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(ketgrad::host::runtime.mutex);
  ketgrad::host::runtime.pending.erase(event);
  delete event;
  return cudaSuccess;
}

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

inline int aoti_torch_cuda_caching_allocator_raw_alloc(std::uint64_t bytes, void** memory) {
  const std::lock_guard lock(ketgrad::host::runtime.mutex);
  if (ketgrad::host::unsafe_in_captures() != cudaSuccess) return 1;
  constexpr std::size_t alignment = 256;
  *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (*memory == nullptr) return 1;
  std::memset(*memory, 0xff, bytes);
  ++ketgrad::host::runtime.blocks;
  return 0;
}

inline int aoti_torch_cuda_caching_allocator_raw_delete(void* memory) {
  const std::lock_guard lock(ketgrad::host::runtime.mutex);
  --ketgrad::host::runtime.blocks;
  std::free(memory);
  return 0;
}

inline int aoti_torch_get_current_cuda_stream(std::int32_t, void** stream) {
  *stream = ketgrad::host::current_stream;
  return 0;
}

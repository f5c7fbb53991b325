// The functions and macros that kernels are written in. For nvcc they are those of the GPU; for any other compiler,
// those of the emulation of one on the host (emulation.h), which tests and sanitizes the same kernels where there is no
// GPU. Nothing else differs between the two builds.
//
//   KETGRAD_KERNEL, KETGRAD_DEVICE                declare a kernel, and a function that kernels call
//   KETGRAD_BOUNDS(threads, blocks)               most threads of a block, and the least blocks of a multiprocessor
//   thread_index(), block_threads()               this thread within its block, and how many those are
//   block_index()                                 this block within the launch
//   barrier()                                     of all threads of the block
//   shuffle_xor(value, mask)                      the value of lane (this ^ mask) of the warp; all 32 lanes take part
//   shuffle(value, lane)                          the value of that lane of the warp; likewise
//   add_alone(sum, value)                         *sum += value, where no other thread adds; does not wait
//   with_sign(x, signs)                           -x where the highest bit of signs is set, else x
//   Shared<T>(byte_offset, count)                 an array in the block's shared memory: get(i), set(i, value)
//   launch(queue, blocks, threads, shared_bytes, kernel, arguments...)
#pragma once

#include "cuda/kernels/queue.h"
#include "math/bits.h"

namespace ketgrad::cuda {

inline constexpr int warp_size = 32;

}  // namespace ketgrad::cuda

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include "cuda/kernels/errors.h"

#define KETGRAD_KERNEL static __global__ void
#define KETGRAD_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define KETGRAD_DEVICE __device__ __forceinline__

namespace ketgrad::cuda {

KETGRAD_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
KETGRAD_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
KETGRAD_DEVICE Index block_index() { return static_cast<Index>(blockIdx.x); }
KETGRAD_DEVICE void barrier() { __syncthreads(); }

template <class T>
KETGRAD_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

template <class T>
KETGRAD_DEVICE T shuffle(T value, int warp_lane) {
  return __shfl_sync(0xffffffffu, value, warp_lane);
}

// Additions of one thread to one place are done in its order, so the sum has the same bits each time.
KETGRAD_DEVICE void add_alone(double* sum, double value) { atomicAdd(sum, value); }

template <class T>
class Shared {
 public:
  KETGRAD_DEVICE Shared(std::size_t byte_offset, Index) {
    extern __shared__ __align__(16) unsigned char shared_memory[];
    data_ = reinterpret_cast<T*>(shared_memory + byte_offset);
  }
  KETGRAD_DEVICE T get(Index i) const { return data_[i]; }
  KETGRAD_DEVICE void set(Index i, const T& value) { data_[i] = value; }

 private:
  T* data_;
};

KETGRAD_DEVICE bool odd(Mask bits) { return (__popcll(bits) & 1) != 0; }

KETGRAD_DEVICE float with_sign(float x, std::uint32_t signs) {
  return __uint_as_float(__float_as_uint(x) ^ (signs & 0x80000000u));
}
KETGRAD_DEVICE double with_sign(double x, std::uint32_t signs) {
  return __hiloint2double(__double2hiint(x) ^ static_cast<int>(signs & 0x80000000u), __double2loint(x));
}

inline constexpr Index most_blocks = 0x7fffffff;

// The shared memory that a block has by default.
inline constexpr std::size_t default_shared_bytes = std::size_t{48} << 10;

// Allows a kernel as much shared memory as a block of the current device can have. The limit is a property of the
// function on the device, shared by all threads and by graphs that are instantiated later, so it is set to the maximum,
// once. With the limit of a launch, another thread could lower it before the launch is made.
inline void allow_all_shared_memory(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<int, const void*>> allowed;
  int device = 0;
  require_success(cudaGetDevice(&device), "asking for the current device");
  const std::lock_guard lock(mutex);
  if (allowed.contains({device, kernel})) return;
  int most = 0;
  require_success(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                  "asking how much shared memory a block can have");
  require_success(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
                  "asking for shared memory");
  allowed.emplace(device, kernel);
}

template <class... Parameters, class... Arguments>
void launch(const Queue& queue, Index blocks, int threads, std::size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks > most_blocks)
    throw std::runtime_error("ketgrad: more work than one launch can take; use a smaller batch");
  if (shared_bytes > default_shared_bytes) allow_all_shared_memory(reinterpret_cast<const void*>(kernel));
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes,
           static_cast<cudaStream_t>(queue.stream)>>>(arguments...);
  require_success(cudaGetLastError(), "a launch");
}

}  // namespace ketgrad::cuda

#else

#define KETGRAD_BOUNDS(threads, blocks)

#include "cuda/emulation/emulation.h"

#endif

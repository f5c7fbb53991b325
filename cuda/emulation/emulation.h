// A CUDA device on the host, for compilers other than nvcc, on which kernels are tested where there is no GPU. Only
// device.h includes this; it documents the functions.
//
// Blocks run one after the other, the threads of a block as fibers of which one runs at a time. The next block is
// drawn at random, and so is the next fiber whenever one waits or ends, so code that depends on an order soon fails.
// Errors that a GPU answers with garbage or a hang end the launch with a std::logic_error that names them:
//   - two threads at the same bytes of shared memory, one of them writing, without a barrier between them; this does
//     not depend on the order that was drawn
//   - shared memory read before it is written, or accessed beyond its array or beyond what the launch asked for
//   - a barrier or a shuffle that some thread does not reach
// Global memory is the host's, checked by the host's sanitizers; races there are not found.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "cuda/kernels/device.h"
#include "math/bits.h"

#define KETGRAD_KERNEL [[maybe_unused]] static void
#define KETGRAD_DEVICE inline

namespace ketgrad::cuda {

namespace emulation {

struct Grid {
  Index blocks;
  int threads;
  std::size_t shared_bytes;
};

// An array in shared memory.
struct Array {
  std::size_t byte_offset;
  Index count;
  std::size_t size;  // of an element
  std::size_t alignment;
};

void run(const Grid& grid, const std::function<void()>& kernel);
void load(const Array& array, Index i, void* value);
void store(const Array& array, Index i, const void* value);

inline constexpr std::size_t shuffle_bytes = 16;

// Replaces `value` with that of a lane of the warp.
void exchange(void* value, std::size_t size, int warp_lane);

}  // namespace emulation

int thread_index();
int block_threads();
Index block_index();
void barrier();

// The orders from here on are drawn from this seed.
void seed_emulation(std::uint64_t seed);

// Since the program started, without launches of no blocks.
Index launch_count();

template <class T>
T shuffle(T value, int warp_lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= emulation::shuffle_bytes);
  emulation::exchange(&value, sizeof value, warp_lane);
  return value;
}

template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, (thread_index() % warp_size) ^ mask);
}

inline void add_alone(double* sum, double value) { *sum += value; }

template <class T>
class Shared {
  static_assert(std::is_trivially_copyable_v<T>);
  static_assert(sizeof(T) % 4 == 0 && alignof(T) % 4 == 0, "accesses are watched in units of 4 bytes");

 public:
  Shared(std::size_t byte_offset, Index count) : array_{byte_offset, count, sizeof(T), alignof(T)} {}
  T get(Index i) const {
    T value;
    emulation::load(array_, i, &value);
    return value;
  }
  void set(Index i, const T& value) { emulation::store(array_, i, &value); }

 private:
  emulation::Array array_;
};

inline bool odd(Mask bits) { return (std::popcount(bits) & 1) != 0; }

inline float with_sign(float x, std::uint32_t signs) { return (signs >> 31) != 0 ? -x : x; }
inline double with_sign(double x, std::uint32_t signs) { return (signs >> 31) != 0 ? -x : x; }

template <class... Parameters, class... Arguments>
void launch(const Queue&, Index blocks, int threads, std::size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a GPU gets copies of the bytes, not references");
  emulation::run({blocks, threads, shared_bytes}, [&] { kernel(arguments...); });
}

}  // namespace ketgrad::cuda

// The shared memory of a block under the emulation, which finds races and uninitialised reads.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/kernels/device.h"

namespace ketgrad::cuda::emulation {

inline std::string thread_name(int index) { return "thread " + std::to_string(index); }

// Shared memory of a block, and which threads accessed it. The epoch is the number of barriers passed: accesses in
// different epochs have a barrier between them, accesses in the same epoch have none, whatever their order.
class SharedMemory {
 public:
  void clear(std::size_t bytes) {
    bytes_.assign(bytes, std::byte{});
    watched_.assign((bytes + watched_bytes - 1) / watched_bytes, Watched{});
  }

  // These return what is wrong with the access, or an empty string.
  std::string load(const Array& array, Index i, int thread, Index epoch, void* value) {
    std::string error = misplaced(array, i, thread);
    if (!error.empty()) return error;
    const std::size_t begin = place(array, i);
    for (std::size_t b = begin; b < begin + array.size; b += watched_bytes) {
      Watched& w = watched_[b / watched_bytes];
      if (w.written_in == never)
        return thread_name(thread) + " reads " + name(array, i, b) + ", which no thread of the block has written";
      if (w.written_in == epoch && w.writer != thread) return race(w.writer, thread, "write and read", array, i, b);
      if (w.read_in != epoch) w.readers[0] = w.readers[1] = thread;
      if (w.readers[0] != thread) w.readers[1] = thread;
      w.read_in = epoch;
    }
    std::memcpy(value, &bytes_[begin], array.size);
    return {};
  }

  std::string store(const Array& array, Index i, int thread, Index epoch, const void* value) {
    std::string error = misplaced(array, i, thread);
    if (!error.empty()) return error;
    const std::size_t begin = place(array, i);
    for (std::size_t b = begin; b < begin + array.size; b += watched_bytes) {
      Watched& w = watched_[b / watched_bytes];
      if (w.written_in == epoch && w.writer != thread) return race(w.writer, thread, "both write", array, i, b);
      const int reader = w.readers[0] != thread ? w.readers[0] : w.readers[1];
      if (w.read_in == epoch && reader != thread) return race(reader, thread, "read and write", array, i, b);
      w.written_in = epoch;
      w.writer = thread;
    }
    std::memcpy(&bytes_[begin], value, array.size);
    return {};
  }

 private:
  static constexpr std::size_t watched_bytes = 4;
  static constexpr Index never = -1;

  struct Watched {
    Index written_in = never;  // the last epoch
    Index read_in = never;
    int writer = 0;    // in that epoch; a second one is an error
    int readers[2]{};  // two in that epoch, if there were two: for any thread, one of them is another
  };

  static std::size_t place(const Array& array, Index i) {
    return array.byte_offset + static_cast<std::size_t>(i) * array.size;
  }

  static std::string name(const Array& array, Index i, std::size_t byte) {
    return "byte " + std::to_string(byte) + " of shared memory (element " + std::to_string(i) + " of the array at " +
           std::to_string(array.byte_offset) + ")";
  }

  static std::string race(int first, int second, const char* what, const Array& array, Index i, std::size_t byte) {
    return "threads " + std::to_string(first) + " and " + std::to_string(second) + " " + what + " " +
           name(array, i, byte) + " without a barrier between them";
  }

  std::string misplaced(const Array& array, Index i, int thread) const {
    const bool inside = i >= 0 && i < array.count;
    if (inside && place(array, i) + array.size <= bytes_.size() && array.byte_offset % array.alignment == 0) return {};
    std::string error = thread_name(thread) + " accesses element " + std::to_string(i) + " of the array of " +
                        std::to_string(array.count) + " at byte " + std::to_string(array.byte_offset);
    if (!inside) return error + ": out of range";
    if (array.byte_offset % array.alignment != 0) return error + ", which its type cannot be aligned to";
    return error + ": the launch asked for " + std::to_string(bytes_.size()) + " bytes of shared memory";
  }

  std::vector<std::byte> bytes_;
  std::vector<Watched> watched_;
};

}  // namespace ketgrad::cuda::emulation

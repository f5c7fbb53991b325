// New tensors on a GPU: for results, and with numbers repeated.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "cuda/engine/engine.h"
#include "cuda/kernels/errors.h"
#include "ops/checks.h"
#include "runtime/memory.h"

namespace ketgrad::cuda {

using ops::ScalarType;
using torch::stable::Tensor;

// torch only reports that an allocation failed. Throws CUDA's own error if it has one other than out of memory, such as
// one of an earlier launch; otherwise what is torch.OutOfMemoryError in Python, which retry code catches.
[[noreturn]] inline void throw_failed_allocation(double bytes, int device) {
  const cudaError_t error = cudaPeekAtLastError();
  if (error != cudaErrorMemoryAllocation) require_success(error, "an allocation");
  throw OutOfMemory("CUDA out of memory: ketgrad asked for " + std::to_string(static_cast<std::int64_t>(bytes)) +
                    " bytes on cuda:" + std::to_string(device));
}

inline Tensor empty(const std::vector<Index>& shape, ScalarType type, const Tensor& like) {
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

// A tensor of `shape` in which `block` is repeated. Each copy doubles what is there.
inline Tensor repeated(const Tensor& block, const std::vector<Index>& shape, Device& device) {
  Tensor found = empty(shape, block.scalar_type(), block);
  const std::size_t all = found.numel() * block.element_size();
  std::size_t done = block.numel() * block.element_size();
  if (all == 0) return found;
  auto* bytes = ops::data<unsigned char>(found);
  device.copy(bytes, block.data_ptr(), done);
  while (done < all) {
    const std::size_t more = std::min(done, all - done);
    device.copy(bytes + done, bytes, more);
    done += more;
  }
  return found;
}

}  // namespace ketgrad::cuda

// What the CUDA runtime reports, as an exception.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace ketgrad::cuda {

inline void require_success(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("ketgrad: ") + what + " failed: " + cudaGetErrorString(error));
}

}  // namespace ketgrad::cuda

// A stream: launches run one after the other.
#pragma once

namespace ketgrad::cuda {

struct Queue {
  void* stream = nullptr;  // a cudaStream_t; the emulation has none
};

}  // namespace ketgrad::cuda

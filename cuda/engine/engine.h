// One operator call on a GPU: the order of launches. Nothing here waits for the device or reads what it computed.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/kernels/queue.h"
#include "cuda/tables/tables.h"
#include "program/call.h"

namespace ketgrad::cuda {

// What a call runs on.
class Device {
 public:
  virtual ~Device() = default;

  // Device memory that lives as long as this object, aligned to 256 bytes.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void zero(void* memory, std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;

  Queue queue;
  int multiprocessors = 1;
  std::size_t shared_bytes = 0;     // of a thread block
  std::size_t workspace_bytes = 0;  // of a call; samples that do not fit go in chunks
};

// Tables and their copy on the device.
struct DeviceTables {
  Tables tables;
  TablesView view;
};

template <class T>
struct DeviceCall {
  const DeviceTables* tables = nullptr;
  Index batch = 0;
  std::vector<InputView<T>> inputs;  // addresses on the device
  std::vector<const T*> tangents;    // of the inputs: null where one has no tangent, empty if none has one
};

// Throws std::invalid_argument where a matrix is larger than a block's shared memory.
template <class T>
void execute(Device& device, const DeviceCall<T>& call, const Results<T>& results);

template <class T>
void execute_vjp(Device& device, const DeviceCall<T>& call, const Cotangents<T>& cotangents);

// Derivatives of both along the call's tangents; of execute_vjp only if a gradient is requested. It computes with
// duals, which take twice the bytes: the call's tables are those of a plan for numbers of that size.
template <class T>
void execute_tangents(Device& device, const DeviceCall<T>& call, const Directional<T>& directional);

// What this was compiled for: 80 of sm_80; nothing under the emulation.
std::vector<int> architectures();

}  // namespace ketgrad::cuda

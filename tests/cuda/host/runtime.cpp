// What tests say to the CUDA runtime on the host, and ask of it, by ctypes: streams are numbers, of which 0 is the
// default.
#include "cuda_runtime.h"

#define KETGRAD_FOR_TESTS extern "C" __attribute__((visibility("default")))

namespace {

using ketgrad::host::runtime;

cudaStream_t stream_of(std::intptr_t number) { return reinterpret_cast<cudaStream_t>(number); }

}  // namespace

KETGRAD_FOR_TESTS void host_use_stream(std::intptr_t stream) { ketgrad::host::current_stream = stream_of(stream); }

KETGRAD_FOR_TESTS void host_hold(std::intptr_t stream) {
  const std::lock_guard lock(runtime.mutex);
  runtime.held.insert(stream_of(stream));
}

KETGRAD_FOR_TESTS void host_release(std::intptr_t stream) {
  const std::lock_guard lock(runtime.mutex);
  runtime.held.erase(stream_of(stream));
  std::erase_if(runtime.pending, [&](const auto& event) { return event.second == stream_of(stream); });
  runtime.released.notify_all();
}

// Of threads that wait for a stream.
KETGRAD_FOR_TESTS int host_waiting() {
  const std::lock_guard lock(runtime.mutex);
  return runtime.waiting;
}

KETGRAD_FOR_TESTS void host_begin_capture(std::intptr_t stream) {
  const std::lock_guard lock(runtime.mutex);
  runtime.capturing.insert(stream_of(stream));
  runtime.captures_are_valid = true;
}

// Whether the capture, and any other of the same time, is valid.
KETGRAD_FOR_TESTS bool host_end_capture(std::intptr_t stream) {
  const std::lock_guard lock(runtime.mutex);
  runtime.capturing.erase(stream_of(stream));
  return runtime.captures_are_valid;
}

// Whether the thread's calls are exempt from what captures forbid.
KETGRAD_FOR_TESTS bool host_is_relaxed() { return ketgrad::host::capture_mode == cudaStreamCaptureModeRelaxed; }

// Of memory that are not given back: where no call runs, tables.
KETGRAD_FOR_TESTS int host_blocks() {
  const std::lock_guard lock(runtime.mutex);
  return runtime.blocks;
}

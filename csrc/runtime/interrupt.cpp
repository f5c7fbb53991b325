#include "runtime/interrupt.h"

#include <atomic>

namespace ketgrad {

namespace {
std::atomic<CancelHook> current{nullptr};
std::atomic<ThrowHook> current_thrower{nullptr};
}  // namespace

CancelHook cancel_hook() { return current.load(std::memory_order_relaxed); }

void set_cancel_hook(CancelHook hook, ThrowHook thrower) {
  current.store(hook, std::memory_order_relaxed);
  current_thrower.store(thrower, std::memory_order_relaxed);
}

void throw_interrupted() {
  if (const ThrowHook thrower = current_thrower.load(std::memory_order_relaxed); thrower != nullptr) thrower();
  throw Interrupted();
}

}  // namespace ketgrad

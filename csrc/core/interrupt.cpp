#include "core/interrupt.h"

#include <atomic>

namespace ketgrad {

namespace {
std::atomic<CancelHook> current{nullptr};
}

CancelHook cancel_hook() { return current.load(std::memory_order_relaxed); }

void set_cancel_hook(CancelHook hook) { current.store(hook, std::memory_order_relaxed); }

}  // namespace ketgrad

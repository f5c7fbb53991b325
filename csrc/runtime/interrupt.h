// Ctrl-C: long calls poll a hook, and end early when it returns true.
#pragma once

#include <stdexcept>

namespace ketgrad {

// Polled on the calling thread; true: end the call.
using CancelHook = bool (*)();
// Throws the host's exception for an interrupted call; called on the same thread after the hook returned true.
using ThrowHook = void (*)();

// The hook that new calls poll; null by default. The host of the library (bindings/) sets it once.
CancelHook cancel_hook();
void set_cancel_hook(CancelHook hook, ThrowHook thrower = nullptr);

// The user interrupted the call; its results are incomplete.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("ketgrad: interrupted") {}
};

// Throws the host's exception, or Interrupted without a host.
[[noreturn]] void throw_interrupted();

}  // namespace ketgrad

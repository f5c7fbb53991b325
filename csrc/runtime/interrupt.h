// Ctrl-C: long calls ask a hook between passes whether the user wants them to end.
#pragma once

#include <stdexcept>

namespace ketgrad {

// Asked on the thread that made the call; true: end it.
using CancelHook = bool (*)();
// Throws what the host wants an ended call to throw; called on that thread, after the hook said so.
using ThrowHook = void (*)();

// The hook that new calls use; null at first. Set once, by whoever hosts the library.
CancelHook cancel_hook();
void set_cancel_hook(CancelHook hook, ThrowHook thrower = nullptr);

// The user ended the call; results are incomplete and must not be used.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("ketgrad: interrupted") {}
};

// The host's exception, or Interrupted where it has none.
[[noreturn]] void throw_interrupted();

}  // namespace ketgrad

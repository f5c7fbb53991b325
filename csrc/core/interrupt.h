// Ctrl-C: long calls ask a hook between passes whether the user wants them to end.
#pragma once

#include <stdexcept>

namespace ketgrad {

// Asked on the thread that made the call; true: end it.
using CancelHook = bool (*)();

// The hook that new calls use; null at first. Set once, by whoever hosts the library.
CancelHook cancel_hook();
void set_cancel_hook(CancelHook hook);

// The user ended the call; results are incomplete and must not be used.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("ketgrad: interrupted") {}
};

}  // namespace ketgrad

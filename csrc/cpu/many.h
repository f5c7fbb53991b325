// Several calls at once, of programs that may differ.
#pragma once

#include <functional>
#include <span>

#include "cpu/call.h"

namespace ketgrad {

// Runs f(i), which makes call i of `calls`, for all of them: on the calling thread, in order, those that are spread over
// the threads themselves; then the others, as tasks of the pool. What f throws is thrown here, and no call begins after
// it.
template <class T>
void run_many(std::span<const Call<T>* const> calls, const std::function<void(Index)>& f);

}  // namespace ketgrad

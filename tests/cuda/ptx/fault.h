// What ends a run.
#pragma once

#include <stdexcept>
#include <string>

namespace ketgrad::ptx {

// Whole: with the kernel, the source line and the thread.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a thread does wrong. The machine, which knows where, makes a Fault of it.
struct Misuse : std::runtime_error {
  Misuse(int lane_, const std::string& what) : std::runtime_error(what), lane(lane_) {}

  int lane;  // of the warp that is running
};

}  // namespace ketgrad::ptx

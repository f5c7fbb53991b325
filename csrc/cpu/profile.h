// Times of calls, pass by pass. While profiling is off it costs one test a pass.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

namespace ketgrad {

// Seconds, added up over samples and threads.
struct PassTimes {
  std::vector<double> forward;  // per pass
  std::vector<double> backward;
  double measure = 0;  // expectation values and other results
  double bra = 0;      // writing the bra from cotangents
  int calls = 0;       // forward and backward together
};

// Starts to collect, and discards what was collected before.
void start_profile();

// Stops, and returns the times by program id.
std::map<std::int64_t, PassTimes> take_profile();

// Adds up one task's times.
void add_to_profile(std::int64_t program, const PassTimes& times);

extern std::atomic<bool> profiling;

// Measures into a PassTimes while profiling is on.
class Stopwatch {
 public:
  Stopwatch() : on_(profiling.load(std::memory_order_relaxed)) {
    if (on_) last_ = std::chrono::steady_clock::now();
  }

  bool on() const { return on_; }

  // Adds the time since the last call, or the beginning, to `out`.
  void lap(double& out) {
    if (!on_) return;
    const auto now = std::chrono::steady_clock::now();
    out += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  bool on_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace ketgrad

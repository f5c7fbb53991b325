#include "cpu/profile.h"

#include <mutex>
#include <utility>

namespace ketgrad {

std::atomic<bool> profiling{false};

namespace {

std::mutex mutex;
std::map<std::int64_t, PassTimes>& collected() {
  static std::map<std::int64_t, PassTimes> times;
  return times;
}

void add(std::vector<double>& to, const std::vector<double>& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

void start_profile() {
  const std::lock_guard lock(mutex);
  collected().clear();
  profiling = true;
}

std::map<std::int64_t, PassTimes> take_profile() {
  const std::lock_guard lock(mutex);
  profiling = false;
  return std::exchange(collected(), {});
}

void add_to_profile(std::int64_t program, const PassTimes& times) {
  const std::lock_guard lock(mutex);
  PassTimes& total = collected()[program];
  add(total.forward, times.forward);
  add(total.backward, times.backward);
  total.measure += times.measure;
  total.bra += times.bra;
  ++total.calls;
}

}  // namespace ketgrad

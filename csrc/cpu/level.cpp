#include "cpu/level.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace ketgrad {

namespace {

struct Level {
  std::string name;
  WalkLevel walk;
};

std::vector<Level> detect() {
  std::vector<Level> levels{{"portable", portable_walk()}};
#ifdef KETGRAD_X86_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back({"avx2", avx2_walk()});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
      levels.push_back({"avx512", avx512_walk()});
    }
  }
#endif
  return levels;
}

const std::vector<Level>& levels() {
  static const std::vector<Level> all = detect();
  return all;
}

std::size_t find(const std::string& name) {
  std::string known;
  for (std::size_t i = 0; i < levels().size(); ++i) {
    if (levels()[i].name == name) return i;
    known += (i == 0 ? "" : ", ") + levels()[i].name;
  }
  throw std::invalid_argument("ketgrad: CPU level '" + name + "' is not available here; available: " + known);
}

std::atomic<std::size_t>& current() {
  static std::atomic<std::size_t> index = [] {
    const char* forced = std::getenv("KETGRAD_CPU_LEVEL");
    return forced == nullptr || *forced == '\0' ? levels().size() - 1 : find(forced);
  }();
  return index;
}

}  // namespace

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.push_back(level.name);
  return names;
}

std::string current_level() { return levels()[current()].name; }

void set_level(const std::string& name) { current() = find(name); }

const WalkLevel& current_walk() { return levels()[current()].walk; }

}  // namespace ketgrad

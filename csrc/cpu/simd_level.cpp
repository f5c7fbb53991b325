#include "cpu/simd_level.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace ketgrad {

namespace {

struct SimdLevel {
  std::string name;
  EngineSet engine;
};

std::vector<SimdLevel> detect() {
  std::vector<SimdLevel> levels{{"portable", portable_engines()}};
#ifdef KETGRAD_X86_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back({"avx2", avx2_engines()});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
      levels.push_back({"avx512", avx512_engines()});
    }
  }
#endif
  return levels;
}

const std::vector<SimdLevel>& levels() {
  static const std::vector<SimdLevel> all = detect();
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

std::vector<std::string> available_simd_levels() {
  std::vector<std::string> names;
  for (const SimdLevel& level : levels()) names.push_back(level.name);
  return names;
}

std::string current_simd_level() { return levels()[current()].name; }

void set_simd_level(const std::string& name) { current() = find(name); }

const EngineSet& current_engines() { return levels()[current()].engine; }

}  // namespace ketgrad

#include "runtime/memory.h"

#include <cstdio>
#include <fstream>
#include <limits>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ketgrad {

namespace {

std::string readable(double bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  int unit = 0;
  double value = bytes;
  while (value >= 1024 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  char text[96];
  if (bytes < 1e24) {
    std::snprintf(text, sizeof text, "%.0f bytes (%.1f %s)", bytes, value, units[unit]);
  } else {
    std::snprintf(text, sizeof text, "%.1e bytes", bytes);
  }
  return text;
}

}  // namespace

std::int64_t available_memory() {
#if defined(__APPLE__)
  std::int64_t total = 0;
  std::size_t size = sizeof total;
  if (sysctlbyname("hw.memsize", &total, &size, nullptr, 0) == 0) return total;
#else
  std::ifstream info("/proc/meminfo");
  std::string key;
  std::int64_t kib = 0;
  std::string unit;
  while (info >> key >> kib) {
    std::getline(info, unit);
    if (key == "MemAvailable:") return kib * 1024;
  }
#endif
  return std::numeric_limits<std::int64_t>::max();
}

bool fits_memory(double bytes) { return bytes <= always_fits || bytes <= static_cast<double>(available_memory()); }

void require_memory(double bytes, const std::string& what) {
  if (fits_memory(bytes)) return;
  throw OutOfMemory("ketgrad: " + what + " needs " + readable(bytes) + " of memory, " +
                    readable(static_cast<double>(available_memory())) + " are available");
}

}  // namespace ketgrad

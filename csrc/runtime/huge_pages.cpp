#include "runtime/huge_pages.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ketgrad {

namespace {

constexpr std::size_t large_page = std::size_t{2} << 20;

// The size that is allocated, rounded up so that calls of similar size find each other's buffers.
std::size_t rounded(std::size_t bytes) {
  const std::size_t unit = bytes < smallest_large_buffer ? smallest_kept_buffer : large_page;
  return (bytes + unit - 1) / unit * unit;
}

std::align_val_t alignment(std::size_t bytes) {
  return std::align_val_t{bytes < smallest_large_buffer ? line_bytes : large_page};
}

// Tiles gather rows from all over a state: with small pages each row would be a TLB miss.
void ask_for_large_pages(void* buffer, std::size_t bytes) {
#if defined(__linux__)
  if (bytes >= smallest_large_buffer) madvise(buffer, bytes, MADV_HUGEPAGE);
#else
  (void)buffer;
  (void)bytes;
#endif
}

void let_system_take(void* buffer, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_FREE)
  if (bytes >= smallest_large_buffer) madvise(buffer, bytes, MADV_FREE);
#else
  (void)buffer;
  (void)bytes;
#endif
}

struct Kept {
  void* buffer;
  std::size_t bytes;
};

struct HugePages {
  std::mutex mutex;
  std::deque<Kept> kept;  // oldest first
  std::size_t kept_bytes = 0;

  void* find(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    for (auto it = kept.rbegin(); it != kept.rend(); ++it) {
      if (it->bytes != bytes) continue;
      void* buffer = it->buffer;
      kept.erase(std::next(it).base());
      kept_bytes -= bytes;
      return buffer;
    }
    return nullptr;
  }

  void keep(void* buffer, std::size_t bytes) {
    const std::lock_guard lock(mutex);
    kept.push_back({buffer, bytes});
    kept_bytes += bytes;
    while (kept_bytes > kept_buffers_limit || kept.size() > most_kept) {
      ::operator delete(kept.front().buffer, alignment(kept.front().bytes));
      kept_bytes -= kept.front().bytes;
      kept.pop_front();
    }
  }

  // With more, the search would take longer than an allocation.
  static constexpr std::size_t most_kept = 64;
};

// Small buffers, in size classes of powers of two: aligned allocation of the standard library is slow.
struct SmallBuffers {
  static constexpr int sizes = std::bit_width(smallest_kept_buffer / line_bytes);
  static constexpr std::size_t most_kept = 64;

  std::mutex mutex;
  std::array<std::vector<void*>, sizes> kept;

  static int size_index(std::size_t bytes) {
    return std::bit_width((std::max<std::size_t>(bytes, 1) - 1) / line_bytes);
  }

  void* take(std::size_t bytes) {
    const int index = size_index(bytes);
    {
      const std::lock_guard lock(mutex);
      std::vector<void*>& free = kept[index];
      if (!free.empty()) {
        void* buffer = free.back();
        free.pop_back();
        return buffer;
      }
      free.reserve(most_kept);
    }
    return ::operator new(line_bytes << index, std::align_val_t{line_bytes});
  }

  void give_back(void* buffer, std::size_t bytes) {
    std::vector<void*>& free = kept[size_index(bytes)];
    const std::lock_guard lock(mutex);
    if (free.size() < most_kept) return free.push_back(buffer);
    ::operator delete(buffer, std::align_val_t{line_bytes});
  }
};

// Never destroyed, because tensors may outlive static objects.
HugePages& huge_pages() {
  static auto* instance = new HugePages();
  return *instance;
}

SmallBuffers& small_buffers() {
  static auto* instance = new SmallBuffers();
  return *instance;
}

}  // namespace

void* take_buffer(std::size_t bytes) {
  if (bytes < smallest_kept_buffer) return small_buffers().take(bytes);
  const std::size_t size = rounded(bytes);
  if (void* buffer = huge_pages().find(size)) return buffer;
  void* buffer = ::operator new(size, alignment(size));
  ask_for_large_pages(buffer, size);
  return buffer;
}

void give_back_buffer(void* buffer, std::size_t bytes) noexcept {
  if (buffer == nullptr) return;
  if (bytes < smallest_kept_buffer) return small_buffers().give_back(buffer, bytes);
  const std::size_t size = rounded(bytes);
  let_system_take(buffer, size);
  huge_pages().keep(buffer, size);
}

}  // namespace ketgrad

#include "core/blocks.h"

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

// What is really taken: sizes that are nearly the same are the same, or little would be found again.
std::size_t rounded(std::size_t bytes) {
  const std::size_t unit = bytes < smallest_large_block ? smallest_kept_block : large_page;
  return (bytes + unit - 1) / unit * unit;
}

std::align_val_t alignment(std::size_t bytes) {
  return std::align_val_t{bytes < smallest_large_block ? line_bytes : large_page};
}

// Tiles gather rows from all over a state: with small pages each would miss the translation of its address.
void ask_for_large_pages(void* block, std::size_t bytes) {
#if defined(__linux__)
  if (bytes >= smallest_large_block) madvise(block, bytes, MADV_HUGEPAGE);
#else
  (void)block;
  (void)bytes;
#endif
}

void let_system_take(void* block, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_FREE)
  if (bytes >= smallest_large_block) madvise(block, bytes, MADV_FREE);
#else
  (void)block;
  (void)bytes;
#endif
}

struct Kept {
  void* block;
  std::size_t bytes;
};

struct Blocks {
  std::mutex mutex;
  std::deque<Kept> kept;  // oldest first
  std::size_t kept_bytes = 0;

  void* find(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    for (auto it = kept.rbegin(); it != kept.rend(); ++it) {
      if (it->bytes != bytes) continue;
      void* block = it->block;
      kept.erase(std::next(it).base());
      kept_bytes -= bytes;
      return block;
    }
    return nullptr;
  }

  void keep(void* block, std::size_t bytes) {
    const std::lock_guard lock(mutex);
    kept.push_back({block, bytes});
    kept_bytes += bytes;
    while (kept_bytes > kept_blocks_limit || kept.size() > most_kept) {
      ::operator delete(kept.front().block, alignment(kept.front().bytes));
      kept_bytes -= kept.front().bytes;
      kept.pop_front();
    }
  }

  // More would take longer to search than they save.
  static constexpr std::size_t most_kept = 64;
};

// Small ones by their size, a power of two: aligned memory of the standard library is slow to be had.
struct SmallBlocks {
  static constexpr int sizes = std::bit_width(smallest_kept_block / line_bytes);
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
        void* block = free.back();
        free.pop_back();
        return block;
      }
      free.reserve(most_kept);
    }
    return ::operator new(line_bytes << index, std::align_val_t{line_bytes});
  }

  void give_back(void* block, std::size_t bytes) {
    std::vector<void*>& free = kept[size_index(bytes)];
    const std::lock_guard lock(mutex);
    if (free.size() < most_kept) return free.push_back(block);
    ::operator delete(block, std::align_val_t{line_bytes});
  }
};

// Never destroyed: tensors may outlive static objects.
Blocks& blocks() {
  static auto* instance = new Blocks();
  return *instance;
}

SmallBlocks& small_blocks() {
  static auto* instance = new SmallBlocks();
  return *instance;
}

}  // namespace

void* take_block(std::size_t bytes) {
  if (bytes < smallest_kept_block) return small_blocks().take(bytes);
  const std::size_t size = rounded(bytes);
  if (void* block = blocks().find(size)) return block;
  void* block = ::operator new(size, alignment(size));
  ask_for_large_pages(block, size);
  return block;
}

void give_back_block(void* block, std::size_t bytes) noexcept {
  if (block == nullptr) return;
  if (bytes < smallest_kept_block) return small_blocks().give_back(block, bytes);
  const std::size_t size = rounded(bytes);
  let_system_take(block, size);
  blocks().keep(block, size);
}

}  // namespace ketgrad

#include "core/blocks.h"

#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ketgrad {

namespace {

// Tiles gather rows from all over a state: with small pages each would miss the translation of its address.
constexpr std::size_t large_page = std::size_t{2} << 20;
constexpr std::align_val_t line_alignment{line_bytes};
constexpr std::align_val_t page_alignment{large_page};

void* new_block(std::size_t bytes) {
  void* block = ::operator new(bytes, page_alignment);
#if defined(__linux__)
  madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

void let_system_take(void* block, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_FREE)
  madvise(block, bytes, MADV_FREE);
#else
  (void)block;
  (void)bytes;
#endif
}

struct Blocks {
  struct Kept {
    void* block;
    std::size_t bytes;
  };

  std::mutex mutex;
  std::unordered_map<void*, std::size_t> sizes;  // of the large blocks in use
  std::deque<Kept> kept;                         // oldest first
  std::size_t kept_bytes = 0;

  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    for (auto it = kept.begin(); it != kept.end(); ++it) {
      if (it->bytes != bytes) continue;
      void* block = it->block;
      kept.erase(it);
      kept_bytes -= bytes;
      sizes[block] = bytes;
      return block;
    }
    void* block = new_block(bytes);
    sizes[block] = bytes;
    return block;
  }

  // False where the block is none of the large ones.
  bool give_back(void* block) {
    const std::lock_guard lock(mutex);
    const auto it = sizes.find(block);
    if (it == sizes.end()) return false;
    const Kept returned{block, it->second};
    sizes.erase(it);
    let_system_take(returned.block, returned.bytes);
    kept.push_back(returned);
    kept_bytes += returned.bytes;
    while (kept_bytes > kept_blocks_limit) {
      ::operator delete(kept.front().block, page_alignment);
      kept_bytes -= kept.front().bytes;
      kept.pop_front();
    }
    return true;
  }
};

// Never destroyed: tensors may outlive static objects.
Blocks& blocks() {
  static auto* instance = new Blocks();
  return *instance;
}

}  // namespace

void* take_block(std::size_t bytes) {
  if (bytes < smallest_kept_block) return ::operator new(bytes, line_alignment);
  return blocks().take((bytes + large_page - 1) / large_page * large_page);
}

void give_back_block(void* block) noexcept {
  if (block != nullptr && !blocks().give_back(block)) ::operator delete(block, line_alignment);
}

std::size_t kept_bytes() {
  const std::lock_guard lock(blocks().mutex);
  return blocks().kept_bytes;
}

}  // namespace ketgrad

// Who read and wrote each piece of memory, and who of them did so at the same time as another. That is decided by what
// lies between two accesses, not by the order in which they came: two threads' accesses are ordered by a barrier of
// their block and by the end of a launch, and by nothing else. Neither shuffles nor warps order anything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace ketgrad::ptx {

// A thread at a time. The epoch is the number of barriers that its block has passed.
struct Actor {
  std::int64_t block = 0;
  std::int32_t epoch = 0;
  int thread = 0;
};

// The history of four bytes. Blocks come one after the other, so of earlier ones no more is kept than whether there was
// one.
class Cell {
 public:
  // These return what is wrong, or nothing.
  std::optional<std::string> read(const Actor& actor, bool as_constant);
  std::optional<std::string> write(const Actor& actor);

  bool is_written() const { return written_in_ != never || earlier_writer_ != nobody; }

 private:
  static constexpr std::int32_t never = -1;
  static constexpr std::int32_t nobody = -1;

  void enter(const Actor& actor);

  std::int32_t block_ = nobody;           // the latest
  std::int32_t earlier_writer_ = nobody;  // some earlier block
  std::int32_t earlier_reader_ = nobody;
  std::int32_t written_in_ = never;  // the last epoch of the latest block
  std::int32_t read_in_ = never;
  std::uint16_t writer_ = 0;    // in that epoch; a second one is an error
  std::uint16_t readers_[2]{};  // two in that epoch, if there were two: for any thread, one of them is another
  bool is_constant_ = false;
};

inline constexpr std::size_t cell_bytes = 4;

// Cells of an earlier time count as new.
template <std::size_t count>
class Cells {
 public:
  Cell& at(std::size_t i, std::uint32_t time) {
    if (times_[i] != time) {
      times_[i] = time;
      cells_[i] = {};
    }
    return cells_[i];
  }

 private:
  std::array<std::uint32_t, count> times_{};
  std::array<Cell, count> cells_;
};

// Of the shared memory of a block.
class SharedHistory {
 public:
  static constexpr std::size_t most_bytes = std::size_t{228} << 10;

  void begin_block() { ++time_; }
  std::optional<std::string> access(std::size_t offset, std::size_t bytes, const Actor& actor, bool writes);

 private:
  std::unique_ptr<Cells<most_bytes / cell_bytes>> cells_ = std::make_unique<Cells<most_bytes / cell_bytes>>();
  std::uint32_t time_ = 0;
};

// Of global memory, in one launch.
class GlobalHistory {
 public:
  enum class Kind { read, read_constant, write };

  void begin_launch();
  std::optional<std::string> access(std::uint64_t address, std::size_t bytes, const Actor& actor, Kind kind);

 private:
  static constexpr std::size_t page_bytes = 4096;
  using Page = Cells<page_bytes / cell_bytes>;

  Page& page(std::uint64_t number);

  std::uint32_t time_ = 0;
  std::unordered_map<std::uint64_t, Page*> pages_;
  std::vector<std::unique_ptr<Page>> memory_;  // the first ones are those of pages_
  struct Recent {
    std::uint64_t number = ~std::uint64_t{0};
    Page* page = nullptr;
  };
  std::array<Recent, 256> recent_;
};

}  // namespace ketgrad::ptx

#include "ptx/races.h"

#include <algorithm>

namespace ketgrad::ptx {
namespace {

std::string conflict(const char* what, const std::string& other) {
  return std::string(what) + " without a barrier after " + other;
}

std::string thread_name(int thread) { return "thread " + std::to_string(thread); }
std::string block_name(std::int32_t block) { return "another block, " + std::to_string(block); }

}  // namespace

// What the latest block did becomes what some earlier one did.
void Cell::enter(const Actor& actor) {
  const auto block = static_cast<std::int32_t>(actor.block);
  if (block_ == block) return;
  if (written_in_ != never) earlier_writer_ = block_;
  if (read_in_ != never) earlier_reader_ = block_;
  written_in_ = read_in_ = never;
  block_ = block;
}

std::optional<std::string> Cell::read(const Actor& actor, bool as_constant) {
  enter(actor);
  if (as_constant && is_written()) return "reads as constant (ld.global.nc) what the same launch has written";
  if (earlier_writer_ != nobody) return conflict("reads", "a write of " + block_name(earlier_writer_) + ",");
  if (written_in_ == actor.epoch && writer_ != actor.thread)
    return conflict("reads", "a write of " + thread_name(writer_) + ",");
  const auto thread = static_cast<std::uint16_t>(actor.thread);
  if (read_in_ != actor.epoch) readers_[0] = readers_[1] = thread;
  if (readers_[0] != thread) readers_[1] = thread;
  read_in_ = actor.epoch;
  is_constant_ |= as_constant;
  return {};
}

std::optional<std::string> Cell::write(const Actor& actor) {
  enter(actor);
  if (is_constant_) return "writes what the same launch reads as constant (ld.global.nc),";
  if (earlier_writer_ != nobody) return conflict("writes", "a write of " + block_name(earlier_writer_) + ",");
  if (earlier_reader_ != nobody) return conflict("writes", "a read of " + block_name(earlier_reader_) + ",");
  if (written_in_ == actor.epoch && writer_ != actor.thread)
    return conflict("writes", "a write of " + thread_name(writer_) + ",");
  const auto thread = static_cast<std::uint16_t>(actor.thread);
  const int reader = readers_[0] != thread ? readers_[0] : readers_[1];
  if (read_in_ == actor.epoch && reader != actor.thread)
    return conflict("writes", "a read of " + thread_name(reader) + ",");
  written_in_ = actor.epoch;
  writer_ = thread;
  return {};
}

std::optional<std::string> SharedHistory::access(std::size_t offset, std::size_t bytes, const Actor& actor,
                                                 bool writes) {
  for (std::size_t i = offset / cell_bytes; i <= (offset + bytes - 1) / cell_bytes; ++i) {
    Cell& cell = cells_->at(i, time_);
    if (!writes && !cell.is_written()) return "reads what no thread of the block has written,";
    if (auto problem = writes ? cell.write(actor) : cell.read(actor, false)) return problem;
  }
  return {};
}

void GlobalHistory::begin_launch() {
  ++time_;
  pages_.clear();
  recent_.fill({});
}

std::optional<std::string> GlobalHistory::access(std::uint64_t address, std::size_t bytes, const Actor& actor,
                                                 Kind kind) {
  for (std::uint64_t a = address / cell_bytes * cell_bytes; a < address + bytes; a += cell_bytes) {
    Cell& cell = page(a / page_bytes).at(a % page_bytes / cell_bytes, time_);
    auto problem = kind == Kind::write ? cell.write(actor) : cell.read(actor, kind == Kind::read_constant);
    if (problem) return problem;
  }
  return {};
}

GlobalHistory::Page& GlobalHistory::page(std::uint64_t number) {
  Recent& recent = recent_[number % recent_.size()];
  if (recent.number == number) return *recent.page;
  auto [place, is_new] = pages_.try_emplace(number, nullptr);
  if (is_new) {
    if (pages_.size() > memory_.size()) memory_.push_back(std::make_unique<Page>());
    place->second = memory_[pages_.size() - 1].get();
  }
  recent = {number, place->second};
  return *place->second;
}

}  // namespace ketgrad::ptx

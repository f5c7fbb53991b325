#include "core/registry.h"

#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

namespace ketgrad {

namespace {

struct Registry {
  struct Entry {
    std::string content;
    ProgramHandle program;
    bool pinned = false;
  };

  std::mutex mutex;
  std::unordered_map<std::int64_t, Entry> entries;
  std::deque<std::int64_t> order;  // of registration, oldest first

  // The registry's own reference is the only one left.
  static bool unreferenced(const Entry& e) { return e.program.use_count() == 1 && !e.pinned; }

  Entry& find(std::int64_t id) {
    const auto it = entries.find(id);
    if (it == entries.end()) {
      throw std::out_of_range("ketgrad: no program has the id " + std::to_string(id) +
                              ": programs are named by encoding a tape in this process");
    }
    return it->second;
  }

  void evict() {
    std::size_t unreferenced_count = 0;
    for (const auto& [id, entry] : entries) unreferenced_count += unreferenced(entry);
    for (auto it = order.begin(); it != order.end() && unreferenced_count > unreferenced_programs_kept / 2;) {
      const auto found = entries.find(*it);
      if (!unreferenced(found->second)) {
        ++it;
        continue;
      }
      entries.erase(found);
      it = order.erase(it);
      --unreferenced_count;
    }
  }
};

Registry& registry() {
  static Registry instance;
  return instance;
}

// FNV-1a over the bytes, then a finaliser that spreads every bit (the mixing constants are splitmix64's).
std::int64_t content_hash(const std::string& bytes) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  h ^= bytes.size();
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  h ^= h >> 31;
  return static_cast<std::int64_t>(h >> 1);
}

}  // namespace

const Plan& PlannedProgram::plan(const Layout& layout) const {
  const std::lock_guard lock(mutex_);
  for (const auto& known : plans_) {
    if (known->layout == layout) return *known;
  }
  plans_.push_back(std::make_unique<const Plan>(make_plan(program, layout)));
  return *plans_.back();
}

ProgramHandle register_program(Program program) {
  program.validate();
  std::string content = program.serialise();
  const std::int64_t id = content_hash(content);
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (const auto it = r.entries.find(id); it != r.entries.end()) {
    if (it->second.content != content)
      throw std::runtime_error("ketgrad: two programs share the hash " + std::to_string(id));
    return it->second.program;
  }
  if (r.entries.size() >= unreferenced_programs_kept) r.evict();
  auto planned = std::make_shared<PlannedProgram>();
  planned->id = id;
  planned->program = std::move(program);
  planned->extent = extent_of(planned->program);
  r.entries[id] = {std::move(content), planned, false};
  r.order.push_back(id);
  return planned;
}

ProgramHandle find_program(std::int64_t id) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return r.find(id).program;
}

void pin_program(std::int64_t id) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.find(id).pinned = true;
}

}  // namespace ketgrad

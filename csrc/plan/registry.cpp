#include "plan/registry.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "plan/footprint.h"

namespace ketgrad {

namespace {

struct Registry {
  struct Entry {
    std::weak_ptr<const PlannedProgram> program;
    ProgramHandle pinned;  // the same, or null
  };

  std::mutex mutex;
  std::unordered_map<std::int64_t, Entry> entries;
  std::size_t swept_at = 1024;  // entries

  ProgramHandle find(std::int64_t id) {
    const auto it = entries.find(id);
    ProgramHandle found = it == entries.end() ? nullptr : it->second.program.lock();
    if (found == nullptr) {
      throw std::out_of_range("ketgrad: no program has the id " + std::to_string(id) +
                              ": programs are named by building them in this process");
    }
    return found;
  }

  // Null where there is none.
  ProgramHandle find_equal(std::int64_t id, const std::string& content) {
    const std::lock_guard lock(mutex);
    const auto it = entries.find(id);
    ProgramHandle found = it == entries.end() ? nullptr : it->second.program.lock();
    if (found != nullptr && found->content != content)
      throw std::runtime_error("ketgrad: two programs share the hash " + std::to_string(id));
    return found;
  }

  // Forgets programs that have gone, when there are twice as many entries as after the last time.
  void sweep() {
    if (entries.size() < swept_at) return;
    std::erase_if(entries, [](const auto& entry) { return entry.second.program.expired(); });
    swept_at = std::max<std::size_t>(1024, 2 * entries.size());
  }
};

Registry& registry() {
  static auto* instance = new Registry();  // never destroyed: programs may outlive static objects
  return *instance;
}

// Spreads every bit (the finaliser of splitmix64).
std::uint64_t mixed(std::uint64_t h) {
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

// FNV-1a over words of eight bytes, each mixed first.
std::int64_t content_hash(const std::string& bytes) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    h = (h ^ mixed(word)) * 0x100000001b3u;
  }
  return static_cast<std::int64_t>(mixed(h ^ bytes.size()) >> 1);
}

std::atomic<std::int64_t> in_caches{0};

}  // namespace

PlannedProgram::PlannedProgram(std::int64_t id, Program whole, Decomposition decomposition, std::string content)
    : id(id),
      program(decomposition.smaller ? std::move(*decomposition.smaller) : std::move(whole)),
      content(std::move(content)),
      resources(resource_bounds(program)),
      parts(std::move(decomposition.parts)),
      gates(std::move(decomposition.gates)),
      num_left_out(decomposition.num_left_out),
      bytes_(bytes_of(program) + bytes_of(parts) + static_cast<std::int64_t>(this->content.size())),
      in_caches_(in_caches) {}

PlannedProgram::~PlannedProgram() {
  if (caches_ == 0) return;
  in_caches_ -= bytes_;
  for (const Part& part : parts.parts) part.program->leave_cache();
}

const Plan& PlannedProgram::plan(const Layout& layout) const {
  if (program.num_wires > max_wires)
    throw std::invalid_argument("ketgrad: a state on " + std::to_string(program.num_wires) + " wires, at most " +
                                std::to_string(max_wires) + " are possible: parts are run on the CPU only");
  const std::lock_guard lock(mutex_);
  for (const auto& known : plans_) {
    if (known->layout == layout) return *known;
  }
  plans_.push_back(std::make_unique<const Plan>(make_plan(program, layout)));
  const std::int64_t taken = bytes_of(*plans_.back());
  bytes_ += taken;
  if (caches_ > 0) in_caches_ += taken;
  return *plans_.back();
}

std::int64_t PlannedProgram::bytes() const {
  const std::lock_guard lock(mutex_);
  std::int64_t bytes = bytes_;
  for (const Part& part : parts.parts) bytes += part.program->bytes();
  return bytes;
}

void PlannedProgram::enter_cache() const {
  const std::lock_guard lock(mutex_);
  if (caches_++ > 0) return;
  in_caches_ += bytes_;
  for (const Part& part : parts.parts) part.program->enter_cache();
}

void PlannedProgram::leave_cache() const {
  const std::lock_guard lock(mutex_);
  if (--caches_ > 0) return;
  in_caches_ -= bytes_;
  for (const Part& part : parts.parts) part.program->leave_cache();
}

std::int64_t cached_bytes() { return in_caches.load(); }

ProgramHandle register_program(Program program) {
  program.validate();
  std::string content = program.serialise();
  const std::int64_t id = content_hash(content);
  Registry& r = registry();
  if (ProgramHandle known = r.find_equal(id, content)) return known;
  Decomposition decomposition = decompose(program);  // registers its parts
  auto planned =
      std::make_shared<const PlannedProgram>(id, std::move(program), std::move(decomposition), std::move(content));
  const std::lock_guard lock(r.mutex);
  Registry::Entry& entry = r.entries[id];
  if (ProgramHandle known = entry.program.lock()) return known;  // another thread was faster
  entry.program = planned;
  r.sweep();
  return planned;
}

ProgramHandle find_program(std::int64_t id) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  return r.find(id);
}

void pin_program(std::int64_t id) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.entries[id].pinned = r.find(id);
}

}  // namespace ketgrad

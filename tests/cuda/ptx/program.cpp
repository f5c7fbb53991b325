#include "ptx/program.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <regex>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

std::string demangled(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                                    &std::free);
  return status == 0 ? name.get() : mangled;
}

// Up to the first of these signs that stands outside of the arguments of templates.
std::string before(const std::string& name, char sign) {
  int depth = 0;
  for (std::size_t at = 0; at < name.size(); ++at) {
    if (depth == 0 && name[at] == sign) return name.substr(0, at);
    if (name[at] == '<') ++depth;
    if (name[at] == '>') --depth;
  }
  return name;
}

void do_nothing(Lanes&, const Instruction&, LaneMask) {}

}  // namespace

std::string readable_name(const std::string& mangled) {
  static const std::regex shared(R"(^void |\bketgrad::(cuda::)?|\(anonymous namespace\)::|_INTERNAL_\w+::)");
  return before(std::regex_replace(demangled(mangled), shared, ""), '(');
}

std::string source_name(const std::string& mangled) { return before(readable_name(mangled), '<'); }

void remove_barriers(Program& program, const std::string& kernel, const std::string& place) {
  int removed = 0;
  for (const Function& function : program.functions) {
    if (source_name(function.name) != kernel) continue;
    for (int k = function.first; k < function.end; ++k) {
      Instruction& instruction = program.code[k];
      if (instruction.control != Control::barrier || program.locations[instruction.location].place != place) continue;
      instruction.control = Control::none;
      instruction.run = &do_nothing;
      ++removed;
    }
  }
  if (removed == 0) throw Fault("there is no barrier at " + place + " in " + kernel);
}

}  // namespace ketgrad::ptx

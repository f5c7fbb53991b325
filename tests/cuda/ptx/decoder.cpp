#include "ptx/decoder.h"

#include <algorithm>
#include <utility>

#include "ptx/instructions.h"
#include "ptx/memory.h"

namespace ketgrad::ptx {
namespace {

constexpr std::size_t most_argument_bytes = 256;

Operand in_registers(std::uint32_t place) { return {place, ~std::uintptr_t{0}}; }

std::vector<std::string_view> split(std::string_view opcode) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= opcode.size();) {
    const std::size_t end = std::min(opcode.find('.', begin), opcode.size());
    parts.push_back(opcode.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Takes the next part of an opcode if it is this one.
bool take(std::vector<std::string_view>& parts, std::string_view part) {
  if (parts.empty() || parts.front() != part) return false;
  parts.erase(parts.begin());
  return true;
}

Space take_space(std::vector<std::string_view>& parts) {
  if (take(parts, "global")) return take(parts, "nc") ? Space::constant : Space::global;
  if (take(parts, "shared")) return Space::shared;
  if (take(parts, "local")) return Space::local;
  if (take(parts, "param")) return Space::param;
  return Space::generic;
}

std::vector<std::string> scalars(const std::vector<Argument>& arguments) {
  std::vector<std::string> names;
  for (const Argument& argument : arguments) {
    if (argument.kind == Argument::Kind::scalar && argument.names.size() == 1) names.push_back(argument.names[0]);
  }
  return names;
}

}  // namespace

Decoder::Decoder(Program& program, const Text& text, Constants& constants, const Symbols& symbols,
                 const std::map<std::string, int>& functions, int number)
    : program_(program),
      text_(text),
      constants_(constants),
      symbols_(symbols),
      functions_(functions),
      number_(number),
      function_(program.functions[number]),
      registers_(function_.register_bytes) {
  function_.is_defined = true;
  function_.first = static_cast<int>(program_.code.size());
}

void Decoder::open_scope() { registers_.open_scope(); }

void Decoder::close_scope() {
  registers_.close_scope();
  if (registers_.depth() == 1) arguments_bytes_ = 0;
}

void Decoder::add_array(const std::string& name, std::size_t bytes, std::size_t alignment) {
  const std::size_t offset = (function_.local_bytes + alignment - 1) / alignment * alignment;
  own_symbols_[name] = {special::local_base, offset};
  function_.local_bytes = offset + bytes;
}

void Decoder::add_argument(const std::string& name, std::size_t bytes, std::size_t alignment) {
  if (arguments_begin_ == 0) {
    add_array("", most_argument_bytes, 16);
    arguments_begin_ = own_symbols_.at("").offset;
  }
  arguments_bytes_ = (arguments_bytes_ + alignment - 1) / alignment * alignment;
  own_symbols_[name] = {special::local_base, arguments_begin_ + arguments_bytes_};
  arguments_bytes_ += bytes;
  if (arguments_bytes_ > most_argument_bytes)
    text_.refuse(text_.peek().line, "arguments of more bytes than are provided for in " + function_name());
}

void Decoder::add_label(const std::string& name) { labels_[name] = static_cast<int>(program_.code.size()); }

void Decoder::add(const Statement& statement) {
  Instruction instruction;
  instruction.function = number_;
  instruction.line = statement.line;
  instruction.location = location_;
  if (!statement.guard.empty()) {
    const Register guard = find_register(statement, statement.guard);
    require(statement, guard.bytes == predicate);
    instruction.has_guard = true;
    instruction.guard_negated = statement.guard_negated;
    instruction.guard = guard.place;
  }
  decode(statement, instruction);
  program_.code.push_back(instruction);
}

// Whoever comes to the end of a function leaves it.
void Decoder::finish(int line) {
  Instruction end;
  end.control = Control::leave;
  end.function = number_;
  end.line = line;
  end.location = location_;
  program_.code.push_back(end);
  for (const Jump& jump : jumps_) {
    const auto label = labels_.find(jump.label);
    if (label == labels_.end()) text_.refuse(jump.line, "no label " + jump.label + " in " + function_name());
    program_.code[jump.instruction].target = label->second;
  }
  function_.end = static_cast<int>(program_.code.size());
}

void Decoder::decode(const Statement& s, Instruction& i) {
  if (s.opcode == "bra" || s.opcode == "bra.uni") return decode_branch(s, i);
  if (s.opcode == "call" || s.opcode == "call.uni") return decode_call(s, i);
  if (s.opcode == "bar.sync") return decode_barrier(s, i);
  if (s.opcode.starts_with("shfl.")) return decode_shuffle(s, i);
  if (s.opcode == "ret" || s.opcode == "exit") {
    i.control = Control::leave;
    return require(s, s.opcode == "ret" || function_.is_kernel);
  }
  if (decode_memory(s, i) || decode_move(s, i)) return;
  const std::vector<std::string> names = scalars(s.arguments);
  if (names.size() != s.arguments.size()) refuse(s, "unknown instruction " + s.opcode);
  decode_plain(s, s.opcode, names, i);
}

// --- control ---------------------------------------------------------------------------------------------------------

void Decoder::decode_branch(const Statement& s, Instruction& i) {
  require(s, s.arguments.size() == 1 && s.arguments[0].names.size() == 1);
  i.control = Control::branch;
  jumps_.push_back({static_cast<int>(program_.code.size()), s.arguments[0].names[0], s.line});
}

// call (result), name, (argument, argument)
void Decoder::decode_call(const Statement& s, Instruction& i) {
  std::vector<Argument> arguments = s.arguments;
  const bool has_result = !arguments.empty() && arguments[0].kind == Argument::Kind::list;
  const Argument results = has_result ? arguments[0] : Argument{};
  if (has_result) arguments.erase(arguments.begin());
  require(s, !arguments.empty() && arguments.size() <= 2 && arguments[0].kind == Argument::Kind::scalar);
  const auto callee = functions_.find(arguments[0].names[0]);
  if (callee == functions_.end() || callee->second == number_) refuse(s, "a call of " + arguments[0].names[0]);
  const Function& function = program_.functions[callee->second];
  Call call{callee->second, {}, {}};
  call.arguments =
      copies(s, arguments.size() == 2 ? arguments[1].names : std::vector<std::string>{}, function.parameters, true);
  call.results = copies(s, results.names, function.results, false);
  i.control = Control::call;
  i.target = static_cast<int>(program_.calls.size());
  program_.calls.push_back(std::move(call));
}

std::vector<Copy> Decoder::copies(const Statement& s, const std::vector<std::string>& names,
                                  const std::vector<Parameter>& parameters, bool to_parameters) const {
  std::vector<Copy> found;
  require(s, names.size() == parameters.size());
  for (std::size_t k = 0; k < names.size(); ++k) {
    const Symbol* argument = find_symbol(names[k]);
    require(s, argument != nullptr && argument->base == special::local_base);
    found.push_back({argument->offset, parameters[k].offset, parameters[k].bytes});
    if (!to_parameters) std::swap(found.back().from, found.back().to);
  }
  return found;
}

void Decoder::decode_barrier(const Statement& s, Instruction& i) const {
  require(s, s.arguments.size() == 1 && s.arguments[0].names[0] == "0");
  i.control = Control::barrier;
}

// shfl.sync.bfly.b32 value|there, source, lane, 31, -1: of whole warps, which is how kernels shuffle.
void Decoder::decode_shuffle(const Statement& s, Instruction& i) {
  i.by_xor = s.opcode == "shfl.sync.bfly.b32";
  if (!i.by_xor && s.opcode != "shfl.sync.idx.b32") refuse(s, "unknown instruction " + s.opcode);
  require(s, s.arguments.size() == 5 && s.arguments[0].names.size() <= 2);
  const std::vector<std::string>& results = s.arguments[0].names;
  i.control = Control::shuffle;
  i.results[0] = result(s, results[0], 4);
  i.results[1] = results.size() == 2 ? result(s, results[1], predicate) : special::discarded;
  for (int k = 0; k < 4; ++k) i.sources[k] = source(s, s.arguments[1 + k].names[0], 4);
}

// --- memory ----------------------------------------------------------------------------------------------------------

bool Decoder::decode_memory(const Statement& s, Instruction& i) {
  std::vector<std::string_view> parts = split(s.opcode);
  const bool is_load = take(parts, "ld");
  const bool is_store = !is_load && take(parts, "st");
  const bool is_atomic = !is_load && !is_store && take(parts, "atom");
  if (!is_load && !is_store && !is_atomic) return false;
  i.space = take_space(parts);
  if (is_atomic && (i.space != Space::global || !take(parts, "add"))) refuse(s, "unknown instruction " + s.opcode);
  if (!is_atomic) i.count = take(parts, "v2") ? 2 : take(parts, "v4") ? 4 : 1;
  if (parts.size() != 1) refuse(s, "unknown instruction " + s.opcode);
  const std::string_view type = parts[0];
  if (!is_load) i.run = is_atomic ? find_atomic_add(type) : find_store(type);
  if (type_bytes(type) == 0 || (!is_load && i.run == nullptr)) refuse(s, "unknown instruction " + s.opcode);
  require(s, s.arguments.size() == (is_atomic ? 3 : 2));
  decode_address(s, s.arguments[is_store ? 0 : 1], i);
  if (is_load) {
    i.run = find_load(type, decode_elements(s, s.arguments[0], i));
    require(s, i.run != nullptr);
    return true;
  }
  if (is_atomic) i.results[0] = result(s, s.arguments[0].names[0], type_bytes(type));
  const Argument& values = s.arguments[is_atomic ? 2 : 1];
  require(s, values.names.size() == i.count);
  for (int k = 0; k < i.count; ++k) i.sources[1 + k] = source(s, values.names[k], type_bytes(type));
  return true;
}

// All elements of a vector have registers of one size, which it returns.
int Decoder::decode_elements(const Statement& s, const Argument& argument, Instruction& i) {
  require(s, argument.names.size() == i.count);
  int bytes = 0;
  for (const std::string& name : argument.names) {
    if (name != "_") bytes = find_register(s, name).bytes;
  }
  require(s, bytes != 0);
  for (int k = 0; k < i.count; ++k) i.results[k] = result(s, argument.names[k], bytes);
  return bytes;
}

void Decoder::decode_address(const Statement& s, const Argument& argument, Instruction& i) {
  require(s, argument.kind == Argument::Kind::address);
  i.offset = argument.offset;
  if (const Symbol* symbol = find_symbol(argument.names[0])) {
    i.sources[0] = address_of(*symbol);
    if (symbol->base) i.offset += static_cast<std::int64_t>(symbol->offset);
    return;
  }
  const Register base = find_register(s, argument.names[0]);
  require(s, base.bytes == 8 || (base.bytes == 4 && i.space == Space::shared));
  i.address_bytes = static_cast<std::uint8_t>(base.bytes);
  i.sources[0] = in_registers(base.place);
}

// What a symbol's address is counted from; of a constant it is the address.
Operand Decoder::address_of(const Symbol& symbol) {
  return symbol.base ? in_registers(*symbol.base) : constants_.operand(symbol.offset, 8);
}

// --- registers -------------------------------------------------------------------------------------------------------

// Moves of pairs, and of addresses that depend on the thread.
bool Decoder::decode_move(const Statement& s, Instruction& i) {
  if (!s.opcode.starts_with("mov.") || s.arguments.size() != 2) return false;
  const Argument& to = s.arguments[0];
  const Argument& from = s.arguments[1];
  const auto joined = [](const Argument& first, const Argument& second) {
    std::vector<std::string> names = first.names;
    names.insert(names.end(), second.names.begin(), second.names.end());
    return names;
  };
  if (to.kind == Argument::Kind::vector || from.kind == Argument::Kind::vector) {
    require(s, to.names.size() + from.names.size() == 3);
    const bool packs = from.kind == Argument::Kind::vector;
    decode_plain(s, s.opcode + (packs ? ".pack" : ".unpack"), joined(to, from), i);
    return true;
  }
  const Symbol* symbol = find_symbol(from.names[0]);
  if (symbol == nullptr || !symbol->base) return false;
  i.run = find_form("add.u64")->run;
  i.results[0] = result(s, to.names[0], 8);
  i.sources[0] = in_registers(*symbol->base);
  i.sources[1] = constants_.operand(symbol->offset, 8);
  return true;
}

void Decoder::decode_plain(const Statement& s, const std::string& opcode, const std::vector<std::string>& names,
                           Instruction& i) {
  const Form* form = find_form(opcode);
  if (form == nullptr) refuse(s, "unknown instruction " + s.opcode);
  require(s, names.size() == form->results.size() + form->sources.size());
  i.run = form->run;
  std::size_t next = 0;
  for (std::size_t k = 0; k < form->results.size(); ++k) i.results[k] = result(s, names[next++], form->results[k]);
  for (std::size_t k = 0; k < form->sources.size(); ++k) i.sources[k] = source(s, names[next++], form->sources[k]);
}

const Symbol* Decoder::find_symbol(std::string_view name) const {
  if (const auto own = own_symbols_.find(name); own != own_symbols_.end()) return &own->second;
  const auto found = symbols_.find(name);
  return found == symbols_.end() ? nullptr : &found->second;
}

Register Decoder::find_register(const Statement& s, std::string_view name) const {
  static const std::map<std::string, std::uint32_t, std::less<>> specials{{"%tid.x", special::tid},
                                                                          {"%ntid.x", special::ntid},
                                                                          {"%ctaid.x", special::ctaid},
                                                                          {"%nctaid.x", special::nctaid}};
  if (const auto found = specials.find(name); found != specials.end()) return {found->second, 4};
  const auto found = registers_.find(name);
  if (!found) refuse(s, "unknown register " + std::string(name));
  return *found;
}

std::uint32_t Decoder::result(const Statement& s, const std::string& name, int bytes) const {
  if (name == "_") return special::discarded;
  const Register found = find_register(s, name);
  require(s, found.bytes == bytes && found.place >= special::end);
  return found.place;
}

Operand Decoder::source(const Statement& s, const std::string& name, int bytes) {
  if (const auto number = parse_number(name)) return constants_.operand(*number, bytes);
  if (const Symbol* symbol = find_symbol(name)) {
    require(s, !symbol->base && bytes >= 4);
    return constants_.operand(symbol->offset, bytes);
  }
  const Register found = find_register(s, name);
  require(s, found.bytes == bytes);
  return in_registers(found.place);
}

void Decoder::require(const Statement& s, bool condition) const {
  if (!condition) refuse(s, "unknown form of " + s.opcode);
}

void Decoder::refuse(const Statement& s, const std::string& what) const {
  text_.refuse(s.line, what + " in " + function_name());
}

}  // namespace ketgrad::ptx

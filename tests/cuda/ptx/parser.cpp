#include "ptx/parser.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <tuple>
#include <utility>

#include "ptx/decoder.h"
#include "ptx/fault.h"
#include "ptx/instructions.h"
#include "ptx/memory.h"
#include "ptx/text.h"

namespace ketgrad::ptx {
namespace {

std::size_t rounded_up(std::size_t bytes, std::size_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// A variable as it is declared: `.align 8 .b8 name[16]`, `.b64 name`.
struct Variable {
  std::string name;
  std::size_t alignment = 1;
  std::size_t bytes = 0;
  bool is_array = false;
};

// Places in the source, as `.loc` gives them.
struct SourceLine {
  int file = 0;
  int line = 0;
  auto operator<=>(const SourceLine&) const = default;
};

// A line, the one that it was inlined at and, where that is known, the one that this was inlined at.
struct SourceLines {
  SourceLine line;
  SourceLine caller;
  SourceLine callers_caller;
  auto operator<=>(const SourceLines&) const = default;
};

class Parser {
 public:
  Parser(Program& program, const std::string& name, std::string content)
      : program_(program), text_(name, std::move(content)), constants_(program) {}

  void read();

 private:
  void read_line();
  void read_file_name();
  void read_shared();
  void read_global();
  void skip_section();
  Variable read_variable();
  std::vector<std::uint8_t> read_bytes();

  void read_function(bool is_kernel);
  int function_number(const std::string& name, bool is_kernel);
  std::vector<Variable> read_parameters();
  void read_bounds(Function& function);
  void place_parameters(int number, const std::vector<Variable>& results, const std::vector<Variable>& parameters);
  void read_body(int number);
  void read_directive(Decoder& decoder, const Token& directive);
  void read_registers(Decoder& decoder);
  void read_location(Decoder& decoder);
  Statement read_statement(Token token);
  Argument read_argument();
  std::string read_scalar();
  int read_int();

  void name_locations();
  std::string place_of(const SourceLine& line) const;

  Program& program_;
  Text text_;
  Constants constants_;
  Symbols symbols_;                       // of the file
  std::map<std::string, int> functions_;  // of the file: others' may have the same names
  std::map<int, std::string> files_;
  std::map<SourceLines, int> locations_;
  SourceLines latest_;
};

void Parser::read() {
  while (!text_.peek().text.empty()) {
    const Token token = text_.next();
    if (token.text == ".version" || token.text == ".target" || token.text == ".address_size") {
      read_line();
    } else if (token.text == ".file") {
      read_file_name();
    } else if (token.text == ".extern") {
      read_shared();
    } else if (token.text == ".global" || token.text == ".const") {
      read_global();
    } else if (token.text == ".section") {
      skip_section();
    } else if (token.text == ".entry" || token.text == ".func") {
      read_function(token.text == ".entry");
    } else if (token.text != ".visible") {
      text_.refuse(token.line, "unknown directive " + std::string(token.text));
    }
  }
  name_locations();
}

void Parser::read_line() {
  const int line = text_.next().line;
  while (text_.peek().line == line && !text_.peek().text.empty()) text_.next();
}

void Parser::read_file_name() {
  const int number = read_int();
  std::string path(text_.next().text);
  path.pop_back();  // the quotes
  files_[number] = path.substr(path.find_last_of("/\"") + 1);
}

int Parser::read_int() {
  const Token token = text_.next();
  const auto value = parse_number(token.text);
  if (!value) text_.refuse(token.line, "a number expected, not " + std::string(token.text));
  return static_cast<int>(*value);
}

Variable Parser::read_variable() {
  Variable variable;
  if (text_.accept(".align")) variable.alignment = read_int();
  const Token type = text_.next();
  const int bytes = type.text.starts_with('.') ? type_bytes(type.text.substr(1)) : 0;
  if (bytes == 0) text_.refuse(type.line, "unknown type " + std::string(type.text));
  variable.alignment = std::max<std::size_t>(variable.alignment, bytes);
  variable.name = text_.next().text;
  variable.bytes = bytes;
  if (text_.accept("[")) {
    variable.is_array = true;
    variable.bytes = text_.peek().text == "]" ? 0 : variable.bytes * read_int();
    text_.expect("]");
  }
  return variable;
}

// The one array of shared memory, as large as a launch asks for.
void Parser::read_shared() {
  text_.expect(".shared");
  const Variable variable = read_variable();
  if (variable.bytes != 0) text_.refuse(text_.peek().line, "shared memory of a size that is no launch's");
  symbols_[variable.name] = {};
  text_.expect(";");
}

void Parser::read_global() {
  const int line = text_.peek().line;
  const Variable variable = read_variable();
  const std::size_t bytes = variable.bytes;
  text_.expect("=");
  const std::vector<std::uint8_t> content = read_bytes();
  if (content.size() > bytes) text_.refuse(line, "an initialiser of more bytes than " + variable.name);
  auto& memory = program_.constants.emplace_back(bytes / sizeof(std::uint64_t) + 1);  // zero where nothing is said
  std::memcpy(memory.data(), content.data(), content.size());
  symbols_[variable.name] = {{}, reinterpret_cast<std::uintptr_t>(memory.data())};
}

std::vector<std::uint8_t> Parser::read_bytes() {
  std::vector<std::uint8_t> bytes;
  text_.expect("{");
  do {
    bytes.push_back(static_cast<std::uint8_t>(read_int()));
  } while (text_.accept(","));
  text_.expect("}");
  text_.expect(";");
  return bytes;
}

// What debuggers read.
void Parser::skip_section() {
  text_.next();
  text_.expect("{");
  while (!text_.accept("}")) {
    if (text_.next().text.empty()) text_.refuse(text_.peek().line, "a section without an end");
  }
}

// --- functions -------------------------------------------------------------------------------------------------------

void Parser::read_function(bool is_kernel) {
  std::vector<Variable> results;
  if (!is_kernel && text_.peek().text == "(") results = read_parameters();
  const int number = function_number(std::string(text_.next().text), is_kernel);
  const std::vector<Variable> parameters = text_.peek().text == "(" ? read_parameters() : std::vector<Variable>{};
  place_parameters(number, results, parameters);
  if (text_.accept(";")) return;  // a declaration: the definition comes later
  read_bounds(program_.functions[number]);
  read_body(number);
}

int Parser::function_number(const std::string& name, bool is_kernel) {
  const auto [known, is_new] = functions_.try_emplace(name, static_cast<int>(program_.functions.size()));
  if (is_new) {
    Function& function = program_.functions.emplace_back();
    function.name = name;
    function.is_kernel = is_kernel;
    if (is_kernel) program_.kernels[name] = known->second;
  }
  return known->second;
}

std::vector<Variable> Parser::read_parameters() {
  std::vector<Variable> parameters;
  text_.expect("(");
  while (!text_.accept(")")) {
    text_.expect(".param");
    parameters.push_back(read_variable());
    text_.accept(",");
  }
  return parameters;
}

void Parser::read_bounds(Function& function) {
  while (text_.peek().text != "{") {
    const Token token = text_.next();
    if (token.text == ".maxntid") {
      function.max_threads = read_int();
      while (text_.accept(",")) function.max_threads *= read_int();
    } else if (token.text == ".minnctapersm") {
      read_int();  // for whoever assigns registers
    } else {
      text_.refuse(token.line, "unknown directive " + std::string(token.text) + " in " + function.name);
    }
  }
}

// A kernel's are the launch's, a function's lie in the memory of each thread.
void Parser::place_parameters(int number, const std::vector<Variable>& results,
                              const std::vector<Variable>& parameters) {
  Function& function = program_.functions[number];
  std::size_t& bytes = function.is_kernel ? function.parameter_bytes : function.local_bytes;
  const std::uint32_t base = function.is_kernel ? special::param_base : special::local_base;
  function.parameters.clear();
  function.results.clear();
  bytes = 0;
  const auto place = [&](const Variable& variable, std::vector<Parameter>& list) {
    const std::size_t offset = rounded_up(bytes, variable.alignment);
    bytes = offset + variable.bytes;
    list.push_back({variable.name, offset, variable.bytes});
    symbols_[variable.name] = {base, offset};
  };
  for (const Variable& variable : parameters) place(variable, function.parameters);
  for (const Variable& variable : results) place(variable, function.results);
}

void Parser::read_body(int number) {
  Decoder decoder(program_, text_, constants_, symbols_, functions_, number);
  text_.expect("{");
  for (int depth = 1; depth > 0;) {
    const Token token = text_.next();
    if (token.text == "{") {
      ++depth;
      decoder.open_scope();
    } else if (token.text == "}") {
      if (--depth > 0) decoder.close_scope();
    } else if (token.text.starts_with('.')) {
      read_directive(decoder, token);
    } else if (text_.accept(":")) {
      decoder.add_label(std::string(token.text));
    } else {
      decoder.add(read_statement(token));
    }
  }
  decoder.finish(text_.peek().line);
}

void Parser::read_directive(Decoder& decoder, const Token& directive) {
  if (directive.text == ".loc") {
    read_location(decoder);
  } else if (directive.text == ".reg") {
    read_registers(decoder);
  } else if (directive.text == ".local" || directive.text == ".param") {
    const Variable variable = read_variable();
    if (directive.text == ".local") {
      decoder.add_array(variable.name, variable.bytes, variable.alignment);
    } else {
      decoder.add_argument(variable.name, variable.bytes, variable.alignment);
    }
    text_.expect(";");
  } else if (directive.text == ".pragma") {
    text_.expect("\"nounroll\"");
    text_.expect(";");
  } else {
    text_.refuse(directive.line, "unknown directive " + std::string(directive.text) + " in " + decoder.function_name());
  }
}

void Parser::read_registers(Decoder& decoder) {
  const Token type = text_.next();
  const int bytes = type.text == ".pred" ? predicate : type_bytes(type.text.substr(1));
  if (bytes < 2 && type.text != ".pred") text_.refuse(type.line, "registers of type " + std::string(type.text));
  do {
    const std::string name(text_.next().text);
    if (text_.accept("<")) {
      decoder.registers().declare(name, read_int(), bytes);
      text_.expect(">");
    } else {
      decoder.registers().declare(name, bytes);
    }
  } while (text_.accept(","));
  text_.expect(";");
}

// .loc file line column [, function_name name [+ offset], inlined_at file line column]
void Parser::read_location(Decoder& decoder) {
  const int text_line = text_.peek().line;
  SourceLines lines{{read_int(), read_int()}, {}, {}};
  while (text_.peek().line == text_line) {
    if (text_.next().text == "inlined_at") lines.caller = {read_int(), read_int()};
  }
  if (latest_.line == lines.caller) lines.callers_caller = latest_.caller;
  latest_ = lines;
  const auto next = static_cast<int>(program_.locations.size() + locations_.size());
  decoder.set_location(locations_.try_emplace(lines, next).first->second);
}

// The files' names come last.
void Parser::name_locations() {
  program_.locations.resize(program_.locations.size() + locations_.size());
  for (const auto& [lines, number] : locations_) {
    Location& location = program_.locations[number];
    location = {place_of(lines.line), place_of(lines.caller)};
    const auto file = files_.find(lines.line.file);
    // The words of kernels say less than whoever uses them.
    if (file != files_.end() && file->second == "device.h" && lines.caller.file != 0)
      location = {place_of(lines.caller), place_of(lines.callers_caller)};
  }
}

std::string Parser::place_of(const SourceLine& line) const {
  const auto file = files_.find(line.file);
  return file == files_.end() ? "" : file->second + ":" + std::to_string(line.line);
}

// --- statements ------------------------------------------------------------------------------------------------------

Statement Parser::read_statement(Token token) {
  Statement statement;
  statement.line = token.line;
  if (token.text == "@") {
    statement.guard_negated = text_.accept("!");
    statement.guard = text_.next().text;
    token = text_.next();
  }
  statement.opcode = token.text;
  while (!text_.accept(";")) {
    if (text_.peek().text.empty() || text_.peek().text == "}")
      text_.refuse(statement.line, "a statement without an end: " + statement.opcode);
    statement.arguments.push_back(read_argument());
    text_.accept(",");
  }
  return statement;
}

Argument Parser::read_argument() {
  Argument argument;
  const auto read_until = [&](std::string_view end) {
    while (!text_.accept(end)) {
      argument.names.push_back(read_scalar());
      text_.accept(",");
    }
  };
  if (text_.accept("{")) {
    argument.kind = Argument::Kind::vector;
    read_until("}");
  } else if (text_.accept("(")) {
    argument.kind = Argument::Kind::list;
    read_until(")");
  } else if (text_.accept("[")) {
    argument.kind = Argument::Kind::address;
    argument.names.push_back(read_scalar());
    if (text_.accept("+")) argument.offset = static_cast<std::int64_t>(parse_number(read_scalar()).value_or(0));
    text_.expect("]");
  } else {
    argument.names.push_back(read_scalar());
    if (text_.accept("|")) argument.names.push_back(read_scalar());
  }
  return argument;
}

std::string Parser::read_scalar() {
  std::string scalar(text_.accept("-") ? "-" : "");
  scalar += text_.next().text;
  return scalar;
}

}  // namespace

void parse(Program& program, const std::string& name, std::string content) {
  Parser(program, name, std::move(content)).read();
}

void parse_file(Program& program, const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Fault("there is no file " + path);
  std::stringstream content;
  content << file.rdbuf();
  parse(program, path.substr(path.find_last_of('/') + 1), content.str());
}

}  // namespace ketgrad::ptx

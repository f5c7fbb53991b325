// The statements of a function become instructions.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/program.h"
#include "ptx/symbols.h"
#include "ptx/text.h"

namespace ketgrad::ptx {

struct Argument {
  enum class Kind { scalar, vector, address, list };  // x or x|y, {x, y}, [x+8], (x, y)

  Kind kind = Kind::scalar;
  std::vector<std::string> names;
  std::int64_t offset = 0;
};

struct Statement {
  int line = 0;
  bool guard_negated = false;
  std::string guard;  // a predicate; empty where there is none
  std::string opcode;
  std::vector<Argument> arguments;
};

class Decoder {
 public:
  Decoder(Program& program, const Text& text, Constants& constants, const Symbols& symbols,
          const std::map<std::string, int>& functions, int number);

  RegisterNames& registers() { return registers_; }
  std::string function_name() const { return readable_name(function_.name); }
  void set_location(int location) { location_ = location; }
  void open_scope();
  void close_scope();

  // Memory of each thread: an array, and what is handed to a function or comes back from it.
  void add_array(const std::string& name, std::size_t bytes, std::size_t alignment);
  void add_argument(const std::string& name, std::size_t bytes, std::size_t alignment);

  void add_label(const std::string& name);
  void add(const Statement& statement);
  void finish(int line);

 private:
  struct Jump {
    int instruction;
    std::string label;
    int line;
  };

  void decode(const Statement& s, Instruction& i);
  void decode_branch(const Statement& s, Instruction& i);
  void decode_call(const Statement& s, Instruction& i);
  void decode_barrier(const Statement& s, Instruction& i) const;
  void decode_shuffle(const Statement& s, Instruction& i);
  bool decode_memory(const Statement& s, Instruction& i);
  void decode_address(const Statement& s, const Argument& argument, Instruction& i);
  int decode_elements(const Statement& s, const Argument& argument, Instruction& i);
  bool decode_move(const Statement& s, Instruction& i);
  void decode_plain(const Statement& s, const std::string& opcode, const std::vector<std::string>& names,
                    Instruction& i);

  const Symbol* find_symbol(std::string_view name) const;
  Register find_register(const Statement& s, std::string_view name) const;
  std::uint32_t result(const Statement& s, const std::string& name, int bytes) const;
  Operand source(const Statement& s, const std::string& name, int bytes);
  Operand address_of(const Symbol& symbol);
  std::vector<Copy> copies(const Statement& s, const std::vector<std::string>& names,
                           const std::vector<Parameter>& parameters, bool to_parameters) const;
  void require(const Statement& s, bool condition) const;
  [[noreturn]] void refuse(const Statement& s, const std::string& what) const;

  Program& program_;
  const Text& text_;
  Constants& constants_;
  const Symbols& symbols_;
  const std::map<std::string, int>& functions_;
  int number_;
  Function& function_;
  RegisterNames registers_;
  Symbols own_symbols_;
  std::map<std::string, int> labels_;
  std::vector<Jump> jumps_;
  int location_ = 0;

  // Arguments of calls share their bytes with those of other calls.
  std::size_t arguments_begin_ = 0;
  std::size_t arguments_bytes_ = 0;
};

}  // namespace ketgrad::ptx

// PTX as words and signs, one after the other.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ketgrad::ptx {

struct Token {
  std::string_view text;  // empty at the end
  int line = 0;
};

class Text {
 public:
  // `name` stands before the line in messages.
  Text(std::string name, std::string content);

  const std::string& name() const { return name_; }
  const Token& peek() const { return token_; }
  Token next();
  bool accept(std::string_view text);
  void expect(std::string_view text);

  // Throws a Fault that names the line.
  [[noreturn]] void refuse(int line, const std::string& what) const;

 private:
  void skip_blanks();
  void read();

  std::string name_;
  std::string content_;
  std::size_t at_ = 0;
  int line_ = 1;
  Token token_;
};

}  // namespace ketgrad::ptx

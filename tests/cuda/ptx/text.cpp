#include "ptx/text.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

// Opcodes, directives, registers, labels and numbers: their characters are alike.
bool is_of_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%' || c == '.';
}

}  // namespace

Text::Text(std::string name, std::string content) : name_(std::move(name)), content_(std::move(content)) { read(); }

Token Text::next() {
  const Token token = token_;
  read();
  return token;
}

bool Text::accept(std::string_view text) {
  if (token_.text != text) return false;
  read();
  return true;
}

void Text::expect(std::string_view text) {
  const Token token = next();
  if (token.text != text)
    refuse(token.line, "'" + std::string(text) + "' expected, not '" + std::string(token.text) + "'");
}

void Text::refuse(int line, const std::string& what) const {
  throw Fault(name_ + ":" + std::to_string(line) + ": " + what);
}

void Text::skip_blanks() {
  while (at_ < content_.size()) {
    const std::string_view rest = std::string_view(content_).substr(at_);
    if (rest[0] == '\n') {
      ++line_;
      ++at_;
    } else if (std::isspace(static_cast<unsigned char>(rest[0])) != 0) {
      ++at_;
    } else if (rest.starts_with("//")) {
      at_ = std::min(content_.find('\n', at_), content_.size());
    } else {
      return;
    }
  }
}

void Text::read() {
  skip_blanks();
  const std::size_t begin = at_;
  if (at_ < content_.size()) {
    if (content_[at_] == '"') {
      at_ = std::min(content_.find('"', at_ + 1), content_.size() - 1) + 1;
    } else if (is_of_word(content_[at_])) {
      while (at_ < content_.size() && is_of_word(content_[at_])) ++at_;
    } else {
      ++at_;
    }
  }
  token_ = {std::string_view(content_).substr(begin, at_ - begin), line_};
}

}  // namespace ketgrad::ptx

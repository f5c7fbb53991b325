// A vector of at most `capacity` elements, without memory of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>

namespace ketgrad {

template <class T, std::size_t capacity>
class InplaceVector {
 public:
  using value_type = T;

  InplaceVector() = default;
  InplaceVector(std::initializer_list<T> elements) {
    for (const T& e : elements) push_back(e);
  }

  // There must be room for it.
  void push_back(const T& element) { elements_[size_++] = element; }
  void erase(T* position) {
    std::copy(position + 1, end(), position);
    --size_;
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T& operator[](std::size_t i) const { return elements_[i]; }
  const T* begin() const { return elements_.data(); }
  const T* end() const { return elements_.data() + size_; }
  T& operator[](std::size_t i) { return elements_[i]; }
  T* begin() { return elements_.data(); }
  T* end() { return elements_.data() + size_; }

  friend bool operator==(const InplaceVector& a, const InplaceVector& b) { return std::ranges::equal(a, b); }

 private:
  std::array<T, capacity> elements_{};
  std::size_t size_ = 0;
};

}  // namespace ketgrad

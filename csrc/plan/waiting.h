// The elements of a segment that no pass has taken yet.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

namespace ketgrad {

// The search for elements of a pass, a round or a block ends when this many have to wait: beyond, it costs more than it
// finds.
inline constexpr int most_waiting = 256;

// Places of elements, ascending. Those that a pass takes lie near the front: to take them costs what was looked at,
// not what is left, so that planning is linear in the number of gates.
class Waiting {
 public:
  Waiting() = default;
  explicit Waiting(std::vector<int> elements) : list_(std::move(elements)) {}

  bool empty() const { return first_ == list_.size(); }

  const int* begin() const { return list_.data() + first_; }
  const int* end() const { return list_.data() + list_.size(); }

  // Goes through the elements in front of `last`, in order, while `goes_on()`, and takes those for which `takes(e)`.
  // The end is that of the list or one that the caller kept: nothing behind it moves.
  template <class Takes, class GoesOn>
  std::vector<int> take(const int* last, const Takes& takes, const GoesOn& goes_on) {
    std::vector<int> taken;
    left_.clear();
    int* next = list_.data() + first_;
    for (; next != last && goes_on(); ++next) (takes(*next) ? taken : left_).push_back(*next);
    std::copy_backward(left_.begin(), left_.end(), next);
    first_ += taken.size();
    return taken;
  }

  // Puts back what was taken.
  void put_back(const std::vector<int>& taken) {
    if (taken.empty()) return;
    const auto middle = list_.begin() + static_cast<std::ptrdiff_t>(first_);
    first_ -= taken.size();
    const auto first = std::copy_backward(taken.begin(), taken.end(), middle);
    std::inplace_merge(first, middle, std::upper_bound(middle, list_.end(), taken.back()));
  }

 private:
  std::vector<int> list_;
  std::size_t first_ = 0;
  std::vector<int> left_;
};

}  // namespace ketgrad

// The samples that go through the engine together, and what a call brings of them: a lane for each.
#pragma once

#include <algorithm>

#include "cpu/call.h"
#include "cpu/kernels/states-inl.h"
#include "cpu/lanes.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

struct SampleGroup {
  Index first = 0;
  int count = 1;

  // Lanes beyond the last sample go along with it; nothing of theirs is kept.
  Index sample(int lane) const { return first + std::min(lane, count - 1); }
};

// The inputs of a group's samples as numbers of kind N: values or, of dual numbers, values and tangents.
template <class N>
class SampleInputs {
  using V = Plain<N>;
  using T = Scalar<N>;
  static constexpr int width = lane_width<N>;

 public:
  // Both are kept by reference.
  SampleInputs(const Call<T>& call, const SampleGroup& group) : call_(call), group_(group) {}

  Index sample(int lane) const { return group_.sample(lane); }

  // Lanes in use.
  int count() const { return group_.count; }

  bool has_tangent(const Term& term) const {
    return std::any_of(term.coefficients.begin(), term.coefficients.end(),
                       [&](const Slot& s) { return call_.has_tangent(s.input); });
  }

  Total<N> value(const Slot& slot, int lane) const {
    if constexpr (is_dual<N>) {
      return {call_.value(slot, sample(lane)), call_.tangent(slot, sample(lane))};
    } else {
      return call_.value(slot, sample(lane));
    }
  }

  // A product of slots and a constant.
  Total<N> coefficient(const Term& term, int lane) const {
    return coefficient_without(term, term.coefficients.size(), lane);
  }

  // Without one of the slots.
  Total<N> coefficient_without(const Term& term, std::size_t left_out, int lane) const {
    Total<N> c = term.scale;
    for (std::size_t j = 0; j < term.coefficients.size(); ++j) {
      if (j != left_out) c *= value(term.coefficients[j], lane);
    }
    return c;
  }

  // of_lane(lane) for each lane.
  template <class F>
  N lanes(const F& of_lane) const {
    N v{};
    for (int l = 0; l < width; ++l) set_lane(v, l, rounded(of_lane(l)));
    return v;
  }

  // A complex input. What was returned before is overwritten.
  N* complex_input(int input) {
    const InputView<T>& view = call_.inputs[input];
    values_.resize(2 * view.numel);
    for (int l = 0; l < width; ++l) {
      const T* data = view.of_sample(sample(l));
      const T* tangent = call_.has_tangent(input) ? call_.tangents[input].of_sample(sample(l)) : nullptr;
      for (Index e = 0; e < 2 * view.numel; ++e) set_number(values_[e], l, data, tangent, e);
    }
    return values_.data();
  }

  // Some elements of a real input.
  void real_entries(int input, Index first, Index count, N* out) const {
    const InputView<T>& view = call_.inputs[input];
    for (int l = 0; l < width; ++l) {
      const T* data = view.of_sample(sample(l)) + first;
      const T* tangent = call_.has_tangent(input) ? call_.tangents[input].of_sample(sample(l)) + first : nullptr;
      for (Index e = 0; e < count; ++e) set_number(out[e], l, data, tangent, e);
    }
  }

  // `size` numbers a sample, from rows of `stride` numbers; `tangents` is null where they have none. What was returned
  // before is overwritten.
  N* row(const T* rows, const T* tangents, Index stride, Index first, Index size) {
    values_.resize(size);
    for (int l = 0; l < width; ++l) {
      const Index begin = sample(l) * stride + first;
      const T* tangent = tangents == nullptr ? nullptr : tangents + begin;
      for (Index e = 0; e < size; ++e) set_number(values_[e], l, rows + begin, tangent, e);
    }
    return values_.data();
  }

 private:
  static auto rounded(const Total<N>& x) {
    if constexpr (is_dual<N>) {
      return DualOf<T>(x);
    } else {
      return static_cast<T>(x);
    }
  }

  static void set_number(N& number, int lane, const T* values, const T* tangents, Index e) {
    if constexpr (is_dual<N>) {
      set_lane(number, lane, {values[e], tangents == nullptr ? T(0) : tangents[e]});
    } else {
      static_cast<void>(tangents);
      set_lane(number, lane, values[e]);
    }
  }

  const Call<T>& call_;
  const SampleGroup& group_;
  LaneVector<N> values_;
};

// The numbers of a state without their lanes, as kernels over rows take them.
template <class V>
Scalar<V>* scalars(V* state) {
  return reinterpret_cast<Scalar<V>*>(state);
}

// The cotangents of a backward sweep and, of dual numbers, their tangents: null where they have none.
template <class T>
struct ResultCotangents {
  const T* real = nullptr;
  const T* complex = nullptr;
  const T* real_tangent = nullptr;
  const T* complex_tangent = nullptr;
};

// Of real results, the cotangent at a place, and its tangent if N is dual.
template <class N>
Total<N> real_cotangent(const ResultCotangents<Scalar<N>>& c, Index at) {
  const auto value = static_cast<double>(c.real[at]);
  if constexpr (is_dual<N>) {
    return {value, c.real_tangent == nullptr ? 0 : static_cast<double>(c.real_tangent[at])};
  } else {
    return value;
  }
}

}  // namespace
}  // namespace ketgrad

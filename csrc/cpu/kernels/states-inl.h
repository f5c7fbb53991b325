// States as kernels see them: a pointer to numbers or, where tangents go along, two pointers that are read and written
// as one to dual numbers. A kernel that is written for any kind of state has its derivative by that, and values and
// tangents stay in arrays of their own, which the kernels of rotations need.
#pragma once

#include <type_traits>

#include "math/bits.h"
#include "math/dual.h"

namespace ketgrad {
namespace {

// A dual number whose value and tangent are in different arrays.
template <class V>
class DualReference {
 public:
  DualReference(V& value, V& tangent) : value_(value), tangent_(tangent) {}
  DualReference(const DualReference&) = default;

  operator DualOf<V>() const { return {value_, tangent_}; }  // NOLINT: it stands for the number

  DualReference& operator=(const DualOf<V>& x) {
    value_ = x.value;
    tangent_ = x.tangent;
    return *this;
  }
  DualReference& operator=(const DualReference& o) { return *this = DualOf<V>(o); }
  DualReference& operator+=(const DualOf<V>& x) { return *this = DualOf<V>(*this) + x; }
  DualReference& operator*=(const DualOf<V>& x) { return *this = DualOf<V>(*this) * x; }

  friend DualOf<V> operator-(const DualReference& a) { return -DualOf<V>(a); }
  friend DualOf<V> operator*(const DualReference& a, const DualReference& b) { return DualOf<V>(a) * DualOf<V>(b); }

 private:
  V& value_;
  V& tangent_;
};

// A state and its tangent.
template <class V>
struct DualState {
  V* value = nullptr;
  V* tangent = nullptr;

  DualReference<V> operator[](Index i) const { return {value[i], tangent[i]}; }
  friend DualState operator+(const DualState& s, Index i) { return {s.value + i, s.tangent + i}; }
};

template <class State>
struct StateTraits;

template <class V>
struct StateTraits<V*> {
  using Number = std::remove_const_t<V>;
};

template <class V>
struct StateTraits<DualState<V>> {
  using Number = DualOf<V>;
};

// The kind of number that a state holds, and the kind of state that holds a number.
template <class State>
using Number = typename StateTraits<State>::Number;

template <class N>
struct StateHolding {
  using Plain = N;
  using State = N*;
};

template <class V>
struct StateHolding<DualOf<V>> {
  using Plain = V;
  using State = DualState<V>;
};

template <class N>
using StateOf = typename StateHolding<N>::State;

template <class N>
using Plain = typename StateHolding<N>::Plain;

}  // namespace
}  // namespace ketgrad

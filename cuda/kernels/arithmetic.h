// What kernels compute with: numbers, complex numbers, affine maps of indices, sums over a block.
#pragma once

#include "cuda/tables/tables.h"
#include "math/complex.h"
#include "math/dual.h"

#include "cuda/kernels/device.h"

namespace ketgrad::cuda {

// --- numbers ---------------------------------------------------------------------------------------------------------
//
// Kernels are written once for any number type T: float, double, and duals of them. On duals they give the derivatives
// of results and gradients along a tangent of the inputs, forward over reverse.

template <class T>
struct NumberOf {
  using Real = T;        // of inputs and results in memory
  using Accum = double;  // of sums
};
template <class R>
struct NumberOf<DualOf<R>> {
  using Real = R;
  using Accum = Dual;
};

template <class T>
using Real = typename NumberOf<T>::Real;
template <class T>
using Accum = typename NumberOf<T>::Accum;

// Calls a macro for each number type that kernels are compiled for.
#define KETGRAD_FOR_NUMBERS(macro) macro(float) macro(double) macro(DualOf<float>) macro(Dual)

template <class T>
inline constexpr bool is_dual = !std::is_same_v<T, Real<T>>;

// An array of a call: its values and, for duals, their tangents, null where there are none.
template <class T>
struct Source {
  const Real<T>* values = nullptr;
  const Real<T>* tangents = nullptr;

  KETGRAD_DEVICE T at(Index i) const {
    if constexpr (is_dual<T>) {
      return {values[i], tangents == nullptr ? Real<T>(0) : tangents[i]};
    } else {
      return values[i];
    }
  }
  // Number i of complex ones.
  KETGRAD_DEVICE Complex<T> complex_at(Index i) const { return {at(2 * i), at(2 * i + 1)}; }
};

template <class R>
KETGRAD_DEVICE DualOf<R> shuffle_xor(const DualOf<R>& x, int mask) {
  return {shuffle_xor(x.value, mask), shuffle_xor(x.tangent, mask)};
}

template <class R>
KETGRAD_DEVICE DualOf<R> shuffle(const DualOf<R>& x, int warp_lane) {
  return {shuffle(x.value, warp_lane), shuffle(x.tangent, warp_lane)};
}

template <class R>
KETGRAD_DEVICE DualOf<R> with_sign(const DualOf<R>& x, std::uint32_t signs) {
  return {with_sign(x.value, signs), with_sign(x.tangent, signs)};
}

KETGRAD_DEVICE void add_alone(Dual* sum, const Dual& value) {
  add_alone(&sum->value, value.value);
  add_alone(&sum->tangent, value.tangent);
}

// A number without its tangent.
template <class T>
KETGRAD_DEVICE Real<T> plain(const T& x) {
  if constexpr (is_dual<T>) {
    return x.value;
  } else {
    return x;
  }
}

// --- indices ---------------------------------------------------------------------------------------------------------

// The sum of vectors[j] over the bits j of r, which has `count` bits. Without branches, so that loads overlap.
template <class V, class R>
KETGRAD_DEVICE V combine(const V* vectors, int count, R r) {
  V sum = 0;
  for (int j = 0; j < count; ++j) sum ^= vectors[j] & (V{0} - static_cast<V>((r >> j) & 1));
  return sum;
}

KETGRAD_DEVICE Index at(const TablesView& t, const Map& map, Index r) {
  return static_cast<Index>(map.origin ^ combine(t.vectors + map.vectors.first, map.vectors.count, r));
}

// --- complex numbers -------------------------------------------------------------------------------------------------

// conj(a) b
template <class T>
KETGRAD_DEVICE Complex<T> inner(const Complex<T>& a, const Complex<T>& b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}

// i^quarter a
template <class T>
KETGRAD_DEVICE Complex<T> times_quarter(const Complex<T>& a, int quarter) {
  switch (quarter & 3) {
    case 0: return a;
    case 1: return {-a.im, a.re};
    case 2: return {-a.re, -a.im};
    default: return {a.im, -a.re};
  }
}

template <class T>
KETGRAD_DEVICE Complex<Accum<T>> widened(const Complex<T>& a) {
  return {static_cast<Accum<T>>(a.re), static_cast<Accum<T>>(a.im)};
}

template <class T>
KETGRAD_DEVICE Complex<T> narrowed(const Complex<Accum<T>>& a) {
  return {static_cast<T>(a.re), static_cast<T>(a.im)};
}

// --- sums ------------------------------------------------------------------------------------------------------------

// In the same order on every lane of the warp, so that all have the same sum.
template <class T>
KETGRAD_DEVICE T warp_sum(T value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

// Over all threads of a block, which has shared memory for a number of each warp. Between two sums there must be a
// barrier, so that all threads have read the first.
template <class N>
KETGRAD_DEVICE N block_sum(const N& value) {
  const N of_warp = warp_sum(value);
  const int warps = block_threads() / warp_size;
  if (warps == 1) return of_warp;
  Shared<N> sums(0, warps);
  if (thread_index() % warp_size == 0) sums.set(thread_index() / warp_size, of_warp);
  barrier();
  N total = 0;
  for (int w = 0; w < warps; ++w) total += sums.get(w);
  return total;
}

template <class N>
KETGRAD_DEVICE Complex<N> block_sum(const Complex<N>& value) {
  const N re = block_sum(value.re);
  barrier();
  return {re, block_sum(value.im)};
}

// --- inputs of a call
// -------------------------------------------------------------------------------------------------

template <class T>
struct Input {
  Source<T> data;
  Real<T>* gradient = nullptr;  // null where none is requested
  Index numel = 0;              // complex numbers count once
  std::int32_t batched = 0;
  std::int32_t is_complex = 0;

  KETGRAD_DEVICE Index row(Index sample) const { return batched != 0 ? sample * numel : 0; }
};

// The offset if it reads no input.
template <class T>
KETGRAD_DEVICE Accum<T> value_of(const Slot& v, const Input<T>* inputs, Index sample) {
  if (v.input == no_input) return v.offset;
  const Input<T>& input = inputs[v.input];
  return v.scale * static_cast<Accum<T>>(input.data.at(input.row(sample) + v.column)) + v.offset;
}

template <class T>
KETGRAD_DEVICE Complex<T> complex_at(const Input<T>& input, Index sample, Index e) {
  return input.data.complex_at(input.row(sample) + e);
}

template <class T>
KETGRAD_DEVICE T real_at(const Input<T>& input, Index sample, Index e) {
  return input.data.at(input.row(sample) + e);
}

template <class T>
KETGRAD_DEVICE Accum<T> coefficient_of(const TablesView& t, const Coefficient& c, const Input<T>* inputs,
                                       Index sample) {
  Accum<T> product = c.scale;
  for (int j = 0; j < c.values.count; ++j) product *= value_of(t.values[c.values.first + j], inputs, sample);
  return product;
}

// A rotation exp(-i angle/2 P) = c + s (-i P), c and s being cosine and sine of half the angle, takes pairs (a, b) to
// (c a - s b, c b + s a). With t = s / (1 + c) that is three shears: a -= t b, b += s a, a -= t b, six multiply-adds
// where the formula has eight operations. For a negative c it rotates by (-c, -s), which defers a sign of all
// amplitudes: an unnormalised rotation.
template <class T>
struct ShearRotation {
  T shear;  // t, at most 1
  T sine;
  Real<T> sign;  // deferred
};

// A chunk of samples: those from `first` on.
struct Samples {
  Index first = 0;
  Index count = 0;
};

}  // namespace ketgrad::cuda

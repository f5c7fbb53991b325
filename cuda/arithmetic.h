// What kernels compute with: complex numbers, affine maps of indices, sums over a block.
#pragma once

#include "core/complex.h"
#include "cuda/tables.h"

#include "cuda/device.h"

namespace ketgrad::cuda {

// Sum of vectors[j] over the bits j of r, of `count` bits: no branches, so that loads do not wait for each other.
template <class V, class R>
KETGRAD_DEVICE V combine(const V* vectors, int count, R r) {
  V sum = 0;
  for (int j = 0; j < count; ++j) sum ^= vectors[j] & (V{0} - static_cast<V>((r >> j) & 1));
  return sum;
}

KETGRAD_DEVICE Index at(const TablesView& t, const Map& map, Index r) {
  return static_cast<Index>(map.origin ^ combine(t.vectors + map.vectors.first, map.vectors.count, r));
}

// conj(a) b
template <class T>
KETGRAD_DEVICE Complex<T> inner(const Complex<T>& a, const Complex<T>& b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}

// i^quarter a
template <class T>
KETGRAD_DEVICE Complex<T> turned(const Complex<T>& a, int quarter) {
  switch (quarter & 3) {
    case 0: return a;
    case 1: return {-a.im, a.re};
    case 2: return {-a.re, -a.im};
    default: return {a.im, -a.re};
  }
}

template <class T>
KETGRAD_DEVICE Complex<double> widened(const Complex<T>& a) {
  return {static_cast<double>(a.re), static_cast<double>(a.im)};
}

template <class T>
KETGRAD_DEVICE Complex<T> narrowed(const Complex<double>& a) {
  return {static_cast<T>(a.re), static_cast<T>(a.im)};
}

// In the same order on every lane, so that all have the same sum.
template <class T>
KETGRAD_DEVICE T warp_sum(T value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

// Of all threads of a block, which has shared memory for a double for each warp.
KETGRAD_DEVICE double block_sum(double value) {
  const double of_warp = warp_sum(value);
  const int warps = block_threads() / warp_size;
  if (warps == 1) return of_warp;
  Shared<double> sums(0, warps);
  barrier();  // an earlier sum has been read
  if (thread_index() % warp_size == 0) sums.set(thread_index() / warp_size, of_warp);
  barrier();
  double total = 0;
  for (int w = 0; w < warps; ++w) total += sums.get(w);
  return total;
}

KETGRAD_DEVICE Complex<double> block_sum(const Complex<double>& value) {
  return {block_sum(value.re), block_sum(value.im)};
}

// --- what a call brings -----------------------------------------------------------------------------------------------

template <class T>
struct Input {
  const T* data = nullptr;
  T* gradient = nullptr;  // null where none is wanted
  Index numel = 0;        // complex numbers count once
  std::int32_t batched = 0;
  std::int32_t is_complex = 0;

  KETGRAD_DEVICE Index row(Index sample) const { return batched != 0 ? sample * numel : 0; }
};

template <class T>
KETGRAD_DEVICE double value_of(const Value& v, const Input<T>* inputs, Index sample) {
  if (v.input == no_input) return v.offset;
  const Input<T>& input = inputs[v.input];
  return v.scale * static_cast<double>(input.data[input.row(sample) + v.column]) + v.offset;
}

template <class T>
KETGRAD_DEVICE Complex<T> complex_at(const Input<T>& input, Index sample, Index e) {
  const T* z = input.data + 2 * (input.row(sample) + e);
  return {z[0], z[1]};
}

template <class T>
KETGRAD_DEVICE double coefficient_of(const TablesView& t, const Coefficient& c, const Input<T>* inputs, Index sample) {
  double product = c.scale;
  for (int j = 0; j < c.values.count; ++j) product *= value_of(t.values[c.values.first + j], inputs, sample);
  return product;
}

// The numbers of a turn: exp(-i angle/2 P) = cosine + sine (-i P).
template <class T>
struct Rotation {
  T cosine;
  T sine;
};

template <class T>
struct FixedPoint;
template <>
struct FixedPoint<float> {
  using Unsigned = std::uint32_t;
  using Signed = std::int32_t;
};
template <>
struct FixedPoint<double> {
  using Unsigned = std::uint64_t;
  using Signed = std::int64_t;
};

// Half the angle of a string as a fraction of a whole turn, in fixed point: sums of them are exact and wrap by
// themselves. What is not a number shows in `poison`, which is 0 else.
template <class T>
struct PhaseAngle {
  typename FixedPoint<T>::Unsigned fraction;
  T poison;
};

// A chunk of samples: those from `first` on.
struct Samples {
  Index first = 0;
  Index count = 0;
};

}  // namespace ketgrad::cuda

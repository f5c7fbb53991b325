// A complex number whose product is (ac - bd) + i (ad + bc).
//
// std::complex follows Annex G of the C standard: its product tests for NaN and may call libgcc to recover infinities.
// That is not needed here, and NaN propagates all the same.
#pragma once

namespace ketgrad {

// Aligned to twice the size of R if that is a float or double, so that a GPU loads and stores both parts at once.
template <class R>
struct alignas(sizeof(R) <= sizeof(double) ? 2 * sizeof(R) : alignof(R)) Complex {
  R re{};
  R im{};
};

template <class R>
constexpr Complex<R> operator+(const Complex<R>& a, const Complex<R>& b) {
  return {a.re + b.re, a.im + b.im};
}

template <class R>
constexpr Complex<R> operator-(const Complex<R>& a, const Complex<R>& b) {
  return {a.re - b.re, a.im - b.im};
}

template <class R>
constexpr Complex<R> operator*(const Complex<R>& a, const Complex<R>& b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

template <class R>
constexpr Complex<R> operator*(const R& s, const Complex<R>& a) {
  return {s * a.re, s * a.im};
}

template <class R>
constexpr Complex<R>& operator+=(Complex<R>& a, const Complex<R>& b) {
  a.re += b.re;
  a.im += b.im;
  return a;
}

template <class R>
constexpr Complex<R> conj(const Complex<R>& a) {
  return {a.re, -a.im};
}

}  // namespace ketgrad

// A complex number with the plain product formula.
//
// std::complex follows Annex G: its product tests for NaN and calls into libgcc. The engine needs neither; NaN still
// propagates.
#pragma once

namespace ketgrad {

// Aligned to twice the size of plain numbers, so that a GPU loads and stores both parts at once.
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

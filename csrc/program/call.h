// The buffers of an operator call, for any engine: inputs, results, cotangents and gradients.
#pragma once

#include <vector>

#include "math/bits.h"

namespace ketgrad {

// The row of a sample among `period` rows that repeat; 0: there is one for each sample.
inline Index row_of(Index sample, Index period) { return period == 0 ? sample : sample % period; }

// Complex inputs are interleaved; `numel` counts complex numbers once.
template <class T>
struct InputView {
  const T* data = nullptr;
  bool batched = false;
  bool is_complex = false;
  Index numel = 0;
  Index period = 0;  // of a batched input's rows, see row_of

  const T* of_sample(Index sample) const {
    return data + (batched ? row_of(sample, period) * numel * (is_complex ? 2 : 1) : 0);
  }
};

template <class T>
struct Results {
  T* real = nullptr;             // [B, R]
  T* complex = nullptr;          // [B, C] complex
  T* ket = nullptr;              // [B, 2^n] complex, or null if the ket is not kept
  float* rounded_ket = nullptr;  // the same of a double ket that is kept in single precision
};

template <class T>
struct Cotangents {
  const T* ket = nullptr;      // [B, 2^n] complex, from the forward pass; null: it is recomputed, or was rounded
  const T* real = nullptr;     // [B, R]
  const T* complex = nullptr;  // [B, C] complex
  std::vector<T*> gradients;   // per input, zero-initialised, in the input's shape; null if not requested
  Index ket_period = 0;        // of the ket's rows, see row_of
  const float* rounded_ket = nullptr;

  bool has_ket() const { return ket != nullptr || rounded_ket != nullptr; }

  // The first number of a sample's ket, that of all samples being `kets`.
  template <class S>
  const S* ket_of(Index sample, Index dimension, const S* kets) const {
    return kets + 2 * dimension * row_of(sample, ket_period);
  }
};

// Results that a backward sweep measures before it goes back, if it computes the ket itself. The cotangent of the real
// results is then `Cotangents::real` + curvature * results: that of a loss that is quadratic in them.
template <class T>
struct Measured {
  Results<T> results;
  T curvature = 0;
  T* cotangents = nullptr;  // [B, R], scratch for these; null if the curvature is 0

  // Those of the numbers `begin` to `end`, which are measured.
  void write_cotangents(const Cotangents<T>& given, Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) cotangents[i] = given.real[i] + curvature * results.real[i];
  }
};

// A call along tangents of the inputs: derivatives of the results and of the gradients.
template <class T>
struct Directional {
  Results<T> results;
  // `gradients` receive the derivatives of the gradients; the ket is recomputed.
  Cotangents<T> cotangents;
  const T* real_tangent = nullptr;  // of the cotangents; null: zero
  const T* complex_tangent = nullptr;

  bool requests_gradients() const {
    for (const T* gradient : cotangents.gradients) {
      if (gradient != nullptr) return true;
    }
    return false;
  }

  Cotangents<T> cotangents_tangent() const { return {nullptr, real_tangent, complex_tangent, {}}; }
};

}  // namespace ketgrad

// What an operator call brings, for any backend: where its inputs are, and where results and gradients go.
#pragma once

#include <vector>

#include "math/bits.h"

namespace ketgrad {

// Complex inputs are interleaved; `numel` counts complex numbers once.
template <class T>
struct InputView {
  const T* data = nullptr;
  bool batched = false;
  bool is_complex = false;
  Index numel = 0;

  const T* of_sample(Index sample) const { return data + (batched ? sample * numel * (is_complex ? 2 : 1) : 0); }
};

template <class T>
struct Results {
  T* real = nullptr;     // [B, R]
  T* complex = nullptr;  // [B, C] complex
  T* ket = nullptr;      // [B, 2^n] complex, or null where nobody needs it
};

template <class T>
struct Cotangents {
  const T* ket = nullptr;  // as the forward pass left it, or null: it is computed again
  const T* real = nullptr;
  const T* complex = nullptr;
  std::vector<T*> gradients;  // per input, zeroed, in the input's shape; null where it is not requested
};

// Derivatives along one direction of the inputs: of the results, and of the gradients.
template <class T>
struct Directional {
  Results<T> results;
  // `gradients` receive the derivatives of the gradients; the ket is computed again.
  Cotangents<T> cotangents;
  const T* real_tangent = nullptr;  // of the cotangents; null where they have no tangent
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

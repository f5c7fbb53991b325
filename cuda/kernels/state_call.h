// States in global memory, as kernels over whole states get them.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "math/pauli_word.h"

namespace ketgrad::cuda {

// States of a chunk of samples, [sample][2^num_bits].
template <class T>
struct StateCall {
  TablesView t;
  Samples samples;
  int num_bits = 0;
  const Input<T>* inputs = nullptr;
};

// Where a group's amplitudes are: a map, or, of an unfused gate, a list among TablesView::vectors.
struct Offsets {
  Map map;
  Range list;
  std::int32_t is_list = 0;
  Index size = 0;

  static Offsets of(const Map& map) { return {map, {}, 0, map.size()}; }
  static Offsets of(const Range& list) { return {{}, list, 1, list.count}; }
};

KETGRAD_DEVICE Index offset_at(const TablesView& t, const Offsets& offsets, Index a) {
  return offsets.is_list != 0 ? static_cast<Index>(t.vectors[offsets.list.first + a]) : at(t, offsets.map, a);
}

// -i P |j> = i^quarter (-1)^parity(j) |j ^ x>: what it brings to row i from its partner.
template <class T>
KETGRAD_DEVICE Complex<T> generated(const PauliWord& pauli_word, Index from, const Complex<T>& amplitude) {
  const int quarter =
      pauli_word.y_count + 3 + (odd(static_cast<Mask>(from) & pauli_word.z) != pauli_word.negative ? 2 : 0);
  return times_quarter(amplitude, quarter);
}

}  // namespace ketgrad::cuda

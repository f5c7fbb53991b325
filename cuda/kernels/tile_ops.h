// An operation of a pass on a tile in shared memory, forwards and backwards.
#pragma once

#include "cuda/kernels/tile_phases.h"
#include "cuda/kernels/tile_rotations.h"
#include "cuda/kernels/tile_sums.h"

namespace ketgrad::cuda {

// The parameters of one sample's operations.
template <class T>
struct SampleParameters {
  const ShearRotation<T>* rotations = nullptr;
  const Complex<Accum<T>>* phases = nullptr;
};

// The operation on a tile of the ket.
template <class T>
KETGRAD_DEVICE void apply(const TableOp& op, const SampleParameters<T>& parameters, Place<T>& place, Tile<T>& ket,
                          Real<T>& sign) {
  const bool has_strings = op.layers > 0;
  if (has_strings) write_products(op, parameters.phases, place);
  barrier();
  ShearRotation<T> rotations[RotationBlock::most];
  load_rotations(op, parameters.rotations, place.tile_signs(op.rotation_signs), false, rotations);
  const Local groups = groups_of(op, place);
  RowGroup group(op);
  for (Local g = thread(); g < groups; g += threads()) {
    group.first = place.t.slots[op.groups + g];
    Complex<T> rows[thread_rows];
    if (has_strings) {
      Complex<T> factors[thread_rows];
      phase_factors(op, place, g, sign, factors);
      group.load(ket, rows);
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) rows[k] = factors[k] * rows[k];
    } else {
      group.load(ket, rows);
    }
#pragma unroll
    for (int j = 0; j < RotationBlock::most; ++j) {
      if (j < op.rotations) rotate_pairs(rows, j, rotations[j]);
    }
    group.store(ket, rows);
  }
  sign = sign_after(op, rotations, has_strings ? Real<T>(1) : sign);
}

// Its adjoint on tiles of ket and bra, and the overlaps of its angles: overlaps[angle * stride + partial sum].
template <class T>
KETGRAD_DEVICE void undo(const TableOp& op, const SampleParameters<T>& parameters, Place<T>& place, Tile<T>& ket,
                         Tile<T>& bra, Real<T>& sign, Accum<T>* overlaps, Index stride) {
  const bool has_strings = op.layers > 0;
  if (has_strings) write_products(op, parameters.phases, place);
  barrier();
  const SignBits signs = place.tile_signs(op.rotation_signs);
  ShearRotation<T> rotations[RotationBlock::most];
  load_rotations(op, parameters.rotations, signs, true, rotations);
  T sums[RotationBlock::most] = {};
  sign = sign_after(op, rotations, sign);
  const Local groups = groups_of(op, place);
  RowGroup group(op);
  // All lanes of a warp take part in its sums: those without a group add zeros.
  for (Local g = thread(); g - warp_lane() < groups; g += threads()) {
    const bool has_group = g < groups;
    Complex<T> of_ket[thread_rows] = {};
    Complex<T> of_bra[thread_rows] = {};
    if (has_group) {
      group.first = place.t.slots[op.groups + g];
      group.load(ket, of_ket);
      group.load(bra, of_bra);
    }
#pragma unroll
    for (int j = 0; j < RotationBlock::most; ++j) {
      if (j < op.rotations) {
        sums[j] += overlap_pairs(of_ket, of_bra, j);
        rotate_pairs(of_ket, j, rotations[j]);
        rotate_pairs(of_bra, j, rotations[j]);
      }
    }
    if (has_strings) {
      T w[thread_rows];
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) w[k] = of_bra[k].re * of_ket[k].im - of_bra[k].im * of_ket[k].re;
      add_string_overlaps(op, place, g, w, overlaps, stride);
      Complex<T> factors[thread_rows];
      phase_factors(op, place, g, sign, factors);
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) {
        of_ket[k] = inner(factors[k], of_ket[k]);
        of_bra[k] = inner(factors[k], of_bra[k]);
      }
    }
    if (has_group) {
      group.store(ket, of_ket);
      group.store(bra, of_bra);
    }
  }
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    const int number = op.first_angle + j;
    if (j >= op.rotations || place.t.angles[number].is_constant != 0) continue;
    const T sum = warp_sum(sums[j]);
    if (warp_lane() == 0)
      add_to_partial(overlaps + number * stride, place, with_sign(sum, signs << (most_signs - 1 - j)));
  }
  if (has_strings) sign = 1;
}

}  // namespace ketgrad::cuda

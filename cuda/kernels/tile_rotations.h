// Rotations of the rows that a thread holds, as shears, and the overlaps that are their gradients.
#pragma once

#include "cuda/kernels/tile_place.h"
#include "plan/plan.h"

namespace ketgrad::cuda {

// The slots of a group of rows: of its first row, and what the bits of a row's number add.
struct RowGroup {
  Local first = 0;
  Local flips[thread_row_bits];

  KETGRAD_DEVICE explicit RowGroup(const TableOp& op) : flips{op.flip[0], op.flip[1], op.flip[2]} {}

  template <class T>
  KETGRAD_DEVICE void load(const Tile<T>& tile, Complex<T>* rows) const {
#pragma unroll
    for (int k = 0; k < thread_rows; ++k) rows[k] = tile.get(thread_row_sum(first, flips, k));
  }
  template <class T>
  KETGRAD_DEVICE void store(Tile<T>& tile, const Complex<T>* rows) const {
#pragma unroll
    for (int k = 0; k < thread_rows; ++k) tile.set(thread_row_sum(first, flips, k), rows[k]);
  }
};

// How many groups an operation visits.
template <class T>
KETGRAD_DEVICE Local groups_of(const TableOp& op, const Place<T>& place) {
  return place.everywhere ? Local{1} << group_bits_of(place.tile_bits) : static_cast<Local>(op.num_active);
}

// The rotations of an operation in a tile. The angle is negated where the sign of the tile is odd.
template <class T>
KETGRAD_DEVICE void load_rotations(const TableOp& op, const ShearRotation<T>* table, SignBits signs, bool inverse,
                                   ShearRotation<T>* rotations) {
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    if (j >= op.rotations) continue;
    const bool negated = (((signs >> j) & 1) != 0) != inverse;
    rotations[j] = table[op.first_angle + j];
    rotations[j].shear = negated ? -rotations[j].shear : rotations[j].shear;
    rotations[j].sine = negated ? -rotations[j].sine : rotations[j].sine;
  }
}

// The deferred scale of unnormalised rotations is one sign for all of a tile: the state is `sign` times what is in
// shared memory, until phases apply it.
template <class T>
KETGRAD_DEVICE Real<T> sign_after(const TableOp& op, const ShearRotation<T>* rotations, Real<T> sign) {
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    if (j < op.rotations) sign *= rotations[j].sign;
  }
  return sign;
}

template <class T>
KETGRAD_DEVICE void shear(Complex<T>& a, const T& t, const Complex<T>& b) {
  a.re += t * b.re;
  a.im += t * b.im;
}

template <class T>
KETGRAD_DEVICE void rotate_pairs(Complex<T>* rows, int j, const ShearRotation<T>& rotation) {
#pragma unroll
  for (int k = 0; k < thread_rows; ++k) {
    if (((k >> j) & 1) != 0) continue;
    Complex<T>& a = rows[k];
    Complex<T>& b = rows[k ^ (1 << j)];
    shear(a, -rotation.shear, b);
    shear(b, rotation.sine, a);
    shear(a, -rotation.shear, b);
  }
}

// Re<bra| -i P |ket> on the pairs of rotation j: Re(conj(bra_b) ket_a - conj(bra_a) ket_b)
template <class T>
KETGRAD_DEVICE T overlap_pairs(const Complex<T>* ket, const Complex<T>* bra, int j) {
  T sum = 0;
#pragma unroll
  for (int k = 0; k < thread_rows; ++k) {
    if (((k >> j) & 1) != 0) continue;
    const int partner = k ^ (1 << j);
    sum += bra[partner].re * ket[k].re + bra[partner].im * ket[k].im;
    sum -= bra[k].re * ket[partner].re + bra[k].im * ket[partner].im;
  }
  return sum;
}

}  // namespace ketgrad::cuda

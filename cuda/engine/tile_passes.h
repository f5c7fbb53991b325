// The passes of a circuit that run on tiles: their launches, the angles that these read and the overlaps that they add
// to.
#pragma once

#include <algorithm>

#include "cuda/engine/context.h"
#include "cuda/kernels/tiles.h"
#include "plan/gpu_layout.h"

namespace ketgrad::cuda {

template <class T>
class TilePasses {
 public:
  explicit TilePasses(Context<T>& context) : c_(context), whole_(is_whole()) {}

  // Whether one tile holds a state, so that a launch takes any number of passes.
  bool whole() const { return whole_; }

  int count() const { return static_cast<int>(c_.tables().passes.size()); }
  bool is_gate_op(int pass) const { return c_.tables().passes[pass].gate_op != no_gate_op; }

  // The end of the passes from `first` on that one launch takes: of whole states, up to the next unfused gate.
  int launch_end(int first) const {
    int end = first + 1;
    while (whole_ && end < count() && !is_gate_op(end)) ++end;
    return end;
  }

  // The first of the passes up to `end` that one launch takes in the sweep back to `stop`.
  int launch_begin(int end, int stop) const {
    int first = end - 1;
    while (whole_ && first > stop && !is_gate_op(first - 1)) --first;
    return first;
  }

  // Angles of the Z-strings; those of rotations come before them.
  Index string_count() const { return c_.tables().angle_count() - c_.tables().rotations; }

  // Sets the angles of a chunk's samples.
  void begin_chunk() {
    c_.numbers_of_chunk(rotations_, c_.tables().rotations);
    c_.numbers_of_chunk(phases_, string_count());
    set_angles(c_.queue(), c_.view(), c_.tables().angle_count(), c_.device_inputs(), c_.samples(), rotations_, phases_,
               c_.some_nan());
  }

  void begin_overlaps() {
    overlap_partials_ = most_partials(c_.chunk());
    const Index numbers = c_.tables().angle_count() * overlap_partials_;
    c_.zero_numbers(c_.numbers_of_chunk(overlaps_, numbers), numbers);
  }

  const Accum<T>* overlaps() const { return overlaps_; }
  Index overlap_partials() const { return overlap_partials_; }

  // Partial sums of each overlap with this many samples: those of the pass with the most.
  Index most_partials(Index samples) const {
    Index most = 1;
    for (const TablePass& pass : c_.tables().passes) {
      if (pass.gate_op == no_gate_op) most = std::max(most, partials(pass.tile_bits, pass.tiles, samples));
    }
    return most;
  }

  Index partials(int tile_bits, Index tiles, Index samples) const {
    return grid_of(tile_bits, tiles, samples, c_.device().multiprocessors).partials();
  }

  TileCall<T> call() const {
    return {c_.view(), c_.samples(),  c_.tables().num_wires,       string_count(), rotations_,
            phases_,   c_.some_nan(), c_.device().multiprocessors, c_.chunk()};
  }

  void launch_forward(const ForwardTiles<T>& f) const { run_forward(c_.queue(), c_.tables(), call(), f); }

  void launch_backward(BackwardTiles<T> b) const {
    b.overlaps = overlaps_;
    b.overlap_partials = overlap_partials_;
    run_backward(c_.queue(), c_.tables(), call(), b);
  }

 private:
  bool is_whole() const {
    return c_.tables().whole && gpu_holds(c_.tables().num_wires, sizeof(T), c_.device().shared_bytes);
  }

  Context<T>& c_;
  const bool whole_;
  ShearRotation<T>* rotations_ = nullptr;
  Complex<Accum<T>>* phases_ = nullptr;
  Accum<T>* overlaps_ = nullptr;
  Index overlap_partials_ = 1;
};

}  // namespace ketgrad::cuda

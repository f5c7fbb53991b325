// How an engine has states in memory, and what it can do in passes.
#pragma once

namespace ketgrad {

struct Layout {
  int lane_bits = 0;  // a row holds 2^lane_bits neighbouring amplitudes
  int part_bits = 0;  // and rows of real and imaginary parts alternate, if this is 1
  int tile_bits = 0;  // a tile has at most 2^tile_bits amplitudes; at least one row
  // 2^run_bits neighbouring rows are in one tile: scattered rows come more slowly from memory.
  int run_bits = 0;
  bool tracks_support = true;       // amplitudes outside the support are left out
  bool measures_in_passes = false;  // Pauli words whose flips the last pass's tile holds are measured there
  bool splits_halves = false;       // rotations of half the amplitudes are made two of all
  bool unfuses_cosets = false;      // phases on cosets are unfused gates
  bool fuses_matrices = false;      // dense matrices of a few states are operations of passes

  friend bool operator==(const Layout&, const Layout&) = default;
};

}  // namespace ketgrad

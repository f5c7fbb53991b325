#include "plan/gpu_layout.h"

namespace ketgrad {

Layout gpu_layout(int num_wires, int number_bytes, std::size_t shared_bytes) {
  // Smaller than any GPU's; with less, no rotation would fit beside the neighbouring bytes.
  int most = 8;
  while (gpu_holds(most + 1, number_bytes, shared_bytes)) ++most;
  Layout layout;
  layout.measures_in_passes = true;
  layout.splits_halves = true;
  layout.unfuses_cosets = true;
  layout.run_bits = number_bytes == 4 ? 4 : 3;
  layout.tile_bits = num_wires <= most ? num_wires : most - 1;
  return layout;
}

}  // namespace ketgrad

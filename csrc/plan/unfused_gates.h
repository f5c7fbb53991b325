// Gates that are no product of a few rotations, as the wire map has it where they stand.
#pragma once

#include <vector>

#include "plan/lowering.h"

namespace ketgrad {

// The basis states at which the bits of the wires have an odd sum, or an even one.
struct WireParity {
  Mask wires = 0;
  bool odd = true;
};

Half half_of(const WireMap& wire_map, const WireParity& parity);
std::vector<Half> halves_of(const WireMap& wire_map, const std::vector<WireParity>& parities);

// Gate `index` of the program.
GateOp gate_op_of(const Program& program, int index, const WireMap& wire_map, const Layout& layout);

}  // namespace ketgrad

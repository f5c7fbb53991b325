// The light cone: the part of a lowered circuit that can change what is measured.
//
// Backwards from the measurements, a rotation exp(-i angle/2 P) is outside if P commutes with all that is inside: with
// the Pauli words that are measured and with those of later elements. Then it meets its own inverse in <psi| O |psi>,
// whatever its angle, and the gradient of the angle is zero. The same holds for an unfused gate, by the Pauli words
// that it is made of. Unfused gates whose matrix is an input stay: its gradient has directions that leave the unitary
// matrices. Of a measured state everything is seen, global phases too.
#pragma once

#include "plan/lowering.h"

namespace ketgrad {

// Removes what is outside from `lowered`, and counts the gates of which nothing is left.
void keep_light_cone(const Program& program, Lowered& lowered);

}  // namespace ketgrad

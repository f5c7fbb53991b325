// The walk for any machine.
#include <algorithm>
#include <vector>

#include "core/bits.h"
#include "cpu/buffer.h"
#include "cpu/coefficients.h"
#include "cpu/gradient_sink.h"
#include "cpu/lanes.h"
#include "cpu/walk.h"

#include "cpu/walk.inl"

namespace ketgrad {
WalkLevel portable_walk() { return this_level(); }
}  // namespace ketgrad

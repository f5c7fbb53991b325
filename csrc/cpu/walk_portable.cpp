// The walk for any machine.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/dual.h"
#include "core/plan.h"
#include "cpu/buffer.h"
#include "cpu/coefficients.h"
#include "cpu/gradient_sink.h"
#include "cpu/lanes.h"
#include "cpu/profile.h"
#include "cpu/thresholds.h"
#include "cpu/walk.h"

#define KETGRAD_ROW_BYTES 16
#include "cpu/walk.inl"

namespace ketgrad {
WalkLevel portable_walk() { return this_level(); }
}  // namespace ketgrad

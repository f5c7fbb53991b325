// The engine for any machine.
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

#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/gradient_sink.h"
#include "cpu/lanes.h"
#include "cpu/profile.h"
#include "cpu/thresholds.h"
#include "math/dual.h"
#include "plan/plan.h"
#include "runtime/buffer.h"

#define KETGRAD_ROW_BYTES 16
#include "cpu/engine/circuit-inl.h"

namespace ketgrad {
EngineSet portable_engines() { return these_engines(); }
}  // namespace ketgrad

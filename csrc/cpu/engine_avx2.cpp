// The engine for AVX2. Headers come first: what they define stays compiled for every machine.
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

#ifdef KETGRAD_X86_LEVELS
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KETGRAD_ROW_BYTES 32
#define KETGRAD_VECTOR_PERMUTES 1
#include "cpu/engine/circuit-inl.h"

namespace ketgrad {
EngineSet avx2_engines() { return these_engines(); }
}  // namespace ketgrad
#pragma GCC pop_options
#endif

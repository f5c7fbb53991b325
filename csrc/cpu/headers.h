// Every header that a -inl.h includes. The engines include it before they choose an instruction set: what a header
// defines is compiled for every machine, as a linker may take any of its copies.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/call.h"
#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/gradient_sink.h"
#include "cpu/lanes.h"
#include "cpu/profile.h"
#include "cpu/thresholds.h"
#include "math/bits.h"
#include "math/dual.h"
#include "math/pauli_word.h"
#include "plan/plan.h"
#include "runtime/buffer.h"

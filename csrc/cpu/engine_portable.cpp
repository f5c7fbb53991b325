// The engine for any machine.
#include "cpu/headers.h"

#define KETGRAD_ROW_BYTES 16
#include "cpu/engine/engine-inl.h"

namespace ketgrad {
EngineSet portable_engines() { return these_engines(); }
}  // namespace ketgrad

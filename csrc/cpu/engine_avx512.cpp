// The engine for AVX-512.
#include "cpu/headers.h"

#ifdef KETGRAD_X86_LEVELS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#define KETGRAD_ROW_BYTES 64
#define KETGRAD_VECTOR_PERMUTES 1
#include "cpu/engine/engine-inl.h"

namespace ketgrad {
EngineSet avx512_engines() { return these_engines(); }
}  // namespace ketgrad
#pragma GCC pop_options
#endif

// pybind11, beside the stable ABI.
#pragma once

#include <cstdint>

// The pybind11 of some versions of torch cannot be included while the macros of the stable ABI are defined. This folder
// does not use the stable ABI.
inline constexpr std::uint64_t torch_target_version = TORCH_TARGET_VERSION;  // 0x020b…: 2.11
#undef TORCH_TARGET_VERSION
#undef TORCH_STABLE_ONLY
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

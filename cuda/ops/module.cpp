// The Python module ketgrad._C_cuda: the operators register themselves; what is left is the way to the programs.

// The copy of pybind11 that comes with some versions of torch refuses to be included beside the stable ABI, of which
// nothing here makes use.
#undef TORCH_TARGET_VERSION
#undef TORCH_STABLE_ONLY
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>

#include "cuda/engine/engine.h"
#include "cuda/ops/connection.h"

namespace ketgrad::cuda {

namespace {

FindProgram find_program = nullptr;

}  // namespace

void connect(FindProgram find) { find_program = find; }

ProgramHandle connected_program(std::int64_t id) {
  if (find_program == nullptr) throw std::logic_error("ketgrad: _C_cuda was loaded without _C; import ketgrad instead");
  return find_program(id);
}

}  // namespace ketgrad::cuda

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("architectures", &ketgrad::cuda::architectures, "what the kernels were compiled for: 80 of sm_80");
  m.def(
      "connect",
      [](std::uintptr_t address) { ketgrad::cuda::connect(reinterpret_cast<ketgrad::cuda::FindProgram>(address)); },
      pybind11::arg("address"), "the lookup of programs, as ketgrad._C.registry_address() gives it");
}

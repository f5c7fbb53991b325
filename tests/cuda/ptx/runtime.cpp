// The functions of the CUDA runtime that nvcc's host code calls, with the machine behind them, and those of the
// emulation that tests call. A function that is not here is an error of the linker.
//
// Settings come from the environment:
//   KETGRAD_PTX_FILES      the PTX of all kernels, separated by colons
//   KETGRAD_PTX_SEED       of the orders
//   KETGRAD_PTX_QUANTUM    the most instructions that a warp executes in a row; 0 does not interrupt it
//   KETGRAD_PTX_COVERAGE   a file for what was reached
//   KETGRAD_PTX_WITHOUT    "kernel place": the barriers to leave out
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "ptx/fault.h"
#include "ptx/machine.h"
#include "ptx/parser.h"
#include "ptx/program.h"

namespace ketgrad::ptx {
namespace {

std::string setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::uint64_t number(const char* name) { return std::strtoull(setting(name).c_str(), nullptr, 10); }

Program load() {
  Program program;
  std::stringstream paths(setting("KETGRAD_PTX_FILES"));
  for (std::string path; std::getline(paths, path, ':');) parse_file(program, path);
  std::stringstream without(setting("KETGRAD_PTX_WITHOUT"));
  std::string kernel;
  std::string place;
  if (without >> kernel >> place) remove_barriers(program, kernel, place);
  return program;
}

// A line for each function: its name, whether instructions were reached, and the places of its barriers.
void write_coverage(const Program& program, const Machine& machine, const std::string& path) {
  std::ofstream file(path);
  for (const Function& function : program.functions) {
    file << source_name(function.name) << '\t' << readable_name(function.name) << '\t';
    // The last one is not of the PTX.
    for (int k = function.first; k + 1 < function.end; ++k) file << int{machine.reached()[k]};
    file << '\t';
    for (int k = function.first; k < function.end; ++k) {
      const Instruction& i = program.code[k];
      if (i.control == Control::barrier) file << program.locations[i.location].place << ' ';
    }
    file << '\n';
  }
}

// Of a block on the largest GPU, an H100.
constexpr std::size_t block_shared_bytes = std::size_t{227} << 10;

// What a host function stands for.
struct Kernel {
  std::string name;
  std::size_t shared_bytes = std::size_t{48} << 10;  // that a launch may ask for
};

struct Dimensions {
  unsigned x, y, z;
};

struct Configuration {
  Dimensions grid, block;
  std::size_t shared_bytes;
  void* stream;
};

class Runtime {
 public:
  static Runtime& instance() {
    static Runtime runtime;
    return runtime;
  }

  void add(const void* host_function, const char* name) { kernels_[host_function].name = name; }

  void push(const Configuration& configuration) { configurations_.push_back(configuration); }
  Configuration pop() {
    const Configuration latest = configurations_.back();
    configurations_.pop_back();
    return latest;
  }

  void seed(std::uint64_t seed) { machine().seed(number("KETGRAD_PTX_SEED") * 1000003 + seed); }
  std::int64_t launches() const { return machine_ ? machine_->counts().launches : 0; }

  // The one attribute of the device that launches ask for, and the one of a kernel that they set.
  static int shared_bytes_of_a_block(int attribute);
  void allow_shared_bytes(const void* host_function, int attribute, std::size_t bytes);
  void launch(const void* host_function, const Configuration& configuration, const void* const* arguments);

 private:
  Runtime() = default;
  ~Runtime();

  Machine& machine();

  std::map<const void*, Kernel> kernels_;
  std::vector<Configuration> configurations_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<Machine> machine_;
};

// Whatever calls this may have been compiled without exceptions in mind, and no test may expect it.
template <class F>
void end_on_fault(const F& f) {
  try {
    f();
  } catch (const Fault& fault) {
    std::fprintf(stderr, "ptx: %s\n", fault.what());
    std::_Exit(EXIT_FAILURE);
  }
}

Machine& Runtime::machine() {
  if (!machine_) {
    end_on_fault([&] {
      program_ = std::make_unique<Program>(load());
      machine_ = std::make_unique<Machine>(*program_);
    });
    machine_->set_quantum(static_cast<int>(number("KETGRAD_PTX_QUANTUM")));
    seed(0);
  }
  return *machine_;
}

Runtime::~Runtime() {
  if (!machine_) return;
  const Machine::Counts& counts = machine_->counts();
  std::printf("ptx: %lld launches, %.1f million instructions, %.1f million accesses to global memory, %lld barriers\n",
              static_cast<long long>(counts.launches), 1e-6 * static_cast<double>(counts.instructions),
              1e-6 * static_cast<double>(machine_->global_accesses()), static_cast<long long>(counts.barriers));
  if (const std::string path = setting("KETGRAD_PTX_COVERAGE"); !path.empty())
    write_coverage(*program_, *machine_, path);
}

int Runtime::shared_bytes_of_a_block(int attribute) {
  constexpr int most_shared_bytes_on_request = 97;
  end_on_fault([&] {
    if (attribute != most_shared_bytes_on_request)
      throw Fault("unknown attribute of a device: " + std::to_string(attribute));
  });
  return static_cast<int>(block_shared_bytes);
}

void Runtime::allow_shared_bytes(const void* host_function, int attribute, std::size_t bytes) {
  constexpr int most_dynamic_shared_bytes = 8;
  end_on_fault([&] {
    if (attribute != most_dynamic_shared_bytes)
      throw Fault("unknown attribute of a kernel: " + std::to_string(attribute));
    Kernel& kernel = kernels_.at(host_function);
    if (bytes > block_shared_bytes)
      throw Fault(readable_name(kernel.name) + " asks for " + std::to_string(bytes) + " bytes of shared memory");
    kernel.shared_bytes = bytes;
  });
}

void Runtime::launch(const void* host_function, const Configuration& c, const void* const* arguments) {
  end_on_fault([&] {
    const Kernel& kernel = kernels_.at(host_function);
    Machine& machine = this->machine();
    const auto found = program_->kernels.find(kernel.name);
    if (found == program_->kernels.end()) throw Fault("there is no PTX of " + readable_name(kernel.name));
    const bool is_flat = c.grid.y == 1 && c.grid.z == 1 && c.block.y == 1 && c.block.z == 1;
    if (!is_flat) throw Fault(readable_name(kernel.name) + " is launched in more than one dimension");
    if (c.shared_bytes > kernel.shared_bytes)
      throw Fault(readable_name(kernel.name) + " is launched with " + std::to_string(c.shared_bytes) +
                  " bytes of shared memory, for which it has not asked");
    machine.launch(found->second, {c.grid.x, static_cast<int>(c.block.x), c.shared_bytes}, arguments);
  });
}

}  // namespace
}  // namespace ketgrad::ptx

namespace ketgrad::cuda {

void seed_emulation(std::uint64_t seed) { ptx::Runtime::instance().seed(seed); }
std::int64_t launch_count() { return ptx::Runtime::instance().launches(); }

}  // namespace ketgrad::cuda

// As the headers of the toolkit declare them, with int for every enumeration.
extern "C" {

using ketgrad::ptx::Configuration;
using ketgrad::ptx::Dimensions;
using ketgrad::ptx::Runtime;

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void**, const char* host_function, char*, const char* name, int, void*, void*, void*, void*,
                            int*) {
  Runtime::instance().add(host_function, name);
}

unsigned __cudaPushCallConfiguration(Dimensions grid, Dimensions block, std::size_t shared_bytes, void* stream) {
  Runtime::instance().push({grid, block, shared_bytes, stream});
  return 0;
}

int __cudaPopCallConfiguration(Dimensions* grid, Dimensions* block, std::size_t* shared_bytes, void** stream) {
  const Configuration latest = Runtime::instance().pop();
  *grid = latest.grid;
  *block = latest.block;
  *shared_bytes = latest.shared_bytes;
  *stream = latest.stream;
  return 0;
}

// Since CUDA 13 a kernel has a handle. Here that is its host function.
int __cudaGetKernel(const void** kernel, const void* host_function) {
  *kernel = host_function;
  return 0;
}

int cudaLaunchKernel(const void* host_function, Dimensions grid, Dimensions block, void** arguments,
                     std::size_t shared_bytes, void* stream) {
  Runtime::instance().launch(host_function, {grid, block, shared_bytes, stream}, arguments);
  return 0;
}

int __cudaLaunchKernel(const void* kernel, Dimensions grid, Dimensions block, void** arguments,
                       std::size_t shared_bytes, void* stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}

int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  *value = Runtime::shared_bytes_of_a_block(attribute);
  return 0;
}

int cudaFuncSetAttribute(const void* host_function, int attribute, int value) {
  Runtime::instance().allow_shared_bytes(host_function, attribute, static_cast<std::size_t>(value));
  return 0;
}

// What goes wrong ends the program before anybody asks.
int cudaGetLastError() { return 0; }
const char* cudaGetErrorString(int error) { return error == 0 ? "no error" : "invalid argument"; }

}  // extern "C"

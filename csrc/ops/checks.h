// The checks of all operators, on any device: inputs, cotangents and tangents against the program.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "plan/registry.h"
#include "program/call.h"
#include "runtime/memory.h"

namespace ketgrad::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
inline constexpr ScalarType real_type = sizeof(T) == sizeof(float) ? ScalarType::Float : ScalarType::Double;
template <class T>
inline constexpr ScalarType complex_type =
    sizeof(T) == sizeof(float) ? ScalarType::ComplexFloat : ScalarType::ComplexDouble;

inline std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::vector<Index> shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

// `message` is a function, called on failure only: composing the text takes longer than a small circuit.
template <class F>
void require(bool condition, const F& message) {
  if (!condition) throw std::invalid_argument("ketgrad: " + message());
}

// The name of an input in messages.
inline std::string input_name(std::size_t position) { return "input " + std::to_string(position); }

inline std::string device_text(const Tensor& tensor) {
  if (tensor.is_cpu()) return "the CPU";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

inline bool on_one_device(const Tensor& a, const Tensor& b) {
  if (a.is_cpu() || b.is_cpu()) return a.is_cpu() && b.is_cpu();
  return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

template <class F>
void require_device(const Tensor& tensor, const Tensor& first, const F& name) {
  require(on_one_device(tensor, first), [&] {
    return name() + " is on " + device_text(tensor) + ", the first input on " + device_text(first) +
           "; all must be on one device";
  });
}

// The tensor itself if it is contiguous already: that saves a call of torch.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::int32_t type_number(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return aoti_torch_dtype_float32();
    case ScalarType::Double: return aoti_torch_dtype_float64();
    case ScalarType::ComplexFloat: return aoti_torch_dtype_complex64();
    default: return aoti_torch_dtype_complex128();
  }
}

// Not through the dispatcher, where an allocation takes as long as a small circuit.
inline Tensor empty_on(const torch::stable::Device& device, const std::vector<Index>& shape, ScalarType type) {
  std::vector<Index> strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<Index>(shape[d], 1);
  AtenTensorHandle tensor = nullptr;
  const AOTITorchError error =
      aoti_torch_empty_strided(static_cast<Index>(shape.size()), shape.data(), strides.data(), type_number(type),
                               static_cast<std::int32_t>(device.type()), device.index(), &tensor);
  // Shapes come from programs and tensors, so that only memory can be the cause.
  if (error != 0) throw OutOfMemory("ketgrad: a result of shape " + shape_text(shape) + " does not fit");
  return Tensor(tensor);
}

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// The inputs of a call: tensors, which own the memory, and views of it.
template <class T>
struct Arguments {
  ProgramHandle program;
  std::vector<Tensor> inputs;  // contiguous
  std::vector<InputView<T>> views;
  Index batch = -1;
  std::optional<Index> copies;  // of all circuits, in an axis before that of the batch

  Index samples() const { return copies.value_or(1) * batch; }

  // The shape of what each sample has of its own: (B,) + shape, or (copies, B) + shape.
  std::vector<Index> of_samples(std::vector<Index> shape) const {
    shape.insert(shape.begin(), batch);
    if (copies.has_value()) shape.insert(shape.begin(), *copies);
    return shape;
  }

  // That of an input's gradients and tangents.
  std::vector<Index> gradient_shape(Index input) const {
    return copies.has_value() ? of_samples(program->program.inputs[input].shape) : shape_of(inputs[input]);
  }

  // The tensor's shape is that of the spec, or (B,) + that.
  void add(const Tensor& tensor, const InputSpec& spec, const Tensor& first, std::size_t position) {
    require_device(tensor, first, [&] { return input_name(position); });
    const ScalarType type = spec.is_complex ? complex_type<T> : real_type<T>;
    require(tensor.scalar_type() == type, [&] {
      return input_name(position) + " has another dtype than the program needs in the first input's precision";
    });
    const auto shape = tensor.sizes();
    const bool batched = shape.size() == spec.shape.size() + 1;
    const bool fits = (batched || shape.size() == spec.shape.size()) &&
                      std::equal(spec.shape.begin(), spec.shape.end(), shape.begin() + (batched ? 1 : 0));
    require(fits, [&] {
      return input_name(position) + " has shape " + shape_text(shape_of(tensor)) + ", the program needs " +
             shape_text(spec.shape) + ", with or without a leading batch axis";
    });
    if (batched) {
      require(batch < 0 || batch == shape[0], [&] {
        return input_name(position) + " has batch size " + std::to_string(shape[0]) + ", another input has " +
               std::to_string(batch);
      });
      batch = shape[0];
    }
    inputs.push_back(as_contiguous(tensor));
    views.push_back({data<const T>(inputs.back()), batched, spec.is_complex, spec.numel()});
  }
};

template <class T>
Arguments<T> check_arguments(ProgramHandle program, const std::vector<Tensor>& inputs) {
  Arguments<T> arguments;
  arguments.program = std::move(program);
  const std::vector<InputSpec>& specs = arguments.program->program.inputs;
  require(inputs.size() == specs.size(),
          [&] { return std::to_string(inputs.size()) + " inputs, the program needs " + std::to_string(specs.size()); });
  arguments.inputs.reserve(inputs.size());
  arguments.views.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) arguments.add(inputs[i], specs[i], inputs[0], i);
  if (arguments.batch < 0) arguments.batch = 1;
  return arguments;
}

inline Tensor check_cotangent(const Tensor& tensor, const Tensor& first, const std::vector<Index>& shape,
                              ScalarType type, const char* what) {
  require_device(tensor, first, [&] { return std::string(what); });
  require(tensor.scalar_type() == type, [&] { return std::string(what) + " has another dtype than its result"; });
  require(shape_of(tensor) == shape, [&] {
    return std::string(what) + " has shape " + shape_text(shape_of(tensor)) + ", its result has " + shape_text(shape);
  });
  return as_contiguous(tensor);
}

inline void check_requested(const std::vector<Index>& requested, std::size_t num_inputs) {
  std::vector<bool> seen(num_inputs, false);
  for (const Index input : requested) {
    require(input >= 0 && input < static_cast<Index>(num_inputs),
            [&] { return "no input " + std::to_string(input) + " to differentiate"; });
    require(!seen[input], [&] { return "input " + std::to_string(input) + " is requested twice"; });
    seen[input] = true;
  }
}

// The values of the operators' argument `keep_ket`. Rounded kets are complex64 where the circuit's numbers are double: on
// the CPU, which else keeps them exactly.
enum class KeepKet : std::int64_t { no, exact, rounded };

inline KeepKet check_keep_ket(std::int64_t keep_ket) {
  require(keep_ket >= 0 && keep_ket <= 2,
          [&] { return "keep_ket is 0, 1 or 2 (rounded), not " + std::to_string(keep_ket); });
  return static_cast<KeepKet>(keep_ket);
}

// The number of copies, if a cotangent of [B, R] or a tangent comes with an axis of copies.
inline std::optional<Index> copies_of(const Tensor& tensor, std::size_t dims) {
  const auto shape = tensor.sizes();
  return shape.size() > dims ? std::optional<Index>(shape[0]) : std::nullopt;
}

// A tangent has an axis of copies if it has an axis more than a batch of its input.
template <class T>
std::optional<Index> copies_of(const Arguments<T>& arguments, const std::vector<Tensor>& tangents,
                               const std::vector<Index>& with_tangent) {
  if (tangents.empty() || with_tangent.empty()) return std::nullopt;
  check_requested(with_tangent, arguments.inputs.size());
  return copies_of(tangents[0], arguments.program->program.inputs[with_tangent[0]].shape.size() + 1);
}

// The type of a kept ket.
template <class T>
ScalarType ket_type(bool is_rounded) {
  return is_rounded ? ScalarType::ComplexFloat : complex_type<T>;
}

// Whether a kept ket was rounded.
template <class T>
bool has_rounded_ket(const Tensor& ket) {
  return sizeof(T) == sizeof(double) && ket.is_cpu() && ket.scalar_type() == ScalarType::ComplexFloat;
}

// A kept ket, contiguous; without elements it is not kept.
template <class T>
Tensor check_ket(const Tensor& ket, const Tensor& first, const std::vector<Index>& shape) {
  return ket.numel() == 0 ? ket : check_cotangent(ket, first, shape, ket_type<T>(has_rounded_ket<T>(ket)), "the ket");
}

// Sets the ket of a call's results or cotangents, which begins at amplitude `first` of `kets`, if these are kept.
template <class T, class Buffers>
void set_ket(Buffers& buffers, const Tensor& kets, Index first) {
  if (kets.numel() == 0) return;
  if (has_rounded_ket<T>(kets)) {
    buffers.rounded_ket = data<float>(kets) + 2 * first;
  } else {
    buffers.ket = data<T>(kets) + 2 * first;
  }
}

// The ket and cotangents of a call of execute_vjp, contiguous. The copies of a circuit share its ket.
template <class T>
struct CheckedCotangents {
  bool has_ket = false;
  Index ket_period;  // of the ket's rows
  Tensor ket;
  Tensor real;
  Tensor complex;

  CheckedCotangents(const Arguments<T>& arguments, const Tensor& first, const Tensor& kept, const Tensor& g_real,
                    const Tensor& g_complex)
      : has_ket(kept.numel() != 0),
        ket_period(arguments.copies.has_value() ? arguments.batch : 0),
        ket(kept),
        real(g_real),
        complex(g_complex) {
    const Program& program = arguments.program->program;
    const std::vector<Index> of_ket{arguments.batch, arguments.program->ket_size()};
    ket = check_ket<T>(kept, first, of_ket);
    real = check_cotangent(g_real, first, arguments.of_samples({program.real_results()}), real_type<T>,
                           "the real cotangent");
    complex = check_cotangent(g_complex, first, arguments.of_samples({program.complex_results()}), complex_type<T>,
                              "the complex cotangent");
  }

  Cotangents<T> view(std::size_t num_inputs) const {
    Cotangents<T> cotangents{nullptr, data<const T>(real), data<const T>(complex), {}};
    set_ket<T>(cotangents, ket, 0);
    cotangents.gradients.resize(num_inputs, nullptr);
    cotangents.ket_period = ket_period;
    return cotangents;
  }
};

// A tensor without elements has a null address, which would mean "not requested": it gets another, never written to.
template <class T>
T* gradient_address(const Tensor& gradient) {
  static T nothing[2];
  T* address = data<T>(gradient);
  return address == nullptr ? nothing : address;
}

// The tangents of a call's inputs, contiguous.
template <class T>
struct CheckedTangents {
  std::vector<Tensor> kept;
  std::vector<const T*> of_inputs;  // null for an input without a tangent

  CheckedTangents(const Arguments<T>& arguments, const std::vector<Tensor>& tangents,
                  const std::vector<Index>& with_tangent) {
    require(tangents.size() == with_tangent.size(), [&] {
      return std::to_string(tangents.size()) + " tangents for " + std::to_string(with_tangent.size()) +
             " inputs with a tangent";
    });
    const std::vector<Tensor>& inputs = arguments.inputs;
    check_requested(with_tangent, inputs.size());
    of_inputs.resize(inputs.size(), nullptr);
    for (std::size_t k = 0; k < with_tangent.size(); ++k) {
      const Tensor& input = inputs[with_tangent[k]];
      const std::vector<Index> shape = arguments.gradient_shape(with_tangent[k]);
      kept.push_back(check_cotangent(tangents[k], input, shape, input.scalar_type(), "a tangent"));
      of_inputs[with_tangent[k]] = gradient_address<T>(kept.back());
    }
  }
};

// The cotangents of a call along tangents, contiguous: of real and complex results, then their own tangents, which have
// no elements if they are zero. Empty if no gradients are requested.
template <class T>
struct CheckedDirectional {
  std::vector<Tensor> kept;
  Directional<T> directional;

  CheckedDirectional(const Arguments<T>& arguments, const Tensor& first, const std::vector<Tensor>& cotangents) {
    directional.cotangents.gradients.resize(arguments.inputs.size(), nullptr);
    if (cotangents.empty()) return;
    const Program& program = arguments.program->program;
    const auto read = [&](const Tensor& tensor, Index results, ScalarType type, const char* what) {
      kept.push_back(check_cotangent(tensor, first, arguments.of_samples({results}), type, what));
      return data<const T>(kept.back());
    };
    const Index reals = program.real_results();
    const Index complexes = program.complex_results();
    directional.cotangents.real = read(cotangents[0], reals, real_type<T>, "the real cotangent");
    directional.cotangents.complex = read(cotangents[1], complexes, complex_type<T>, "the complex cotangent");
    if (cotangents[2].numel() > 0)
      directional.real_tangent = read(cotangents[2], reals, real_type<T>, "the real cotangent's tangent");
    if (cotangents[3].numel() > 0)
      directional.complex_tangent = read(cotangents[3], complexes, complex_type<T>, "the complex cotangent's tangent");
  }
};

inline bool is_single(const std::vector<Tensor>& inputs) {
  require(!inputs.empty(),
          [] { return std::string("a call needs its first input, which determines dtype and device"); });
  const ScalarType type = inputs[0].scalar_type();
  require(type == ScalarType::Float || type == ScalarType::Double,
          [] { return std::string("the first input must be float32 or float64"); });
  return type == ScalarType::Float;
}

inline std::string call_text(const PlannedProgram& program, Index batch) {
  const std::string circuits = batch == 1 ? "a circuit" : "a batch of " + std::to_string(batch) + " circuits";
  return circuits + " on " + std::to_string(program.program.num_wires) + " wires";
}

}  // namespace ketgrad::ops

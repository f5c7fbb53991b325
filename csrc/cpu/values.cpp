#include "cpu/values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#include "math/deviation.h"
#include "program/gate_table.h"

namespace ketgrad {

namespace {

template <class T>
constexpr double tolerance = sizeof(T) == sizeof(float) ? 2e-2 : 1e-4;

// Numbers per task.
constexpr Index chunk = Index{1} << 16;

// Squares of neighbouring numbers. Eight sums, so that the compiler keeps them in a vector.
template <class T>
double sum_of_squares(const T* x, Index count) {
  double sums[8] = {};
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int l = 0; l < 8; ++l) sums[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Two vectors of entries of modulus 1 without structure. Where the first one sees nothing of an overlap of two columns,
// for their phases are a quarter apart, the second one sees all of it.
std::array<ComplexDouble, 2> probes(Index i) {
  constexpr double golden = 0.6180339887498949;
  constexpr ComplexDouble quarters[] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
  const double angle = 2 * std::numbers::pi * std::fmod(golden * static_cast<double>(i * (i + 1)), 1.0);
  const ComplexDouble one{std::cos(angle), std::sin(angle)};
  return {one, one * quarters[i & 3]};
}

// Of larger matrices than this U U^dagger would take much longer than reading them.
constexpr Index largest_product = 16;

// A square matrix (row by row): how far its columns are from norm 1, and the images of two vectors from the vectors'
// norm. That takes as long as reading it.
template <class T>
double probed_deviation(const T* x, Index size) {
  std::vector<double> columns(size, 0.0);
  std::vector<std::array<ComplexDouble, 2>> vectors(size);
  for (Index c = 0; c < size; ++c) vectors[c] = probes(c);
  std::array<double, 2> images{};
  for (Index r = 0; r < size; ++r) {
    std::array<ComplexDouble, 2> sums{};
    for (Index c = 0; c < size; ++c) {
      const ComplexDouble u = entry(x, r * size + c);
      columns[c] += square(u);
      for (int v = 0; v < 2; ++v) sums[v] += u * vectors[c][v];
    }
    for (int v = 0; v < 2; ++v) images[v] += square(sums[v]);
  }
  Worst worst;
  for (const double found : columns) worst.see(std::abs(found - 1));
  for (const double found : images) worst.see(std::abs(found / static_cast<double>(size) - 1));
  return worst.value();
}

template <class T>
double matrix_deviation(const T* x, Index size) {
  return size <= largest_product ? unitary_deviation(x, size) : probed_deviation(x, size);
}

template <class T>
double diagonal_deviation(const T* x, Index size) {
  Worst worst;
  for (Index i = 0; i < size; ++i) worst.see(std::abs(std::sqrt(square(entry(x, i))) - 1));
  return worst.value();
}

// Beside the largest entry, where that is above 1.
template <class T>
double hermitian_deviation(const T* x, Index size) {
  double largest = 1;
  Worst worst;
  for (Index r = 0; r < size; ++r) {
    for (Index c = 0; c <= r; ++c) {
      const ComplexDouble lower = entry(x, r * size + c);
      largest = std::max(largest, std::sqrt(square(lower)));
      const ComplexDouble skew = lower - conj(entry(x, c * size + r));
      worst.see(std::hypot(skew.re, skew.im));
    }
  }
  return worst.value() / largest;
}

template <class T>
class Checker {
 public:
  explicit Checker(const Call<T>& call) : call_(call) {}

  void run() const {
    const Program& program = call_.program();
    // States and matrices are complex, whoever reads them.
    if (std::none_of(program.inputs.begin(), program.inputs.end(), [](const InputSpec& i) { return i.is_complex; }))
      return;
    if (program.initial.kind == Preparation::state) check_states(program.initial.input, "the prepared state");
    for (std::size_t g = 0; g < program.gates.size(); ++g) check_gate(program.gates[g], g);
    for (const Measurement& measurement : program.measurements) {
      for (const Term& term : measurement.terms) {
        for (const Factor& factor : term.factors) check_factor(factor);
      }
    }
  }

 private:
  void check_gate(const Gate& gate, std::size_t position) const {
    const GateInfo& info = gate_info(gate.opcode);
    const Index size = Index{1} << gate.targets.size();
    const auto what = [&](const char* noun) {
      return std::string(noun) + " of the " + std::string(info.name) + " at place " + std::to_string(position);
    };
    if (info.family == Family::matrix)
      each(
          gate.input, [&](const T* x) { return matrix_deviation(x, size); }, [&] { return what("the matrix"); },
          "be unitary");
    if (info.family == Family::diagonal)
      each(
          gate.input, [&](const T* x) { return diagonal_deviation(x, size); }, [&] { return what("the diagonal"); },
          "have entries of modulus 1");
  }

  void check_factor(const Factor& factor) const {
    if (factor.kind == FactorKind::state_projector) check_states(factor.input, "a projector's state");
    if (factor.kind != FactorKind::hermitian) return;
    const Index size = Index{1} << factor.wires.size();
    each(
        factor.input, [&](const T* x) { return hermitian_deviation(x, size); },
        [] { return std::string("an observable's matrix"); }, "be Hermitian");
  }

  // Of as many circuits as the input has rows: f(its numbers) is how far it is from what it must be.
  template <class F, class Name>
  void each(int input, const F& deviation, const Name& name, const char* must) const {
    const InputView<T>& view = call_.inputs[input];
    const Index rows = view.batched ? call_.batch : 1;
    std::vector<double> found(rows);
    const auto look = [&](Index row) { found[row] = deviation(view.of_sample(row)); };
    if (rows > 1 && rows * view.numel > chunk) {
      run_parallel(call_.parallel, rows, look);
    } else {
      for (Index row = 0; row < rows; ++row) look(row);
    }
    for (Index row = 0; row < rows; ++row) require(found[row], row, view, name, must);
  }

  template <class Name>
  void require(double deviation, Index row, const InputView<T>& view, const Name& name, const char* must) const {
    if (!(deviation > tolerance<T>) || !std::isfinite(deviation)) return;
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "; it is off by %.2g (the tolerance is %.0e)", deviation, tolerance<T>);
    const bool several = view.batched && call_.batch > 1;
    const std::string circuit = several ? " of circuit " + std::to_string(row) + " of the batch" : "";
    throw std::invalid_argument("ketgrad: " + name() + circuit + " must " + must + numbers);
  }

  // Large inputs in parallel.
  void check_states(int input, const char* name) const {
    const InputView<T>& view = call_.inputs[input];
    const Index rows = view.batched ? call_.batch : 1;
    const Index numbers = 2 * view.numel;
    const Index chunks = (numbers + chunk - 1) / chunk;
    std::vector<double> squares(rows * chunks);
    const auto sum = [&](Index task) {
      const Index first = task % chunks * chunk;
      squares[task] = sum_of_squares(view.of_sample(task / chunks) + first, std::min(chunk, numbers - first));
    };
    if (rows * numbers > 4 * chunk) {
      run_parallel(call_.parallel, rows * chunks, sum);
    } else {
      for (Index task = 0; task < rows * chunks; ++task) sum(task);
    }
    for (Index row = 0; row < rows; ++row) {
      double square = 0;
      for (Index c = 0; c < chunks; ++c) square += squares[row * chunks + c];
      require(std::abs(std::sqrt(square) - 1), row, view, [&] { return std::string(name); }, "have norm 1");
    }
  }

  const Call<T>& call_;
};

}  // namespace

template <class T>
void check_values(const Call<T>& call) {
  Checker<T>(call).run();
}

template void check_values<float>(const Call<float>& call);
template void check_values<double>(const Call<double>& call);

}  // namespace ketgrad

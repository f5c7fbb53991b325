// How much memory a call takes for each sample, and whether its matrices fit the device.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/engine/context.h"
#include "cuda/engine/observables.h"
#include "cuda/engine/pauli_words.h"
#include "cuda/engine/tile_passes.h"
#include "cuda/kernels/gate_ops.h"
#include "cuda/kernels/measurements.h"

namespace ketgrad::cuda {

template <class T>
class MemoryBudget {
 public:
  MemoryBudget(const Context<T>& context, const DeviceObservables<T>& observables, const TilePasses<T>& passes,
               const PauliWords<T>& pauli_words)
      : c_(context), observables_(observables), passes_(passes), pauli_words_(pauli_words) {}

  // Throws std::invalid_argument where shared memory cannot hold a matrix, or the signs of an observable.
  void require_fit() const {
    check_matrices();
    if (most_shared_bytes<T>(c_.tables()) > c_.device().shared_bytes)
      throw std::invalid_argument(
          "ketgrad: an observable of so many Pauli words takes more shared memory than this GPU "
          "has; measure it in several parts, or run the circuit on the CPU");
  }

  double bytes_each(bool backward) const {
    const Tables& t = c_.tables();
    const double states = (backward ? 2 : 1) + (t.needs_scratch ? 2 : 0);
    const double angles =
        static_cast<double>(t.angle_count()) * std::max(sizeof(ShearRotation<T>), sizeof(Complex<Accum<T>>));
    const double partials = static_cast<double>(passes_.most_partials(1) * t.angle_count() +
                                                pauli_words_.most_partials(1) * pauli_words_.count());
    const double sums = 2 * static_cast<double>(largest_sum(backward)) * sizeof(Complex<Accum<T>>);
    const double matrix = static_cast<double>(t.largest_gate_op) * t.largest_gate_op;
    const double matrices = (is_dual<T> ? 3 * matrix : matrix) + static_cast<double>(largest_factor());
    return (states * static_cast<double>(c_.dimension()) + matrices) * sizeof(Complex<T>) + angles +
           partials * sizeof(Accum<T>) + sums;
  }

 private:
  void check_matrices() const {
    const auto most = static_cast<Index>(c_.device().shared_bytes / sizeof(Complex<T>));
    Index largest = c_.tables().largest_gate_op;
    for_each_factor([&](const ObservableFactor& f) {
      if (f.kind == FactorKind::hermitian) largest = std::max(largest, f.offsets.size());
    });
    if (largest > most)
      throw std::invalid_argument("ketgrad: a matrix of " + std::to_string(largest) +
                                  " rows is more than this GPU's shared memory holds, " + std::to_string(most) +
                                  " rows; run the circuit on the CPU, or the matrix on fewer wires");
  }

  // Calls f for each factor of an observable.
  template <class F>
  void for_each_factor(const F& f) const {
    for (const TableMeasurement& m : c_.tables().measurements) {
      for (const ObservableTerm& t : m.terms) {
        for (const ObservableFactor& factor : t.factors) f(factor);
      }
    }
  }

  // Numbers that the most demanding factor needs beside the states.
  Index largest_factor() const {
    Index largest = 0;
    for_each_factor([&](const ObservableFactor& f) { largest = std::max(largest, observables_.spare_count(f, 1)); });
    return largest;
  }

  // Numbers in the largest sum over groups.
  Index largest_sum(bool backward) const {
    Index largest = 1;
    for (const TableMeasurement& m : c_.tables().measurements) {
      const Index size = m.offsets.size();
      largest = std::max(largest, m.kind == MeasurementKind::density_matrix ? size * size : size);
    }
    for_each_factor([&](const ObservableFactor& f) {
      if (backward && c_.requests(f.input)) largest = std::max(largest, c_.inputs()[f.input].numel);
      if (backward && f.kind == FactorKind::state_projector) largest = std::max(largest, projector_scratch_count(f, 1));
    });
    for (const TableGateOp& gate_op : c_.tables().gate_ops) {
      if (backward) largest = std::max(largest, overlap_count(gate_op));
      if (backward && gate_op.kind == GateOpKind::evolution && c_.requests(gate_op.input))
        largest = std::max(largest, gate_op.entries.size());
    }
    return largest;
  }

  const Context<T>& c_;
  const DeviceObservables<T>& observables_;
  const TilePasses<T>& passes_;
  const PauliWords<T>& pauli_words_;
};

}  // namespace ketgrad::cuda

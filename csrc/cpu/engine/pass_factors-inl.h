// The factors of matrices in passes.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "cpu/kernels/matrices-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Of the matrices of one pass, or of their derivatives.
template <class T>
class PassFactors {
 public:
  // entries_of(k, matrix): re and im of the entries, which are copied; null where there is nothing to keep. Lanes that a
  // matrix leaves alone are multiplied by `otherwise`.
  template <class EntriesOf>
  void start(const TilePass& pass, T otherwise, const EntriesOf& entries_of) {
    first_.clear();
    Index size = 0;
    for (const TileOp& op : pass.operations) {
      first_.push_back(size);
      if (const auto* matrix = std::get_if<TileMatrix>(&op)) size += factor_rows(*matrix) << matrix->variations.size();
    }
    if (size > capacity_) {
      factors_ = std::make_unique_for_overwrite<Row<T>[]>(size);
      capacity_ = size;
    }
    for (std::size_t k = 0; k < pass.operations.size(); ++k) {
      const auto* matrix = std::get_if<TileMatrix>(&pass.operations[k]);
      const T* entries = matrix == nullptr ? nullptr : entries_of(k, *matrix);
      if (entries == nullptr) continue;
      Row<T>* next = factors_.get() + first_[k];
      for (unsigned variant = 0; variant < 1U << matrix->variations.size(); ++variant) {
        write_factors(*matrix, variant, entries, otherwise, next);
        next += factor_rows(*matrix);
      }
    }
  }

  // Of operation k of the pass.
  const Row<T>* of(const TileMatrix& matrix, std::size_t k, unsigned variant) const {
    return factors_.get() + first_[k] + variant * factor_rows(matrix);
  }

 private:
  std::vector<Index> first_;
  Index capacity_ = 0;
  std::unique_ptr<Row<T>[]> factors_;  // NOLINT: a vector would write zeros first
};

}  // namespace
}  // namespace ketgrad

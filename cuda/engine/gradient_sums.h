// The sums that the gradients of a call's real inputs come from: single sources and the terms of coefficients. The
// overlaps of angles are those of TilePasses.
#pragma once

#include <algorithm>

#include "cuda/engine/context.h"
#include "cuda/engine/tile_passes.h"
#include "cuda/kernels/parameters.h"

namespace ketgrad::cuda {

template <class T>
class GradientSums {
 public:
  explicit GradientSums(Context<T>& context) : c_(context) {}

  // All sums begin as zero with each chunk.
  void begin_chunk() {
    c_.zero_numbers(c_.numbers_of_chunk(single_, c_.tables().single_sources), c_.tables().single_sources);
    requests_coefficients_ = requests_any_coefficient();
    if (requests_coefficients_) c_.zero_numbers(c_.numbers_of_chunk(terms_, term_count()), term_count());
  }

  bool requests_coefficients() const { return requests_coefficients_; }
  Accum<T>* single() const { return single_; }
  Accum<T>* terms() const { return terms_; }  // [coefficient][sample]

  // Adds everything up into the gradients of inputs.
  void collect(const TilePasses<T>& passes) {
    if (requests_coefficients_)
      set_coefficient_sources(c_.queue(), c_.view(), term_count(), c_.device_inputs(), c_.samples(),
                              static_cast<const Accum<T>*>(terms_), single_);
    collect_gradients(c_.queue(), c_.view(), c_.tables().elements, c_.tables().angle_count(), c_.device_inputs(),
                      c_.inputs(), c_.samples(), passes.overlaps(), passes.overlap_partials(),
                      static_cast<const Accum<T>*>(single_));
  }

 private:
  Index term_count() const { return static_cast<Index>(c_.tables().coefficients.size()); }

  bool requests_any_coefficient() const {
    return std::any_of(c_.tables().coefficients.begin(), c_.tables().coefficients.end(),
                       [&](const Coefficient& c) { return c_.requests(c.values); });
  }

  Context<T>& c_;
  Accum<T>* single_ = nullptr;
  Accum<T>* terms_ = nullptr;
  bool requests_coefficients_ = false;
};

}  // namespace ketgrad::cuda

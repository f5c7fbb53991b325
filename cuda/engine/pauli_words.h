// The Pauli words of expectation values, which are measured on tiles: their sums, results, bras and coefficients.
#pragma once

#include <algorithm>
#include <cstddef>

#include "cuda/engine/context.h"
#include "cuda/engine/tile_passes.h"
#include "cuda/kernels/parameters.h"
#include "cuda/kernels/tiles.h"
#include "program/call.h"

namespace ketgrad::cuda {

template <class T>
class PauliWords {
 public:
  PauliWords(Context<T>& context, const TilePasses<T>& passes) : c_(context), passes_(passes) {}

  Index count() const { return static_cast<Index>(c_.tables().pauli_words.size()); }
  std::size_t pass_count() const { return c_.tables().pauli_word_passes.size(); }

  // Partial sums of each Pauli word with this many samples: those of the pass with the most.
  Index most_partials(Index samples) const {
    Index most = 1;
    for (const PauliWordPass& pass : c_.tables().pauli_word_passes)
      most = std::max(most, passes_.partials(pass.tile_bits, pass.tiles, samples));
    return most;
  }

  // Room for the partial sums of all Pauli words. They are zeroed unless one launch writes all of them.
  void begin() {
    partials_each_ = most_partials(c_.chunk());
    sums_ = c_.room_for_pauli_words(c_.chunk() * count() * partials_each_);
    if (!passes_.whole()) c_.zero_numbers(sums_, count() * partials_each_);
  }

  Accum<T>* sums() const { return sums_; }
  Index partials_each() const { return partials_each_; }

  void measure_from(std::size_t first_pass, const Complex<T>* ket) {
    for (std::size_t p = first_pass; p < pass_count(); ++p)
      measure_pauli_words(c_.queue(), c_.tables(), passes_.call(), static_cast<int>(p), ket, sums_, partials_each_);
  }

  // Real results begin as the sums of their Pauli words, or as zero.
  void write_results(const Results<Real<T>>& results) {
    const Index count = c_.tables().real_results;
    if (count == 0) return;
    c_.device().zero(results.real + c_.samples().first * count, sizeof(Real<T>) * c_.samples().count * count);
    finish_pauli_words(c_.queue(), c_.view(), static_cast<Index>(c_.tables().pauli_word_results.size()), count,
                       c_.device_inputs(), c_.samples(), static_cast<const Accum<T>*>(sums_), partials_each_,
                       results.real);
  }

  void set_weights(const Source<T>& cotangents) {
    c_.numbers_of_chunk(weights_, count());
    set_pauli_word_weights(c_.queue(), c_.view(), count(), c_.tables().real_results, c_.device_inputs(), c_.samples(),
                           cotangents, weights_);
  }

  const T* weights() const { return weights_; }

  // bra = or += the weighted sum of a pass's Pauli words, applied to the ket.
  void add_to_bra(std::size_t pass, const Complex<T>* ket, Complex<T>* bra, bool begins) {
    add_pauli_words(c_.queue(), c_.tables(), passes_.call(), static_cast<int>(pass), ket, bra, weights(), begins);
  }

  // terms[coefficient][sample], for the gradients of coefficients. Measures all Pauli words again.
  void set_terms(const Source<T>& cotangents, const Complex<T>* ket, Accum<T>* terms) {
    begin();
    measure_from(0, ket);
    set_pauli_word_terms(c_.queue(), c_.view(), count(), c_.tables().real_results, c_.samples(),
                         static_cast<const Accum<T>*>(sums_), partials_each_, cotangents, terms);
  }

 private:
  Context<T>& c_;
  const TilePasses<T>& passes_;
  Accum<T>* sums_ = nullptr;
  Index partials_each_ = 0;
  T* weights_ = nullptr;
};

}  // namespace ketgrad::cuda

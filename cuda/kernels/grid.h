// Launches with one thread for each item of each sample.
#pragma once

#include "cuda/kernels/arithmetic.h"

namespace ketgrad::cuda {

inline constexpr int item_threads = 256;

// The item of this thread.
struct Item {
  Index sample = 0;
  Index number = 0;
  bool exists = false;

  KETGRAD_DEVICE static Item of(Index each, Index samples) {
    const Index i = block_index() * block_threads() + thread_index();
    return {i / each, i % each, i < each * samples};
  }
};

template <class... Parameters, class... Arguments>
void launch_items(const Queue& queue, Index each, Index samples, void (*kernel)(Parameters...),
                  const Arguments&... arguments) {
  const Index blocks = (each * samples + item_threads - 1) / item_threads;
  launch(queue, blocks, item_threads, 0, kernel, each, samples, arguments...);
}

// Of a batched input of_sample(s) of the item's sample; of a shared one, the sum over all, which one thread takes in
// order.
template <class F>
KETGRAD_DEVICE auto sum_of_samples(const Samples& samples, const Item& item, bool batched, const F& of_sample) {
  auto total = of_sample(batched ? item.sample : 0);
  for (Index s = 1; s < (batched ? 1 : samples.count); ++s) total += of_sample(s);
  return total;
}

// Adds sum_of_samples to element item.number of a complex input's gradient.
template <class T, class F>
KETGRAD_DEVICE void add_complex_gradient(const Input<T>& input, const Samples& samples, const Item& item, bool batched,
                                         const F& of_sample) {
  const Complex<Accum<T>> total = sum_of_samples(samples, item, batched, of_sample);
  Real<T>* g = input.gradient + 2 * (input.row(samples.first + item.sample) + item.number);
  g[0] += output_part(static_cast<T>(total.re));
  g[1] += output_part(static_cast<T>(total.im));
}

// Likewise of a real input.
template <class T, class F>
KETGRAD_DEVICE void add_real_gradient(const Input<T>& input, const Samples& samples, const Item& item, bool batched,
                                      const F& of_sample) {
  const Accum<T> total = sum_of_samples(samples, item, batched, of_sample);
  input.gradient[input.row(samples.first + item.sample) + item.number] += output_part(static_cast<T>(total));
}

}  // namespace ketgrad::cuda

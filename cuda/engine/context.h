// What every part of a call on a GPU needs: its tables and inputs, the current chunk of samples, and memory.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/engine/engine.h"
#include "cuda/kernels/group_sums.h"
#include "cuda/kernels/parameters.h"
#include "cuda/kernels/state_call.h"

namespace ketgrad::cuda {

template <class T>
class Context {
 public:
  Context(Device& device, const DeviceCall<Real<T>>& call, const std::vector<Real<T>*>& gradients)
      : device_(device), call_(call), dimension_(Index{1} << tables().num_wires) {
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      const InputView<Real<T>>& view = call.inputs[i];
      const Source<T> data{view.data, call.tangents.empty() ? nullptr : call.tangents[i]};
      inputs_.push_back({data, gradients.empty() ? nullptr : gradients[i], view.numel, view.batched ? 1 : 0,
                         view.is_complex ? 1 : 0});
    }
    device_inputs_ = take<Input<T>>(static_cast<Index>(inputs_.size()));
    some_nan_ = take<std::int32_t>(1);
    set_inputs(queue(), inputs_.data(), static_cast<int>(inputs_.size()), device_inputs_, some_nan_);
  }

  Device& device() const { return device_; }
  const Queue& queue() const { return device_.queue; }
  const Tables& tables() const { return call_.tables->tables; }
  const TablesView& view() const { return call_.tables->view; }
  const std::vector<Input<T>>& inputs() const { return inputs_; }
  const Input<T>* device_inputs() const { return device_inputs_; }
  std::int32_t* some_nan() const { return some_nan_; }
  Index dimension() const { return dimension_; }

  bool requests(int input) const { return input != no_input && inputs_[input].gradient != nullptr; }

  // Duals only: whether the input has a tangent.
  bool has_tangent(int input) const { return input != no_input && inputs_[input].data.tangents != nullptr; }

  bool requests(const Range& values) const {
    for (int j = 0; j < values.count; ++j) {
      if (requests(tables().values[values.first + j].input)) return true;
    }
    return false;
  }

  // --- chunks --------------------------------------------------------------------------------------------------------

  // Calls f() for chunks of as many samples as fit the workspace, at bytes_each a sample.
  template <class F>
  void for_each_chunk(double bytes_each, const F& f) {
    const auto fit = static_cast<double>(device_.workspace_bytes) / bytes_each;
    chunk_ = std::clamp<Index>(static_cast<Index>(std::min(fit, 1e15)), 1, std::max<Index>(call_.batch, 1));
    for (Index first = 0; first < call_.batch; first += chunk_) {
      samples_ = {first, std::min(chunk_, call_.batch - first)};
      f();
    }
  }

  const Samples& samples() const { return samples_; }
  Index chunk() const { return chunk_; }  // samples of the largest chunk
  StateCall<T> state_call() const { return {view(), samples_, tables().num_wires, device_inputs_}; }

  // --- memory --------------------------------------------------------------------------------------------------------

  template <class E>
  E* take(Index count) {
    return static_cast<E*>(device_.allocate(std::max<Index>(count, 1) * sizeof(E)));
  }

  // A state for each sample of a chunk, allocated on first use and kept for the next chunks.
  Complex<T>* own(Complex<T>*& states) {
    if (states == nullptr) states = take<Complex<T>>(chunk_ * dimension_);
    return states;
  }

  // `each` numbers for each sample of a chunk, likewise.
  template <class E>
  E* numbers_of_chunk(E*& numbers, Index each) {
    if (numbers == nullptr) numbers = take<E>(chunk_ * each);
    return numbers;
  }

  void zero_states(Complex<T>* states) { device_.zero(states, sizeof(Complex<T>) * samples_.count * dimension_); }
  void zero_numbers(Accum<T>* numbers, Index each) { device_.zero(numbers, sizeof(Accum<T>) * samples_.count * each); }

  // Room for the partial sums of Pauli words, for the coefficients of an unfused gate, and for what an unfused gate or
  // a factor of an observable needs beside the states.
  Accum<T>* room_for_pauli_words(Index count) { return grown(pauli_word_sums_, count); }
  Complex<T>* room_for_coefficients(Index count) { return grown(coefficients_, count); }
  Complex<T>* room_for_factor(Index count) { return grown(factor_, count); }

  // --- sums over groups ----------------------------------------------------------------------------------------------

  // Room for `count` sums, and for `count` partial sums.
  Complex<Accum<T>>* room_for_sums(Index count) { return grown(sums_, count); }
  Complex<Accum<T>>* room_for_partials(Index count) { return grown(partials_, count); }

  // The sums of sum_over_groups, [sample][entry], valid until the next.
  const Complex<Accum<T>>* sum_groups(const Map& groups, const Offsets& offsets, const Entries& entries,
                                      const Complex<T>* x, const Complex<T>* y) {
    Complex<Accum<T>>* sums = room_for_sums(entries.count * samples_.count);
    Complex<Accum<T>>* partials = room_for_partials(sum_scratch_count(groups.size(), entries.count, samples_.count));
    sum_over_groups(queue(), state_call(), groups, offsets, entries, x, y, sums, partials);
    return sums;
  }

 private:
  template <class E>
  struct Room {
    E* data = nullptr;
    Index capacity = 0;
  };

  template <class E>
  E* grown(Room<E>& room, Index count) {
    if (room.capacity < count) room = {take<E>(count), count};
    return room.data;
  }

  Device& device_;
  const DeviceCall<Real<T>>& call_;
  const Index dimension_;
  std::vector<Input<T>> inputs_;
  Input<T>* device_inputs_ = nullptr;
  std::int32_t* some_nan_ = nullptr;  // on the device: whether some angle so far is not a number
  Index chunk_ = 1;
  Samples samples_;
  Room<Complex<Accum<T>>> sums_;
  Room<Complex<Accum<T>>> partials_;
  Room<Accum<T>> pauli_word_sums_;
  Room<Complex<T>> coefficients_;
  Room<Complex<T>> factor_;
};

}  // namespace ketgrad::cuda

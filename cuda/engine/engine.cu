#include "cuda/engine/engine.h"

#include <cstddef>
#include <type_traits>
#include <vector>

#include "cuda/engine/context.h"
#include "cuda/engine/gradient_sums.h"
#include "cuda/engine/memory_budget.h"
#include "cuda/engine/observables.h"
#include "cuda/engine/pauli_words.h"
#include "cuda/engine/tile_passes.h"
#include "cuda/engine/unfused_gates.h"
#include "cuda/kernels/gate_ops.h"

namespace ketgrad::cuda {

namespace {

// One call: the sweep forwards and the sweep back over its circuit, for each chunk of samples.
template <class T>
class DeviceEngine {
 public:
  DeviceEngine(Device& device, const DeviceCall<Real<T>>& call, const std::vector<Real<T>*>& gradients)
      : c_(device, call, gradients),
        passes_(c_),
        pauli_words_(c_, passes_),
        gates_(c_),
        observables_(c_),
        gradients_(c_),
        budget_(c_, observables_, passes_, pauli_words_) {
    budget_.require_fit();
  }

  void forward(const Results<Real<T>>& results) {
    c_.for_each_chunk(budget_.bytes_each(false), [&] {
      passes_.begin_chunk();
      ket_ = nullptr;
      if (results.ket != nullptr) {
        ket_ = kept(results.ket);
      } else if (needs_ket()) {
        ket_ = c_.own(own_ket_);
      }
      run_circuit(true);
      measure(results);
    });
  }

  // `kept_ket`: as the forward pass left it; if null, it is computed again, and so are `results` if they are requested.
  void backward(const CotangentSources<T>& cotangents, const Real<T>* kept_ket, const Results<Real<T>>* results) {
    cotangents_ = cotangents;
    first_pass_ = first_requested_pass(
        c_.tables().initial_input, passes_.count(),
        [&](int p) -> const std::vector<int>& { return c_.tables().pass_inputs[p]; },
        [&](int input) { return c_.requests(input); });
    c_.for_each_chunk(budget_.bytes_each(true), [&] {
      passes_.begin_chunk();
      passes_.begin_overlaps();
      gradients_.begin_chunk();
      if (kept_ket != nullptr) {
        ket_ = nullptr;
        source_ = kept(kept_ket);
      } else {
        ket_ = c_.own(own_ket_);
        run_circuit(results != nullptr);
        if (results != nullptr) measure(*results);
        source_ = ket_;
      }
      begin_bra();
      undo_circuit();
      if (c_.requests(c_.tables().initial_input))
        add_initial_gradient(c_.queue(), c_.state_call(), c_.inputs()[c_.tables().initial_input],
                             c_.tables().initial_input, c_.tables().initial_offsets,
                             static_cast<const Complex<T>*>(bra_));
      gradients_.collect(passes_);
    });
  }

 private:
  // Where this chunk's kets are among those of the batch.
  template <class R>
  auto kept(R* kets) const {
    using States = std::conditional_t<std::is_const_v<R>, const Complex<T>, Complex<T>>;
    return reinterpret_cast<States*>(kets) + c_.samples().first * c_.dimension();
  }

  void measure(const Results<Real<T>>& results) {
    pauli_words_.write_results(results);
    observables_.measure(ket_, results);
  }

  // --- forward -------------------------------------------------------------------------------------------------------

  // Whether a state must be in memory even if the caller does not keep it.
  bool needs_ket() const { return !passes_.whole() || !c_.tables().only_pauli_words || !c_.tables().gate_ops.empty(); }

  const TableGateOp& gate_op(int pass) const { return c_.tables().gate_ops[c_.tables().passes[pass].gate_op]; }

  // Measures Pauli words too if `measures`.
  void run_circuit(bool measures) {
    measures = measures && pauli_words_.count() > 0;
    if (measures) pauli_words_.begin();
    bool has_begun = prepare();
    const bool last_measures = measures && last_launch_measures();
    for (int p = 0; p < passes_.count();) {
      const int end = passes_.is_gate_op(p) ? p + 1 : passes_.launch_end(p);
      if (passes_.is_gate_op(p)) {
        gates_.apply(gate_op(p), ket_);
      } else {
        launch_forward(p, end, has_begun, last_measures && end == passes_.count());
      }
      has_begun = true;
      p = end;
    }
    if (passes_.count() == 0 && passes_.whole() && (measures || !has_begun)) launch_forward(0, 0, has_begun, measures);
    if (measures) pauli_words_.measure_from(last_measures ? 1 : 0, ket_);
  }

  // Whether the last launch of a circuit measures the first pass over Pauli words. For whole states without any pass,
  // it is a launch for that alone.
  bool last_launch_measures() const {
    if (passes_.count() > 0 && passes_.is_gate_op(passes_.count() - 1)) return false;
    return passes_.whole() || c_.tables().last_pass_measures;
  }

  // Returns false where the first launch begins the state.
  bool prepare() {
    if (c_.tables().preparation == Preparation::state) {
      c_.zero_states(ket_or_own());
      load_initial_state(c_.queue(), c_.state_call(), c_.tables().initial_input, c_.tables().initial_offsets, ket_);
      return true;
    }
    const bool launch_begins = passes_.count() == 0 ? passes_.whole() : !passes_.is_gate_op(0);
    if (launch_begins) {
      if (!passes_.whole() && !c_.tables().covered) c_.zero_states(ket_or_own());
      return false;
    }
    begin_states(c_.queue(), c_.state_call(), c_.tables().initial, ket_or_own());
    return true;
  }

  Complex<T>* ket_or_own() {
    if (ket_ == nullptr) ket_ = c_.own(own_ket_);
    return ket_;
  }

  void launch_forward(int first, int end, bool has_begun, bool measures) {
    ForwardTiles<T> f;
    f.first_pass = first;
    f.end_pass = end;
    f.prepares = !has_begun;
    f.initial = c_.tables().initial;
    f.ket = ket_;
    f.into = ket_;
    f.measures = measures;
    f.partials = pauli_words_.sums();
    f.partials_each = pauli_words_.partials_each();
    passes_.launch_forward(f);
  }

  // --- backward ------------------------------------------------------------------------------------------------------

  // Whether the launch that undoes the last passes adds the first pass over Pauli words to the bra.
  bool undoing_adds_pauli_words() const {
    return c_.tables().only_pauli_words && pauli_words_.count() > 0 && first_pass_ < passes_.count() &&
           last_launch_measures() && !gradients_.requests_coefficients();
  }

  void begin_bra() {
    const bool has_pauli_words = pauli_words_.count() > 0;
    if (has_pauli_words) pauli_words_.set_weights(cotangents_.real);
    pauli_words_in_launch_ = undoing_adds_pauli_words();
    bra_has_begun_ = !pauli_words_in_launch_;
    if (!has_pauli_words) c_.zero_states(c_.own(bra_));
    const std::size_t first = pauli_words_in_launch_ ? 1 : 0;
    for (std::size_t p = first; p < pauli_words_.pass_count(); ++p) {
      pauli_words_.add_to_bra(p, source_, c_.own(bra_), p == first);
      bra_has_begun_ = true;
    }
    if (pauli_words_in_launch_) return;
    if (gradients_.requests_coefficients() && has_pauli_words)
      pauli_words_.set_terms(cotangents_.real, source_, gradients_.terms());
    observables_.add_bras(source_, cotangents_, bra_, gradients_.terms());
  }

  void undo_circuit() {
    const bool initial_requested = c_.requests(c_.tables().initial_input);
    for (int end = passes_.count(); end > first_pass_;) {
      int first = end - 1;
      if (passes_.is_gate_op(first)) {
        gates_.undo(gate_op(first), own_source(), bra_, gradients_.single());
      } else {
        first = passes_.launch_begin(end, first_pass_);
        launch_backward(first, end, first == first_pass_ && !initial_requested);
      }
      end = first;
    }
  }

  // `is_last`: the states are not needed afterwards.
  void launch_backward(int first, int end, bool is_last) {
    BackwardTiles<T> b;
    b.first_pass = first;
    b.end_pass = end;
    b.source = source_;
    b.ket = is_last ? nullptr : c_.own(own_ket_);
    b.weights = pauli_words_in_launch_ ? pauli_words_.weights() : nullptr;
    b.reads_bra = bra_has_begun_;
    b.writes_bra = !is_last;
    b.bra = b.reads_bra || b.writes_bra ? c_.own(bra_) : nullptr;
    passes_.launch_backward(b);
    pauli_words_in_launch_ = false;
    bra_has_begun_ = true;
    if (!is_last) source_ = own_ket_;
  }

  // A ket that may be written: the caller's may not.
  Complex<T>* own_source() {
    if (source_ != c_.own(own_ket_)) {
      c_.device().copy(own_ket_, source_, sizeof(Complex<T>) * c_.samples().count * c_.dimension());
      source_ = own_ket_;
    }
    return own_ket_;
  }

  Context<T> c_;
  TilePasses<T> passes_;
  PauliWords<T> pauli_words_;
  UnfusedGates<T> gates_;
  DeviceObservables<T> observables_;
  GradientSums<T> gradients_;
  MemoryBudget<T> budget_;

  CotangentSources<T> cotangents_;
  int first_pass_ = 0;                  // where the sweep back ends
  Complex<T>* ket_ = nullptr;           // of this chunk; null where it is not in memory
  const Complex<T>* source_ = nullptr;  // where the sweep back reads the ket
  Complex<T>* bra_ = nullptr;
  Complex<T>* own_ket_ = nullptr;
  bool pauli_words_in_launch_ = false;  // the next launch that undoes passes adds Pauli words to the bra
  bool bra_has_begun_ = false;
};

}  // namespace

template <class T>
void execute(Device& device, const DeviceCall<T>& call, const Results<T>& results) {
  if (call.batch > 0) DeviceEngine<T>(device, call, {}).forward(results);
}

template <class T>
void execute_vjp(Device& device, const DeviceCall<T>& call, const Cotangents<T>& cotangents) {
  if (call.batch == 0) return;
  DeviceEngine<T>(device, call, cotangents.gradients)
      .backward({{cotangents.real}, {cotangents.complex}}, cotangents.ket, nullptr);
}

template <class T>
void execute_tangents(Device& device, const DeviceCall<T>& call, const Directional<T>& directional) {
  if (call.batch == 0) return;
  const Cotangents<T>& cotangents = directional.cotangents;
  DeviceEngine<DualOf<T>> engine(device, call, cotangents.gradients);
  if (!directional.requests_gradients()) return engine.forward(directional.results);
  const CotangentSources<DualOf<T>> sources{{cotangents.real, directional.real_tangent},
                                            {cotangents.complex, directional.complex_tangent}};
  engine.backward(sources, nullptr, &directional.results);
}

std::vector<int> architectures() {
#if defined(__CUDA_ARCH_LIST__)
  std::vector<int> list{__CUDA_ARCH_LIST__};
  for (int& architecture : list) architecture /= 10;
  return list;
#else
  return {};
#endif
}

template void execute(Device&, const DeviceCall<float>&, const Results<float>&);
template void execute(Device&, const DeviceCall<double>&, const Results<double>&);
template void execute_vjp(Device&, const DeviceCall<float>&, const Cotangents<float>&);
template void execute_vjp(Device&, const DeviceCall<double>&, const Cotangents<double>&);
template void execute_tangents(Device&, const DeviceCall<float>&, const Directional<float>&);
template void execute_tangents(Device&, const DeviceCall<double>&, const Directional<double>&);

}  // namespace ketgrad::cuda

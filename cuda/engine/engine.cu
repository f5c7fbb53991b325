#include "cuda/engine/engine.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/engine/context.h"
#include "cuda/engine/observables.h"
#include "cuda/kernels/tiles.h"
#include "plan/gpu_layout.h"

namespace ketgrad::cuda {

namespace {

template <class T>
class Engine {
 public:
  Engine(Device& device, const DeviceCall<Real<T>>& call, const std::vector<Real<T>*>& gradients)
      : c_(device, call, gradients), observables_(c_), whole_(is_whole()) {
    check_matrices();
    if (most_shared_bytes<T>(c_.tables()) > c_.device().shared_bytes)
      throw std::invalid_argument(
          "ketgrad: an observable of so many Pauli words takes more shared memory than this GPU "
          "has; measure it in several parts, or run the circuit on the CPU");
  }

  void forward(const Results<Real<T>>& results) {
    c_.for_each_chunk(bytes_each(false), [&] {
      begin_chunk();
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

  // `kept_ket`: as the forward pass left it; or null, and it is computed again, with `results`, where those are
  // requested too.
  void backward(const CotangentSources<T>& cotangents, const Real<T>* kept_ket, const Results<Real<T>>* results) {
    cotangents_ = cotangents;
    first_pass_ = first_requested_pass(
        c_.tables().initial_input, pass_count(),
        [&](int p) -> const std::vector<int>& { return c_.tables().pass_inputs[p]; },
        [&](int input) { return c_.requests(input); });
    c_.for_each_chunk(bytes_each(true), [&] {
      begin_chunk();
      begin_sums();
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
      if (requests_coefficients_)
        set_coefficient_sources(c_.queue(), c_.view(), term_count(), c_.device_inputs(), c_.samples(), terms_, single_);
      collect_gradients(c_.queue(), c_.view(), c_.tables().elements, c_.tables().angle_count(), c_.device_inputs(),
                        c_.inputs(), c_.samples(), overlaps_, overlap_partials_, single_);
    });
  }

 private:
  // --- a chunk -------------------------------------------------------------------------------------------------------

  // Where this chunk's kets are among those of the batch.
  template <class R>
  auto kept(R* kets) const {
    using States = std::conditional_t<std::is_const_v<R>, const Complex<T>, Complex<T>>;
    return reinterpret_cast<States*>(kets) + c_.samples().first * c_.dimension();
  }

  void measure(const Results<Real<T>>& results) {
    begin_real(results);
    observables_.measure(ket_, results);
  }

  // --- the plan ------------------------------------------------------------------------------------------------------

  // Bytes of memory that a sample takes.
  double bytes_each(bool backward) const {
    const Tables& t = c_.tables();
    const double states = (backward ? 2 : 1) + (t.needs_scratch ? 2 : 0);
    const double angles =
        static_cast<double>(t.angle_count()) * std::max(sizeof(ShearRotation<T>), sizeof(Complex<Accum<T>>));
    const double partials =
        static_cast<double>(partials_of_overlaps(1) * t.angle_count() + partials_of_words(1) * word_count());
    const double sums = 2 * static_cast<double>(largest_sum(backward)) * sizeof(Complex<Accum<T>>);
    const double matrix = static_cast<double>(t.largest_gate_op) * t.largest_gate_op;
    const double matrices = (is_dual<T> ? 3 * matrix : matrix) + static_cast<double>(largest_factor());
    return (states * static_cast<double>(c_.dimension()) + matrices) * sizeof(Complex<T>) + angles +
           partials * sizeof(Accum<T>) + sums;
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

  // SampleParameters that the most demanding factor needs beside the states.
  Index largest_factor() const {
    Index largest = 0;
    for_each_factor([&](const ObservableFactor& f) { largest = std::max(largest, observables_.spare_count(f, 1)); });
    return largest;
  }

  // SampleParameters in the largest sum over groups.
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
    }
    return largest;
  }

  void begin_chunk() {
    c_.numbers_of_chunk(rotations_, c_.tables().rotations);
    c_.numbers_of_chunk(phases_, string_count());
    set_angles(c_.queue(), c_.view(), c_.tables().angle_count(), c_.device_inputs(), c_.samples(), rotations_, phases_,
               c_.some_nan());
  }

  Index string_count() const { return c_.tables().angle_count() - c_.tables().rotations; }
  Index word_count() const { return static_cast<Index>(c_.tables().words.size()); }
  Index term_count() const { return static_cast<Index>(c_.tables().coefficients.size()); }

  TileCall<T> tile_call() const {
    return {c_.view(), c_.samples(),  c_.tables().num_wires,       string_count(), rotations_,
            phases_,   c_.some_nan(), c_.device().multiprocessors, c_.chunk()};
  }

  bool is_whole() const {
    return c_.tables().whole && gpu_holds(c_.tables().num_wires, sizeof(T), c_.device().shared_bytes);
  }

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

  // --- forward -------------------------------------------------------------------------------------------------------

  // Whether a state must be in memory even if nobody keeps it.
  bool needs_ket() const { return !whole_ || !c_.tables().only_words || !c_.tables().gate_ops.empty(); }

  int pass_count() const { return static_cast<int>(c_.tables().passes.size()); }
  bool is_gate_op(int pass) const { return c_.tables().passes[pass].gate_op != Element::none; }

  // The passes from `first` on that one launch takes: of whole states up to the next gate_op.
  int end_of_launch(int first) const {
    int end = first + 1;
    while (whole_ && end < pass_count() && !is_gate_op(end)) ++end;
    return end;
  }

  // Words are measured where `measures`.
  void run_circuit(bool measures) {
    measures = measures && word_count() > 0;
    if (measures) begin_words();
    bool has_begun = prepare();
    const bool last_measures = measures && last_launch_measures();
    for (int p = 0; p < pass_count();) {
      const int end = is_gate_op(p) ? p + 1 : end_of_launch(p);
      if (is_gate_op(p)) {
        const TableGateOp& gate_op = c_.tables().gate_ops[c_.tables().passes[p].gate_op];
        apply(gate_op, set_gate_op(gate_op, false), ket_);
      } else {
        launch_forward(p, end, has_begun, last_measures && end == pass_count());
      }
      has_begun = true;
      p = end;
    }
    if (pass_count() == 0 && whole_ && (measures || !has_begun)) launch_forward(0, 0, has_begun, measures);
    if (measures) measure_words_from(last_measures ? 1 : 0, ket_);
  }

  // Whether the last launch of a circuit measures the words of the first word pass. Of whole states without any pass it
  // is a launch for that alone.
  bool last_launch_measures() const {
    if (pass_count() > 0 && is_gate_op(pass_count() - 1)) return false;
    return whole_ || c_.tables().last_pass_measures;
  }

  // False where the first launch begins the state.
  bool prepare() {
    if (c_.tables().preparation == Preparation::state) {
      c_.zero_states(ket_or_own());
      load_initial_state(c_.queue(), c_.state_call(), c_.tables().initial_input, c_.tables().initial_offsets, ket_);
      return true;
    }
    const bool launch_begins = pass_count() == 0 ? whole_ : !is_gate_op(0);
    if (launch_begins) {
      if (!whole_ && !c_.tables().covered) c_.zero_states(ket_or_own());
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
    f.partials = words_;
    f.partials_each = word_partials_;
    run_forward(c_.queue(), c_.tables(), tile_call(), f);
  }

  // --- words ---------------------------------------------------------------------------------------------------------

  TileGrid grid(int tile_bits, Index tiles, Index samples) const {
    return grid_of(tile_bits, tiles, samples, c_.device().multiprocessors);
  }

  // Pieces in which the sums of a call of so many samples come: of the pass with the most.
  Index partials_of_words(Index samples) const {
    Index most = 1;
    for (const WordPass& pass : c_.tables().word_passes)
      most = std::max(most, grid(pass.tile_bits, pass.tiles, samples).partials());
    return most;
  }

  Index partials_of_overlaps(Index samples) const {
    Index most = 1;
    for (const TilePass& pass : c_.tables().passes) {
      if (pass.gate_op == Element::none) most = std::max(most, grid(pass.tile_bits, pass.tiles, samples).partials());
    }
    return most;
  }

  // Room for the partial sums of all words, zeros but where one launch has all of them.
  void begin_words() {
    word_partials_ = partials_of_words(c_.chunk());
    words_ = c_.room_for_words(c_.chunk() * word_count() * word_partials_);
    if (!whole_) c_.zero_numbers(words_, word_count() * word_partials_);
  }

  void measure_words_from(std::size_t first, const Complex<T>* ket) {
    for (std::size_t p = first; p < c_.tables().word_passes.size(); ++p)
      measure_words(c_.queue(), c_.tables(), tile_call(), static_cast<int>(p), ket, words_, word_partials_);
  }

  // Results begin as the sums of their words, or as zero.
  void begin_real(const Results<Real<T>>& results) {
    const Index count = c_.tables().real_results;
    if (count == 0) return;
    c_.device().zero(results.real + c_.samples().first * count, sizeof(Real<T>) * c_.samples().count * count);
    finish_words(c_.queue(), c_.view(), static_cast<Index>(c_.tables().word_results.size()), count, c_.device_inputs(),
                 c_.samples(), static_cast<const Accum<T>*>(words_), word_partials_, results.real);
  }

  // --- backward ------------------------------------------------------------------------------------------------------

  bool requests_any_coefficient() const {
    return std::any_of(c_.tables().coefficients.begin(), c_.tables().coefficients.end(),
                       [&](const Coefficient& c) { return c_.requests(c.values); });
  }

  void begin_sums() {
    overlap_partials_ = partials_of_overlaps(c_.chunk());
    const Index overlaps = c_.tables().angle_count() * overlap_partials_;
    c_.zero_numbers(c_.numbers_of_chunk(overlaps_, overlaps), overlaps);
    c_.zero_numbers(c_.numbers_of_chunk(single_, c_.tables().single_sources), c_.tables().single_sources);
    requests_coefficients_ = requests_any_coefficient();
    if (requests_coefficients_) c_.zero_numbers(c_.numbers_of_chunk(terms_, term_count()), term_count());
  }

  // Whether the launch that undoes the last passes adds the words of the first word pass to the bra.
  bool undoing_adds_words() const {
    return c_.tables().only_words && word_count() > 0 && first_pass_ < pass_count() && last_launch_measures() &&
           !requests_coefficients_;
  }

  void begin_bra() {
    if (word_count() > 0) {
      c_.numbers_of_chunk(word_weights_, word_count());
      set_word_weights(c_.queue(), c_.view(), word_count(), c_.tables().real_results, c_.device_inputs(), c_.samples(),
                       cotangents_.real, word_weights_);
    }
    words_in_launch_ = undoing_adds_words();
    bra_has_begun_ = !words_in_launch_;
    if (word_count() == 0) c_.zero_states(c_.own(bra_));
    const std::size_t first = words_in_launch_ ? 1 : 0;
    for (std::size_t p = first; p < c_.tables().word_passes.size(); ++p) {
      add_words(c_.queue(), c_.tables(), tile_call(), static_cast<int>(p), source_, c_.own(bra_),
                static_cast<const T*>(word_weights_), p == first);
      bra_has_begun_ = true;
    }
    if (words_in_launch_) return;
    if (requests_coefficients_ && word_count() > 0) {
      begin_words();
      measure_words_from(0, source_);
      set_word_terms(c_.queue(), c_.view(), word_count(), c_.tables().real_results, c_.samples(), words_,
                     word_partials_, cotangents_.real, terms_);
    }
    observables_.add_bras(source_, cotangents_, bra_, terms_);
  }

  // --- undoing -------------------------------------------------------------------------------------------------------

  void undo_circuit() {
    const bool initial_requested = c_.requests(c_.tables().initial_input);
    for (int end = pass_count(); end > first_pass_;) {
      int first = end - 1;
      if (is_gate_op(first)) {
        undo(c_.tables().gate_ops[c_.tables().passes[first].gate_op]);
      } else {
        while (whole_ && first > first_pass_ && !is_gate_op(first - 1)) --first;
        launch_backward(first, end, first == first_pass_ && !initial_requested);
      }
      end = first;
    }
  }

  // `is_last`: nobody needs the states afterwards.
  void launch_backward(int first, int end, bool is_last) {
    BackwardTiles<T> b;
    b.first_pass = first;
    b.end_pass = end;
    b.source = source_;
    b.ket = is_last ? nullptr : c_.own(own_ket_);
    b.weights = words_in_launch_ ? word_weights_ : nullptr;
    b.reads_bra = bra_has_begun_;
    b.writes_bra = !is_last;
    b.bra = b.reads_bra || b.writes_bra ? c_.own(bra_) : nullptr;
    b.overlaps = overlaps_;
    b.overlap_partials = overlap_partials_;
    run_backward(c_.queue(), c_.tables(), tile_call(), b);
    words_in_launch_ = false;
    bra_has_begun_ = true;
    if (!is_last) source_ = own_ket_;
  }

  // The kept ket is not for writing.
  Complex<T>* own_source() {
    if (source_ != c_.own(own_ket_)) {
      c_.device().copy(own_ket_, source_, sizeof(Complex<T>) * c_.samples().count * c_.dimension());
      source_ = own_ket_;
    }
    return own_ket_;
  }

  // The coefficients of an unfused gate, which are there until the next.
  struct Coefficients {
    Complex<T>* data = nullptr;
    Index rows = 1;    // one for each sample, or one for them all
    Index stride = 0;  // from one sample's to the next one's
  };

  Coefficients set_gate_op(const TableGateOp& gate_op, bool adjoint) {
    bool batched = false;
    for (int j = 0; j < gate_op.values.count; ++j) {
      const int input = c_.tables().values[gate_op.values.first + j].input;
      batched |= input != no_input && c_.inputs()[input].batched != 0;
    }
    if (gate_op.input != no_input) batched |= c_.inputs()[gate_op.input].batched != 0;
    const Index count = cuda::coefficient_count(gate_op);
    const Index rows = batched ? c_.samples().count : 1;
    const Coefficients found{c_.room_for_coefficients(rows * count), rows, batched ? count : 0};
    set_coefficients(c_.queue(), c_.state_call(), gate_op, adjoint, rows, found.data);
    return found;
  }

  void apply(const TableGateOp& gate_op, const Coefficients& coefficients, Complex<T>* states) {
    apply_gate_op(c_.queue(), c_.state_call(), gate_op, static_cast<const Complex<T>*>(coefficients.data),
                  coefficients.stride, states);
  }

  // The ket goes back by the inverse, the bra by the adjoint: duals of a matrix that is an input may differ there.
  Coefficients inverse_of(const TableGateOp& gate_op, const Coefficients& adjoint) {
    if constexpr (is_dual<T>) {
      if (c_.has_tangent(gate_op.input)) {
        const Index count = adjoint.rows * cuda::coefficient_count(gate_op);
        Complex<T>* inverse = c_.room_for_factor(2 * count);
        invert_tangents(c_.queue(), gate_op, adjoint.rows, adjoint.data, inverse, inverse + count);
        return {inverse, adjoint.rows, adjoint.stride};
      }
    }
    return adjoint;
  }

  // The overlaps are of the bra after the gate and the ket before it; those of a rotation, which commutes with what it
  // is generated by, of both before it.
  void undo(const TableGateOp& gate_op) {
    Complex<T>* ket = own_source();
    const Coefficients adjoint = set_gate_op(gate_op, true);
    const bool is_rotation = gate_op.kind == GateOpKind::pauli_rotation;
    apply(gate_op, inverse_of(gate_op, adjoint), ket);
    if (!is_rotation) add_gate_op_gradients(gate_op, ket);
    apply(gate_op, adjoint, bra_);
    if (is_rotation) add_gate_op_gradients(gate_op, ket);
  }

  void add_gate_op_gradients(const TableGateOp& gate_op, const Complex<T>* ket) {
    const bool requests_matrix = c_.requests(gate_op.input);
    if (!requests_matrix && !c_.requests(gate_op.values)) return;
    const Complex<Accum<T>>* sums = sum_overlaps(gate_op, ket);
    set_gate_op_sources(c_.queue(), c_.state_call(), gate_op, sums, single_);
    if (requests_matrix)
      add_matrix_gradient(c_.queue(), c_.state_call(), gate_op, c_.inputs()[gate_op.input].batched != 0, sums);
  }

  const Complex<Accum<T>>* sum_overlaps(const TableGateOp& gate_op, const Complex<T>* ket) {
    const Index count = overlap_count(gate_op);
    if (gate_op.kind == GateOpKind::pauli_rotation) {
      Complex<Accum<T>>* sums = c_.room_for_sums(c_.samples().count);
      Complex<Accum<T>>* partials =
          c_.room_for_partials(sum_scratch_count(gate_op.groups.size(), 1, c_.samples().count));
      sum_rotation(c_.queue(), c_.state_call(), gate_op, static_cast<const Complex<T>*>(bra_), ket, sums, partials);
      return sums;
    }
    const auto kind = gate_op.kind == GateOpKind::diagonal ? Entries::Kind::diagonal : Entries::Kind::all;
    return c_.sum_groups(gate_op.groups, Offsets::of(gate_op.offsets), {kind, count, {}, {}}, bra_, ket);
  }

  Context<T> c_;
  Observables<T> observables_;
  const bool whole_;  // one tile holds a state

  CotangentSources<T> cotangents_;
  ShearRotation<T>* rotations_ = nullptr;
  Complex<Accum<T>>* phases_ = nullptr;
  Complex<T>* ket_ = nullptr;           // of this chunk; null where it is not in memory
  const Complex<T>* source_ = nullptr;  // where the way back reads the ket
  Complex<T>* bra_ = nullptr;
  Complex<T>* own_ket_ = nullptr;
  Accum<T>* words_ = nullptr;
  Index word_partials_ = 0;
  T* word_weights_ = nullptr;
  bool words_in_launch_ = false;  // the next launch that undoes passes adds words to the bra
  bool bra_has_begun_ = false;
  Accum<T>* overlaps_ = nullptr;
  Index overlap_partials_ = 1;
  Accum<T>* single_ = nullptr;
  Accum<T>* terms_ = nullptr;
  bool requests_coefficients_ = false;
  int first_pass_ = 0;
};

}  // namespace

template <class T>
void execute(Device& device, const DeviceCall<T>& call, const Results<T>& results) {
  if (call.batch > 0) Engine<T>(device, call, {}).forward(results);
}

template <class T>
void execute_vjp(Device& device, const DeviceCall<T>& call, const Cotangents<T>& cotangents) {
  if (call.batch == 0) return;
  Engine<T>(device, call, cotangents.gradients)
      .backward({{cotangents.real}, {cotangents.complex}}, cotangents.ket, nullptr);
}

template <class T>
void execute_tangents(Device& device, const DeviceCall<T>& call, const Directional<T>& directional) {
  if (call.batch == 0) return;
  const Cotangents<T>& cotangents = directional.cotangents;
  Engine<DualOf<T>> engine(device, call, cotangents.gradients);
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

#include "cuda/walk.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/gpu_layout.h"
#include "cuda/context.h"
#include "cuda/observables.h"
#include "cuda/tiles.h"

namespace ketgrad::cuda {

namespace {

template <class T>
class Walk {
 public:
  Walk(Device& device, const DeviceCall<T>& call, const std::vector<T*>& gradients)
      : c_(device, call, gradients), observables_(c_), whole_(is_whole()) {
    check_matrices();
  }

  void forward(const Results<T>& results) {
    c_.for_each_chunk(2.0 + (c_.tables().needs_scratch ? 3.0 : 0.0), [&] {
      begin_chunk();
      ket_ = nullptr;
      if (results.ket != nullptr) {
        ket_ = reinterpret_cast<Complex<T>*>(results.ket) + c_.samples().first * c_.dimension();
      } else if (needs_ket()) {
        ket_ = c_.own(own_ket_);
      }
      run_circuit(true);
      if (results.real != nullptr && c_.tables().real_results > 0) finish_real(results);
      observables_.measure(ket_, results);
    });
  }

  void backward(const Cotangents<T>& cotangents) {
    cotangents_ = cotangents;
    first_pass_ = first_wanted_pass();
    c_.for_each_chunk(3.0 + (c_.tables().needs_scratch ? 3.0 : 0.0), [&] {
      begin_chunk();
      begin_sums();
      if (cotangents.ket != nullptr) {
        ket_ = nullptr;
        source_ = reinterpret_cast<const Complex<T>*>(cotangents.ket) + c_.samples().first * c_.dimension();
      } else {
        ket_ = c_.own(own_ket_);
        run_circuit(false);
        source_ = ket_;
      }
      begin_bra();
      undo_circuit();
      if (c_.wants(c_.tables().initial_input))
        add_initial_gradient(c_.queue(), c_.state_call(), c_.inputs()[c_.tables().initial_input],
                             c_.tables().initial_input, c_.tables().initial_offsets,
                             static_cast<const Complex<T>*>(bra_));
      if (wants_coefficients_)
        set_coefficient_sources(c_.queue(), c_.view(), coefficient_count_all(), c_.device_inputs(), c_.samples(),
                                terms_, single_);
      collect_gradients(c_.queue(), c_.view(), c_.tables().elements, c_.tables().angle_count(), c_.device_inputs(),
                        c_.inputs(), c_.samples(), overlaps_, overlap_pieces_, single_);
    });
  }

 private:
  // --- the plan ------------------------------------------------------------------------------------------------------

  void begin_chunk() {
    c_.own_numbers(rotations_, c_.tables().rotations);
    c_.own_numbers(phases_, string_count());
    set_angles(c_.queue(), c_.view(), c_.tables().angle_count(), c_.device_inputs(), c_.samples(), rotations_, phases_);
  }

  Index string_count() const { return c_.tables().angle_count() - c_.tables().rotations; }
  Index word_count() const { return static_cast<Index>(c_.tables().words.size()); }
  Index coefficient_count_all() const { return static_cast<Index>(c_.tables().coefficients.size()); }

  TileCall<T> tile_call() const {
    return {c_.view(),  c_.samples(), c_.tables().num_wires,       string_count(),
            rotations_, phases_,      c_.device().multiprocessors, c_.chunk()};
  }
  bool is_whole() const {
    for (const TilePass& p : c_.tables().passes) {
      if (p.step == Element::none && p.tile_bits < c_.tables().num_wires) return false;
    }
    return gpu_tile_bytes(c_.tables().num_wires, 2, sizeof(T)) + reserved_shared_bytes <= c_.device().shared_bytes;
  }

  void check_matrices() const {
    const auto most = static_cast<Index>(c_.device().shared_bytes / sizeof(Complex<T>));
    Index largest = c_.tables().largest_step;
    for (const TableMeasurement& m : c_.tables().measurements) {
      for (const ObservableTerm& t : m.terms) {
        for (const ObservableFactor& f : t.factors) {
          if (f.kind == FactorKind::hermitian) largest = std::max(largest, f.offsets.size());
        }
      }
    }
    if (largest > most)
      throw std::invalid_argument("ketgrad: a matrix of " + std::to_string(largest) +
                                  " rows is more than this GPU's shared memory holds, " + std::to_string(most) +
                                  " rows; run the circuit on the CPU, or the matrix on fewer wires");
  }

  // --- forward -------------------------------------------------------------------------------------------------------

  // Whether a state must be in memory even if nobody keeps it.
  bool needs_ket() const { return !whole_ || !c_.tables().only_words || !c_.tables().steps.empty(); }

  int pass_count() const { return static_cast<int>(c_.tables().passes.size()); }
  bool is_step(int pass) const { return c_.tables().passes[pass].step != Element::none; }

  // The passes from `first` on that one launch takes: of whole states up to the next step.
  int end_of_launch(int first) const {
    int end = first + 1;
    while (whole_ && end < pass_count() && !is_step(end)) ++end;
    return end;
  }

  // Results of words are measured where `measures`.
  void run_circuit(bool measures) {
    measures = measures && word_count() > 0;
    bool has_begun = prepare();
    if (pass_count() == 0 && whole_ && (measures || !has_begun)) {
      launch_forward(0, 0, has_begun, measures);
      return;
    }
    for (int p = 0; p < pass_count();) {
      const int end = is_step(p) ? p + 1 : end_of_launch(p);
      if (is_step(p)) {
        apply(c_.tables().steps[c_.tables().passes[p].step], false, ket_);
      } else {
        launch_forward(p, end, has_begun, measures && whole_ && end == pass_count());
      }
      has_begun = true;
      p = end;
    }
    const bool measured = whole_ && pass_count() > 0 && !is_step(pass_count() - 1);
    if (measures && !measured) measure_all_words(ket_);
  }

  // False where the first launch begins the state.
  bool prepare() {
    if (c_.tables().preparation == Preparation::state) {
      c_.zero_states(ket_or_own());
      load_initial_state(c_.queue(), c_.state_call(), c_.tables().initial_input, c_.tables().initial_offsets, ket_);
      return true;
    }
    const bool launch_begins = pass_count() == 0 ? whole_ : !is_step(0);
    if (launch_begins) return false;
    begin_states(c_.queue(), c_.state_call(), c_.tables().initial_index, ket_or_own());
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
    f.initial_index = c_.tables().initial_index;
    f.ket = ket_;
    f.into = ket_;
    f.measures = measures;
    if (measures) f.pieces = word_pieces_of(whole_pieces());
    run_forward(c_.queue(), c_.tables(), tile_call(), f);
  }

  // --- words ---------------------------------------------------------------------------------------------------------

  Index whole_pieces() const {
    return grid_of(c_.tables().num_wires, c_.tables().num_wires, c_.chunk(), c_.device().multiprocessors).pieces();
  }

  Index pieces_of_words() const {
    Index most = 1;
    for (const WordPass& pass : c_.tables().word_passes)
      most = std::max(most,
                      grid_of(pass.tile_bits, c_.tables().num_wires, c_.chunk(), c_.device().multiprocessors).pieces());
    return most;
  }

  double* word_pieces_of(Index pieces) {
    word_pieces_ = pieces;
    return c_.own_numbers(words_, word_count() * pieces);
  }

  void measure_all_words(const Complex<T>* ket) {
    double* pieces = word_pieces_of(pieces_of_words());
    c_.zero_numbers(pieces, word_count() * word_pieces_);
    for (std::size_t p = 0; p < c_.tables().word_passes.size(); ++p)
      measure_words(c_.queue(), c_.tables(), tile_call(), static_cast<int>(p), ket, pieces, word_pieces_);
  }

  void finish_real(const Results<T>& results) {
    finish_words(c_.queue(), c_.view(), c_.tables().real_results, c_.device_inputs(), c_.samples(), words_,
                 word_pieces_, results.real);
  }

  // --- backward ------------------------------------------------------------------------------------------------------

  bool wants_any_coefficient() const {
    return std::any_of(c_.tables().coefficients.begin(), c_.tables().coefficients.end(),
                       [&](const Coefficient& c) { return c_.wants(c.values); });
  }

  int first_wanted_pass() const {
    if (c_.wants(c_.tables().initial_input)) return 0;
    for (int p = 0; p < pass_count(); ++p) {
      for (const int input : c_.tables().pass_inputs[p]) {
        if (c_.wants(input)) return p;
      }
    }
    return pass_count();
  }

  void begin_sums() {
    overlap_pieces_ = 1;
    for (const TilePass& p : c_.tables().passes) {
      if (p.step == Element::none)
        overlap_pieces_ =
            std::max(overlap_pieces_,
                     grid_of(p.tile_bits, c_.tables().num_wires, c_.chunk(), c_.device().multiprocessors).pieces());
    }
    const Index overlaps = c_.tables().angle_count() * overlap_pieces_;
    c_.zero_numbers(c_.own_numbers(overlaps_, overlaps), overlaps);
    c_.zero_numbers(c_.own_numbers(single_, c_.tables().single_sources), c_.tables().single_sources);
    wants_coefficients_ = wants_any_coefficient();
    if (wants_coefficients_) c_.zero_numbers(c_.own_numbers(terms_, coefficient_count_all()), coefficient_count_all());
  }

  // Whether the launch that undoes the last passes begins the bra as well.
  bool bra_begins_in_launch() const {
    return whole_ && c_.tables().only_words && word_count() > 0 && first_pass_ < pass_count() &&
           !is_step(pass_count() - 1) && !wants_coefficients_;
  }

  void begin_bra() {
    if (word_count() > 0) {
      c_.own_numbers(word_weights_, word_count());
      set_word_weights(c_.queue(), c_.view(), word_count(), c_.tables().real_results, c_.device_inputs(), c_.samples(),
                       cotangents_.real, word_weights_);
    }
    bra_in_launch_ = bra_begins_in_launch();
    if (bra_in_launch_) return;
    c_.own(bra_);
    if (word_count() == 0) c_.zero_states(bra_);
    for (std::size_t p = 0; p < c_.tables().word_passes.size(); ++p)
      add_words(c_.queue(), c_.tables(), tile_call(), static_cast<int>(p), source_, bra_,
                static_cast<const T*>(word_weights_), p == 0);
    if (word_count() > 0 && wants_coefficients_) {
      measure_all_words(source_);
      set_word_terms(c_.queue(), c_.view(), word_count(), c_.tables().real_results, c_.samples(), words_, word_pieces_,
                     cotangents_.real, terms_);
    }
    observables_.add_bras(source_, cotangents_, bra_, terms_);
  }

  // --- undoing -------------------------------------------------------------------------------------------------------

  void undo_circuit() {
    const bool start_wanted = c_.wants(c_.tables().initial_input);
    for (int end = pass_count(); end > first_pass_;) {
      int first = end - 1;
      if (is_step(first)) {
        undo(c_.tables().steps[c_.tables().passes[first].step]);
      } else {
        while (whole_ && first > first_pass_ && !is_step(first - 1)) --first;
        launch_backward(first, end, first == first_pass_ && !start_wanted);
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
    b.weights = bra_in_launch_ ? word_weights_ : nullptr;
    b.bra = bra_in_launch_ && is_last ? nullptr : c_.own(bra_);
    b.writes_bra = !is_last;
    b.overlaps = overlaps_;
    b.overlap_pieces = overlap_pieces_;
    run_backward(c_.queue(), c_.tables(), tile_call(), b);
    bra_in_launch_ = false;
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

  // The coefficients of a step, and from one sample's to the next one's.
  Index set_step(const GateStep& step, bool inverse) {
    bool batched = false;
    for (int j = 0; j < step.values.count; ++j) {
      const int input = c_.tables().values[step.values.first + j].input;
      batched |= input != no_input && c_.inputs()[input].batched != 0;
    }
    if (step.input != no_input) batched |= c_.inputs()[step.input].batched != 0;
    const Index count = cuda::coefficient_count(step);
    const Index rows = batched ? c_.samples().count : 1;
    if (coefficient_capacity_ < rows * count) {
      coefficient_capacity_ = rows * count;
      coefficients_ = c_.template take<Complex<T>>(coefficient_capacity_);
    }
    set_coefficients(c_.queue(), c_.state_call(), step, inverse, rows, coefficients_);
    return batched ? count : 0;
  }

  void apply(const GateStep& step, bool inverse, Complex<T>* states) {
    const Index stride = set_step(step, inverse);
    apply_step(c_.queue(), c_.state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, states);
  }

  // The overlaps are of the bra after the gate and the ket before it.
  void undo(const GateStep& step) {
    Complex<T>* ket = own_source();
    const Index stride = set_step(step, true);
    apply_step(c_.queue(), c_.state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, ket);
    const bool wants_matrix = c_.wants(step.input);
    const bool is_rotation = step.kind == StepKind::pauli_rotation;
    if (wants_matrix || c_.wants(step.values)) {
      if (is_rotation)
        apply_step(c_.queue(), c_.state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, bra_);
      const Complex<double>* sums = sum_overlaps(step, ket);
      set_step_sources(c_.queue(), c_.state_call(), step, sums, single_);
      if (wants_matrix)
        add_matrix_gradient(c_.queue(), c_.state_call(), step, c_.inputs()[step.input].batched != 0, sums);
      if (is_rotation) return;
    }
    apply_step(c_.queue(), c_.state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, bra_);
  }

  const Complex<double>* sum_overlaps(const GateStep& step, const Complex<T>* ket) {
    const Index count = overlap_count(step);
    if (step.kind == StepKind::pauli_rotation) {
      Complex<double>* sums = c_.room_for_sums(c_.samples().count);
      Complex<double>* pieces = c_.room_for_pieces(sum_scratch_count(step.groups.size(), 1, c_.samples().count));
      sum_rotation(c_.queue(), c_.state_call(), step, static_cast<const Complex<T>*>(bra_), ket, sums, pieces);
      return sums;
    }
    const auto kind = step.kind == StepKind::diagonal ? Entries::Kind::diagonal : Entries::Kind::all;
    return c_.sum_groups(step.groups, Offsets::of(step.offsets), {kind, count, {}, {}}, bra_, ket);
  }

  Context<T> c_;
  Observables<T> observables_;
  const bool whole_;  // one tile holds a state

  Cotangents<T> cotangents_;
  Rotation<T>* rotations_ = nullptr;
  PhaseAngle<T>* phases_ = nullptr;
  Complex<T>* ket_ = nullptr;           // of this chunk; null where it is not in memory
  const Complex<T>* source_ = nullptr;  // where the way back reads the ket
  Complex<T>* bra_ = nullptr;
  Complex<T>* own_ket_ = nullptr;
  Complex<T>* coefficients_ = nullptr;
  Index coefficient_capacity_ = 0;
  double* words_ = nullptr;
  Index word_pieces_ = 0;
  T* word_weights_ = nullptr;
  bool bra_in_launch_ = false;
  double* overlaps_ = nullptr;
  Index overlap_pieces_ = 1;
  double* single_ = nullptr;
  double* terms_ = nullptr;
  bool wants_coefficients_ = false;
  int first_pass_ = 0;
};

}  // namespace

template <class T>
void execute(Device& device, const DeviceCall<T>& call, const Results<T>& results) {
  if (call.batch > 0) Walk<T>(device, call, {}).forward(results);
}

template <class T>
void execute_vjp(Device& device, const DeviceCall<T>& call, const Cotangents<T>& cotangents) {
  if (call.batch > 0) Walk<T>(device, call, cotangents.gradients).backward(cotangents);
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

}  // namespace ketgrad::cuda

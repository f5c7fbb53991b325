#include "cuda/walk.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/gpu_layout.h"
#include "cuda/measurements.h"
#include "cuda/numbers.h"
#include "cuda/steps.h"
#include "cuda/tiles.h"

namespace ketgrad::cuda {

namespace {

template <class T>
class Walk {
 public:
  Walk(Device& device, const DeviceCall<T>& call, const std::vector<T*>& gradients)
      : device_(device),
        queue_(device.queue),
        call_(call),
        tables_(call.tables->tables),
        dimension_(Index{1} << tables_.num_wires),
        whole_(is_whole()) {
    check_matrices();
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      const InputView<T>& view = call.inputs[i];
      inputs_.push_back({view.data, gradients.empty() ? nullptr : gradients[i], view.numel, view.batched ? 1 : 0,
                         view.is_complex ? 1 : 0});
    }
    device_inputs_ = take<Input<T>>(static_cast<Index>(inputs_.size()));
    set_inputs(queue_, inputs_.data(), static_cast<int>(inputs_.size()), device_inputs_);
  }

  void forward(const Results<T>& results) {
    for_each_chunk(2.0 + (tables_.needs_scratch ? 3.0 : 0.0), [&] {
      begin_chunk();
      ket_ = nullptr;
      if (results.ket != nullptr) {
        ket_ = reinterpret_cast<Complex<T>*>(results.ket) + samples_.first * dimension_;
      } else if (needs_ket()) {
        ket_ = own(own_ket_);
      }
      run_circuit(true);
      if (results.real != nullptr && tables_.real_results > 0) finish_real(results);
      for (const TableMeasurement& m : tables_.measurements) measure(m, results);
    });
  }

  void backward(const Cotangents<T>& cotangents) {
    cotangents_ = cotangents;
    first_pass_ = first_wanted_pass();
    for_each_chunk(3.0 + (tables_.needs_scratch ? 3.0 : 0.0), [&] {
      begin_chunk();
      begin_sums();
      if (cotangents.ket != nullptr) {
        ket_ = nullptr;
        source_ = reinterpret_cast<const Complex<T>*>(cotangents.ket) + samples_.first * dimension_;
      } else {
        ket_ = own(own_ket_);
        run_circuit(false);
        source_ = ket_;
      }
      begin_bra();
      undo_circuit();
      if (wants(tables_.initial_input))
        add_initial_gradient(queue_, state_call(), inputs_[tables_.initial_input], tables_.initial_input,
                             tables_.initial_offsets, static_cast<const Complex<T>*>(bra_));
      if (wants_coefficients_)
        set_coefficient_sources(queue_, view(), coefficient_count_all(), device_inputs_, samples_, terms_, single_);
      collect_gradients(queue_, view(), tables_.elements, tables_.angle_count(), device_inputs_, inputs_, samples_,
                        overlaps_, overlap_pieces_, single_);
    });
  }

 private:
  // --- memory and chunks ---------------------------------------------------------------------------------------------

  template <class E>
  E* take(Index count) {
    return static_cast<E*>(device_.allocate(std::max<Index>(count, 1) * sizeof(E)));
  }

  // A state a sample of a chunk, taken when it is first needed and kept for the next chunks.
  Complex<T>* own(Complex<T>*& states) {
    if (states == nullptr) states = take<Complex<T>>(chunk_ * dimension_);
    return states;
  }

  // Numbers a sample, likewise.
  template <class E>
  E* own_numbers(E*& numbers, Index each) {
    if (numbers == nullptr) numbers = take<E>(chunk_ * each);
    return numbers;
  }

  // `states`: so many states a sample may be needed.
  template <class F>
  void for_each_chunk(double states, const F& f) {
    const double each = states * static_cast<double>(dimension_) * sizeof(Complex<T>);
    const auto fit = static_cast<double>(device_.workspace_bytes) / each;
    chunk_ = std::clamp<Index>(static_cast<Index>(std::min(fit, 1e15)), 1, std::max<Index>(call_.batch, 1));
    for (Index first = 0; first < call_.batch; first += chunk_) {
      samples_ = {first, std::min(chunk_, call_.batch - first)};
      f();
    }
  }

  void begin_chunk() {
    own_numbers(rotations_, tables_.rotations);
    own_numbers(phases_, string_count());
    set_angles(queue_, view(), tables_.angle_count(), device_inputs_, samples_, rotations_, phases_);
  }

  const TablesView& view() const { return call_.tables->view; }
  Index string_count() const { return tables_.angle_count() - tables_.rotations; }
  Index word_count() const { return static_cast<Index>(tables_.words.size()); }
  Index coefficient_count_all() const { return static_cast<Index>(tables_.coefficients.size()); }

  TileCall<T> tile_call() const {
    return {view(), samples_, tables_.num_wires, string_count(), rotations_, phases_, device_.multiprocessors, chunk_};
  }
  StateCall<T> state_call() const {
    return {view(), samples_, tables_.num_wires, device_inputs_};
  }

  bool is_whole() const {
    for (const TilePass& p : tables_.passes) {
      if (p.step == Element::none && p.tile_bits < tables_.num_wires) return false;
    }
    return gpu_tile_bytes(tables_.num_wires, 2, sizeof(T)) + reserved_shared_bytes <= device_.shared_bytes;
  }

  void check_matrices() const {
    const auto most = static_cast<Index>(device_.shared_bytes / sizeof(Complex<T>));
    Index largest = tables_.largest_step;
    for (const TableMeasurement& m : tables_.measurements) {
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
  bool needs_ket() const { return !whole_ || !tables_.only_words || !tables_.steps.empty(); }

  int pass_count() const { return static_cast<int>(tables_.passes.size()); }
  bool is_step(int pass) const { return tables_.passes[pass].step != Element::none; }

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
        apply(tables_.steps[tables_.passes[p].step], false, ket_);
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
    if (tables_.preparation == Preparation::state) {
      device_.zero(ket_or_own(), sizeof(Complex<T>) * samples_.count * dimension_);
      load_initial_state(queue_, state_call(), tables_.initial_input, tables_.initial_offsets, ket_);
      return true;
    }
    const bool launch_begins = pass_count() == 0 ? whole_ : !is_step(0);
    if (launch_begins) return false;
    begin_states(queue_, state_call(), tables_.initial_index, ket_or_own());
    return true;
  }

  Complex<T>* ket_or_own() {
    if (ket_ == nullptr) ket_ = own(own_ket_);
    return ket_;
  }

  void launch_forward(int first, int end, bool has_begun, bool measures) {
    ForwardTiles<T> f;
    f.first_pass = first;
    f.end_pass = end;
    f.prepares = !has_begun;
    f.initial_index = tables_.initial_index;
    f.ket = ket_;
    f.into = ket_;
    f.measures = measures;
    if (measures) f.pieces = word_pieces_of(whole_pieces());
    run_forward(queue_, tables_, tile_call(), f);
  }

  // --- words ---------------------------------------------------------------------------------------------------------

  Index whole_pieces() const {
    return grid_of(tables_.num_wires, tables_.num_wires, chunk_, device_.multiprocessors).pieces();
  }

  Index pieces_of_words() const {
    Index most = 1;
    for (const WordPass& pass : tables_.word_passes)
      most = std::max(most, grid_of(pass.tile_bits, tables_.num_wires, chunk_, device_.multiprocessors).pieces());
    return most;
  }

  double* word_pieces_of(Index pieces) {
    word_pieces_ = pieces;
    return own_numbers(words_, word_count() * pieces);
  }

  void measure_all_words(const Complex<T>* ket) {
    double* pieces = word_pieces_of(pieces_of_words());
    device_.zero(pieces, sizeof(double) * word_count() * samples_.count * word_pieces_);
    for (std::size_t p = 0; p < tables_.word_passes.size(); ++p)
      measure_words(queue_, tables_, tile_call(), static_cast<int>(p), ket, pieces, word_pieces_);
  }

  void finish_real(const Results<T>& results) {
    finish_words(queue_, view(), tables_.real_results, device_inputs_, samples_, words_, word_pieces_, results.real);
  }

  // --- measurements --------------------------------------------------------------------------------------------------

  void measure(const TableMeasurement& m, const Results<T>& results) {
    switch (m.kind) {
      case MeasurementKind::expval: return measure_terms(m, ket_, results);
      case MeasurementKind::var: return measure_var(m, results);
      case MeasurementKind::probs:
        sum_groups(m.groups, Offsets::of(m.offsets), {Entries::Kind::diagonal, m.offsets.size(), {}, {}}, ket_, ket_);
        return write_real(queue_, state_call(), tables_.real_results, m.first_result, m.offsets.size(), sums_.data,
                          results.real);
      case MeasurementKind::state:
        return write_state(queue_, state_call(), tables_.complex_results, m.first_result, m.offsets,
                           static_cast<const Complex<T>*>(ket_), results.complex);
      case MeasurementKind::density_matrix: {
        const Index entries = m.offsets.size() * m.offsets.size();
        sum_groups(m.groups, Offsets::of(m.offsets), {Entries::Kind::all, entries, {}, {}}, ket_, ket_);
        return write_complex(queue_, state_call(), tables_.complex_results, m.first_result, entries, sums_.data,
                             results.complex);
      }
    }
  }

  // Adds coefficient * Re<u|term|ket> of each term.
  void measure_terms(const TableMeasurement& m, const Complex<T>* u, const Results<T>& results) {
    for (const ObservableTerm& term : m.terms) {
      overlap_with_term(u, term, weights(0, {1.0, nullptr, 0, -1, nullptr}), overlap_);
      const double* c = weights(1, {1.0, nullptr, 0, term.coefficient, nullptr});
      add_to_result(queue_, state_call(), tables_.real_results, m.first_result, 1.0, c, overlap_, results.real);
    }
  }

  // <O O> - <O>^2 with v = O psi: Re<v|O|psi> - <psi|v>^2.
  void measure_var(const TableMeasurement& m, const Results<T>& results) {
    const Complex<T>* v = observed(m);
    mean_of(v);
    add_to_result(queue_, state_call(), tables_.real_results, m.first_result, -1.0, mean_, mean_, results.real);
    measure_terms(m, v, results);
  }

  // v = O psi
  Complex<T>* observed(const TableMeasurement& m) {
    Complex<T>* v = own(first_scratch_);
    device_.zero(v, sizeof(Complex<T>) * samples_.count * dimension_);
    add_observable(v, ket(), m, {1.0, nullptr, 0, -1, nullptr});
    return v;
  }

  void mean_of(const Complex<T>* v) {
    own_numbers(mean_, 1);
    real_overlap(ket(), v, weights(0, {1.0, nullptr, 0, -1, nullptr}), mean_);
  }

  const Complex<T>* ket() const { return ket_ != nullptr ? ket_ : source_; }

  // Numbers of a sample, in one of three places.
  double* weights(int place, const Weight<T>& weight) {
    double* out = own_numbers(weights_[place], 1);
    set_weights(queue_, state_call(), tables_.real_results, weight, out);
    return out;
  }

  // The term's word and factors applied to `in`, all but the factor `left_out`.
  Complex<T>* written_term(const Complex<T>* in, const ObservableTerm& term,
                           const ObservableFactor* left_out = nullptr) {
    Complex<T>* out = own(second_scratch_);
    write_word(queue_, state_call(), term.word, in, out);
    for (const ObservableFactor& f : term.factors) {
      if (&f == left_out) continue;
      Complex<T>* spare = f.kind == FactorKind::sparse ? own(third_scratch_) : nullptr;
      apply_factor(queue_, state_call(), f, f.input == no_input ? nullptr : &inputs_[f.input], out, spare);
    }
    return out;
  }

  // out += weight * coefficient * term in, over all terms.
  void add_observable(Complex<T>* out, const Complex<T>* in, const TableMeasurement& m, Weight<T> weight) {
    for (const ObservableTerm& term : m.terms) {
      weight.coefficient = term.coefficient;
      const Complex<T>* applied = written_term(in, term);
      add_scaled(queue_, state_call(), weights(0, weight), applied, static_cast<const double*>(nullptr), out);
    }
  }

  // out[sample] = weight[sample] * Re<u|v>
  void real_overlap(const Complex<T>* u, const Complex<T>* v, const double* weight, double* out) {
    const Map everything{0, tables_.identity};
    sum_groups(everything, Offsets::of(Map{}), {Entries::Kind::diagonal, 1, {}, {}}, u, v);
    multiply(queue_, state_call(), weight, sums_.data, out);
  }

  void overlap_with_term(const Complex<T>* u, const ObservableTerm& term, const double* weight, double*& out) {
    const Complex<T>* applied = written_term(ket(), term);
    real_overlap(u, applied, weight, own_numbers(out, 1));
  }

  // --- sums ----------------------------------------------------------------------------------------------------------

  struct Numbers {
    Complex<double>* data = nullptr;
    Index capacity = 0;
  };

  Complex<double>* grown(Numbers& numbers, Index count) {
    if (numbers.capacity < count) numbers = {take<Complex<double>>(count), count};
    return numbers.data;
  }

  void sum_groups(const Map& groups, const Offsets& offsets, const Entries& entries, const Complex<T>* x,
                  const Complex<T>* y) {
    grown(sums_, entries.count * samples_.count);
    Complex<double>* scratch = grown(sum_scratch_, sum_scratch_count(groups.size(), entries.count, samples_.count));
    sum_over_groups(queue_, state_call(), groups, offsets, entries, x, y, sums_.data, scratch);
  }

  // --- backward ------------------------------------------------------------------------------------------------------

  bool wants(int input) const { return input != no_input && inputs_[input].gradient != nullptr; }

  bool wants(const Range& values) const {
    for (int j = 0; j < values.count; ++j) {
      if (wants(tables_.values[values.first + j].input)) return true;
    }
    return false;
  }

  bool wants_any_coefficient() const {
    return std::any_of(tables_.coefficients.begin(), tables_.coefficients.end(),
                       [&](const Coefficient& c) { return wants(c.values); });
  }

  int first_wanted_pass() const {
    if (wants(tables_.initial_input)) return 0;
    for (int p = 0; p < pass_count(); ++p) {
      for (const int input : tables_.pass_inputs[p]) {
        if (wants(input)) return p;
      }
    }
    return pass_count();
  }

  void begin_sums() {
    overlap_pieces_ = 1;
    for (const TilePass& p : tables_.passes) {
      if (p.step == Element::none)
        overlap_pieces_ = std::max(overlap_pieces_,
                                   grid_of(p.tile_bits, tables_.num_wires, chunk_, device_.multiprocessors).pieces());
    }
    const Index overlaps = tables_.angle_count() * overlap_pieces_;
    device_.zero(own_numbers(overlaps_, overlaps), sizeof(double) * samples_.count * overlaps);
    device_.zero(own_numbers(single_, tables_.single_sources),
                 sizeof(double) * samples_.count * tables_.single_sources);
    wants_coefficients_ = wants_any_coefficient();
    if (wants_coefficients_)
      device_.zero(own_numbers(terms_, coefficient_count_all()),
                   sizeof(double) * samples_.count * coefficient_count_all());
  }

  // Whether the launch that undoes the last passes begins the bra as well.
  bool bra_begins_in_launch() const {
    return whole_ && tables_.only_words && word_count() > 0 && first_pass_ < pass_count() &&
           !is_step(pass_count() - 1) && !wants_coefficients_;
  }

  void begin_bra() {
    if (word_count() > 0) {
      own_numbers(word_weights_, word_count());
      set_word_weights(queue_, view(), word_count(), tables_.real_results, device_inputs_, samples_, cotangents_.real,
                       word_weights_);
    }
    bra_in_launch_ = bra_begins_in_launch();
    if (bra_in_launch_) return;
    own(bra_);
    if (word_count() == 0) device_.zero(bra_, sizeof(Complex<T>) * samples_.count * dimension_);
    for (std::size_t p = 0; p < tables_.word_passes.size(); ++p)
      add_words(queue_, tables_, tile_call(), static_cast<int>(p), source_, bra_, static_cast<const T*>(word_weights_),
                p == 0);
    if (word_count() > 0 && wants_coefficients_) {
      measure_all_words(source_);
      set_word_terms(queue_, view(), word_count(), tables_.real_results, samples_, words_, word_pieces_,
                     cotangents_.real, terms_);
    }
    for (const TableMeasurement& m : tables_.measurements) add_bra(m);
  }

  void add_bra(const TableMeasurement& m) {
    switch (m.kind) {
      case MeasurementKind::expval: return add_expval_bra(m);
      case MeasurementKind::var: return add_var_bra(m);
      case MeasurementKind::probs:
        return add_probs_bra(queue_, state_call(), tables_.real_results, m, cotangents_.real, ket(), bra_);
      case MeasurementKind::state:
        return add_state_bra(queue_, state_call(), tables_.complex_results, m, cotangents_.complex, bra_);
      case MeasurementKind::density_matrix:
        return add_density_bra(queue_, state_call(), tables_.complex_results, m, cotangents_.complex, ket(), bra_);
    }
  }

  Weight<T> cotangent_of(const TableMeasurement& m, double factor = 1) const {
    return {factor, cotangents_.real, m.first_result, -1, nullptr};
  }

  // bra += g O psi, of the terms that have factors
  void add_expval_bra(const TableMeasurement& m) {
    if (m.terms.empty()) return;
    add_observable(bra_, ket(), m, cotangent_of(m));
    add_term_gradients(ket(), m, cotangent_of(m));
    add_factor_gradients(ket(), ket(), m, cotangent_of(m));
  }

  // bra += g (O^2 - 2 <O> O) psi; what O is made of sees u = 2 g (O - <O>) psi, from either side of the product O O.
  void add_var_bra(const TableMeasurement& m) {
    Complex<T>* v = observed(m);
    mean_of(v);
    add_observable(bra_, v, m, cotangent_of(m));
    Weight<T> back = cotangent_of(m, -2);
    back.mean = mean_;
    const double* minus = weights(0, back);
    const double* twice = weights(1, cotangent_of(m, 2));
    add_scaled(queue_, state_call(), minus, static_cast<const Complex<T>*>(v), static_cast<const double*>(nullptr),
               bra_);
    add_scaled(queue_, state_call(), minus, ket(), twice, v);
    const Weight<T> one{1.0, nullptr, 0, -1, nullptr};
    const Weight<T> half{0.5, nullptr, 0, -1, nullptr};
    add_term_gradients(v, m, one);
    add_factor_gradients(v, ket(), m, half);
    add_factor_gradients(ket(), v, m, half);
  }

  // terms_[coefficient] = weight * Re<u|term|ket>
  void add_term_gradients(const Complex<T>* u, const TableMeasurement& m, const Weight<T>& weight) {
    for (const ObservableTerm& term : m.terms) {
      if (!wants(tables_.coefficients[term.coefficient].values)) continue;
      double* out = terms_ + term.coefficient * samples_.count;
      const Complex<T>* applied = written_term(ket(), term);
      real_overlap(u, applied, weights(0, weight), out);
    }
  }

  void add_factor_gradients(const Complex<T>* u, const Complex<T>* in, const TableMeasurement& m, Weight<T> weight) {
    for (const ObservableTerm& term : m.terms) {
      for (const ObservableFactor& f : term.factors) {
        if (!wants(f.input)) continue;
        weight.coefficient = term.coefficient;
        add_factor_gradient(u, written_term(in, term, &f), f, weights(0, weight));
      }
    }
  }

  void add_factor_gradient(const Complex<T>* u, const Complex<T>* rest, const ObservableFactor& f,
                           const double* weight) {
    const bool batched = inputs_[f.input].batched != 0;
    const Index count = inputs_[f.input].numel;
    const bool of_state = f.kind == FactorKind::state_projector;
    if (of_state) {
      grown(sums_, count * samples_.count);
      Complex<double>* products = grown(sum_scratch_, 2 * f.groups.size() * samples_.count);
      state_projector_sums(queue_, state_call(), f, u, rest, products, sums_.data);
    } else {
      const bool sparse = f.kind == FactorKind::sparse;
      const Entries entries{sparse ? Entries::Kind::listed : Entries::Kind::all, count, f.entry_rows, f.entry_columns};
      sum_groups(f.groups, Offsets::of(f.offsets), entries, u, rest);
    }
    add_weighted_gradient(queue_, state_call(), f.input, batched, count, weight, !of_state,
                          static_cast<const Complex<double>*>(sums_.data));
  }

  // --- undoing -------------------------------------------------------------------------------------------------------

  void undo_circuit() {
    const bool start_wanted = wants(tables_.initial_input);
    for (int end = pass_count(); end > first_pass_;) {
      int first = end - 1;
      if (is_step(first)) {
        undo(tables_.steps[tables_.passes[first].step]);
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
    b.ket = is_last ? nullptr : own(own_ket_);
    b.weights = bra_in_launch_ ? word_weights_ : nullptr;
    b.bra = bra_in_launch_ && is_last ? nullptr : own(bra_);
    b.writes_bra = !is_last;
    b.overlaps = overlaps_;
    b.overlap_pieces = overlap_pieces_;
    run_backward(queue_, tables_, tile_call(), b);
    bra_in_launch_ = false;
    if (!is_last) source_ = own_ket_;
  }

  // The kept ket is not for writing.
  Complex<T>* own_source() {
    if (source_ != own(own_ket_)) {
      device_.copy(own_ket_, source_, sizeof(Complex<T>) * samples_.count * dimension_);
      source_ = own_ket_;
    }
    return own_ket_;
  }

  // The coefficients of a step, and from one sample's to the next one's.
  Index set_step(const GateStep& step, bool inverse) {
    bool batched = false;
    for (int j = 0; j < step.values.count; ++j) {
      const int input = tables_.values[step.values.first + j].input;
      batched |= input != no_input && inputs_[input].batched != 0;
    }
    if (step.input != no_input) batched |= inputs_[step.input].batched != 0;
    const Index count = cuda::coefficient_count(step);
    const Index rows = batched ? samples_.count : 1;
    if (coefficient_capacity_ < rows * count) {
      coefficient_capacity_ = rows * count;
      coefficients_ = take<Complex<T>>(coefficient_capacity_);
    }
    set_coefficients(queue_, state_call(), step, inverse, rows, coefficients_);
    return batched ? count : 0;
  }

  void apply(const GateStep& step, bool inverse, Complex<T>* states) {
    const Index stride = set_step(step, inverse);
    apply_step(queue_, state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, states);
  }

  // The overlaps are of the bra after the gate and the ket before it.
  void undo(const GateStep& step) {
    Complex<T>* ket = own_source();
    const Index stride = set_step(step, true);
    apply_step(queue_, state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, ket);
    const bool wants_matrix = wants(step.input);
    const bool is_rotation = step.kind == StepKind::pauli_rotation;
    if (wants_matrix || wants(step.values)) {
      if (is_rotation)
        apply_step(queue_, state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, bra_);
      sum_overlaps(step, ket);
      set_step_sources(queue_, state_call(), step, static_cast<const Complex<double>*>(sums_.data), single_);
      if (wants_matrix)
        add_matrix_gradient(queue_, state_call(), step, inputs_[step.input].batched != 0,
                            static_cast<const Complex<double>*>(sums_.data));
      if (is_rotation) return;
    }
    apply_step(queue_, state_call(), step, static_cast<const Complex<T>*>(coefficients_), stride, bra_);
  }

  void sum_overlaps(const GateStep& step, const Complex<T>* ket) {
    const Index count = overlap_count(step);
    if (step.kind == StepKind::pauli_rotation) {
      grown(sums_, samples_.count);
      Complex<double>* scratch = grown(sum_scratch_, sum_scratch_count(step.groups.size(), 1, samples_.count));
      return sum_rotation(queue_, state_call(), step, static_cast<const Complex<T>*>(bra_), ket, sums_.data, scratch);
    }
    const auto kind = step.kind == StepKind::diagonal ? Entries::Kind::diagonal : Entries::Kind::all;
    sum_groups(step.groups, Offsets::of(step.offsets), {kind, count, {}, {}}, bra_, ket);
  }

  Device& device_;
  const Queue& queue_;
  const DeviceCall<T>& call_;
  const Tables& tables_;
  const Index dimension_;
  const bool whole_;  // one tile holds a state

  std::vector<Input<T>> inputs_;
  Input<T>* device_inputs_ = nullptr;
  Cotangents<T> cotangents_;
  Index chunk_ = 1;
  Samples samples_;
  Rotation<T>* rotations_ = nullptr;
  PhaseAngle<T>* phases_ = nullptr;
  Complex<T>* ket_ = nullptr;           // of this chunk; null where it is not in memory of ours
  const Complex<T>* source_ = nullptr;  // where the way back reads the ket
  Complex<T>* bra_ = nullptr;
  Complex<T>* own_ket_ = nullptr;
  Complex<T>* first_scratch_ = nullptr;
  Complex<T>* second_scratch_ = nullptr;
  Complex<T>* third_scratch_ = nullptr;
  Complex<T>* coefficients_ = nullptr;
  Index coefficient_capacity_ = 0;
  double* words_ = nullptr;
  Index word_pieces_ = 0;
  T* word_weights_ = nullptr;
  bool bra_in_launch_ = false;
  double* weights_[2] = {};
  double* mean_ = nullptr;
  double* overlap_ = nullptr;
  Numbers sums_;
  Numbers sum_scratch_;
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

// The walk with tangents: ket and bra, and their derivatives along one direction of the inputs, go through the circuit
// together. Forward that gives the derivatives of results, and back those of gradients (forward over reverse): a
// Hessian-vector product in four states. Included by walk.inl after GroupWalk.
//
// A turn U = exp(-i angle/2 P) takes (psi, dpsi) to (U psi, U dpsi + dangle/2 (-i P) U psi), and overlaps have the product
// rule: d Im<bra|P|ket> = Im<dbra|P|ket> + Im<bra|P|dket>. So states and tangents go by the kernels of the plain walk, the
// bra's tangent with the ket and the ket's with the bra, and what is added here are the generators.

// --- generators -------------------------------------------------------------------------------------------------------

// tangent += sum_j w_j (-i P_j) state over the groups of a block that trades rows only; w stands where angles have b.
template <int k, class T>
void generate_rows(const T* state, T* tangent, const TurnBlock& block, const Angles<T>& weights, Index groups) {
  const GroupOffsets<k, T> offsets(block);
  const LocalAngles<k, T> local(weights);
  for_each_index(block.groups, 0, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    Row<T> x[1 << k];
    Row<T> d[1 << k];
    for (int m = 0; m < 1 << k; ++m) {
      x[m] = load_row(state + (base ^ offsets.at[m]));
      d[m] = load_row(tangent + (base ^ offsets.at[m]));
    }
    for (int j = 0; j < k; ++j) {
      for (int m = 0; m < 1 << k; ++m) {
        if ((m >> j) & 1) continue;
        d[m] -= local.b[j] * x[m | 1 << j];
        d[m | 1 << j] += local.b[j] * x[m];
      }
    }
    for (int m = 0; m < 1 << k; ++m) store_row(tangent + (base ^ offsets.at[m]), d[m]);
  });
}

// And where lanes are traded.
template <int k, bool in_rows, class T>
void generate_lanes(const T* state, T* tangent, const TurnBlock& block, const Angles<T>& weights, Index groups) {
  const LaneBlock<k, in_rows, T> local(block, weights);
  for_each_index(block.groups, 0, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    Row<T> x[local.rows];
    for (int m = 0; m < local.rows; ++m) x[m] = load_row(state + (base ^ local.at[m]));
    for (int m = 0; m < local.rows; ++m) {
      Row<T> d = load_row(tangent + (base ^ local.at[m]));
      for (int j = 0; j < k; ++j) {
        const Row<T>& factor = local.b[j][(local.signs(group, j) >> m) & 1];
        d += factor * trade_lanes_by(x[local.partner(m, j)], local.lane_flip[j]);
      }
      store_row(tangent + (base ^ local.at[m]), d);
    }
  });
}

template <class T>
void generate_turns(const T* state, T* tangent, const TurnBlock& block, const Angles<T>& weights, Index groups) {
  with_shape(block.turns.size(), false, [&](auto k, auto) {
    if (!block.trades_lanes()) return generate_rows<k>(state, tangent, block, weights, groups);
    if (block.stays_in_rows()) return generate_lanes<k, true>(state, tangent, block, weights, groups);
    generate_lanes<k, false>(state, tangent, block, weights, groups);
  });
}

// tangent -= i f state, f(r) being a real function of the rows' numbers.
template <class Cell, class F>
void generate_phases(const typename Cell::Real* state, typename Cell::Real* tangent, const F& function,
                     const IndexMap& rows, Index end) {
  for_each_group<1>(rows, end, [&](Index r, const Index* row) KETGRAD_ALWAYS_INLINE {
    const Cell turned = Cell::load(state, *row).times_i().times(function(r));
    Cell::load(tangent, *row).plus(turned.times(Row<typename Cell::Real>{} - 1)).store(tangent, *row);
  });
}

// --- passes -----------------------------------------------------------------------------------------------------------

template <class V>
class TangentRunner : public PassRunner<V> {
  using Base = PassRunner<V>;
  using T = Scalar<V>;
  using typename Base::Cell;
  using typename Base::Numbers;
  using typename Base::Sums;

 public:
  TangentRunner(const Call<T>& call, const Plan& plan, bool inverse, TileRunner<V>& tiles)
      : Base(call, plan, inverse, tiles),
        first_weight_(this->numbers_.size(), -1),
        shared_functions_(Base::single ? 0 : this->numbers_.size()) {}

  void start(const SampleGroup& group) {
    const bool is_known = this->started_ && !this->some_own_;
    Base::start(group);
    if (is_known) return;
    weights_.clear();
    std::size_t at = 0;
    for (const Pass& pass : this->plan_.passes) {
      for (const Operation& op : pass.operations) first_weight_[at++] = add_weights(op);
    }
  }

  void forward(int index, T* state, T* tangent) {
    const Pass& pass = this->plan_.passes[index];
    this->tiles_.for_each(pass, tiles_to_visit(pass), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
      const Mask base = static_cast<Mask>(pass.tiles[tile]);
      T* rows = this->tiles_.gather(pass, base, state, work.ket);
      T* tangents = this->tiles_.gather(pass, base, tangent, work.ket_tangent);
      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
        if (pass.tiles.size() == 1 && this->tiles_.should_stop()) return;
        const int at = this->first_operation_[index] + static_cast<int>(k);
        apply(pass.operations[k], at, pass, base, rows, tangents, work);
      }
      this->tiles_.scatter(pass, base, rows, state);
      this->tiles_.scatter(pass, base, tangents, tangent);
    });
  }

  struct States {
    T* ket;
    T* ket_tangent;
    T* bra;
    T* bra_tangent;
  };

  // Adds to overlaps[turn][lane] the derivative of what the plain walk adds.
  void backward(int index, const States& states, bool last, const std::vector<char>& wanted,
                std::vector<double>& overlaps) {
    constexpr int width = Base::width;
    const Pass& pass = this->plan_.passes[index];
    this->turns_.clear();
    for (const Operation& op : pass.operations) Base::append_turns(op, this->turns_);
    this->sums_.assign(this->turns_.size() * width, 0.0);
    const Index size = static_cast<Index>(this->sums_.size());
    this->tiles_.for_each(
        pass, tiles_to_visit(pass), size, this->sums_.data(), [&](Index tile, Workspace<V>& work, double* sums) {
          const Mask base = static_cast<Mask>(pass.tiles[tile]);
          const States rows{this->tiles_.gather(pass, base, states.ket, work.ket),
                            this->tiles_.gather(pass, base, states.ket_tangent, work.ket_tangent),
                            this->tiles_.gather(pass, base, states.bra, work.bra),
                            this->tiles_.gather(pass, base, states.bra_tangent, work.bra_tangent)};
          double* at = sums + size;
          for (int k = static_cast<int>(pass.operations.size()) - 1; k >= 0; --k) {
            if (pass.tiles.size() == 1 && this->tiles_.should_stop()) return;
            at -= Base::turn_count(pass.operations[k]) * width;
            undo(pass.operations[k], this->first_operation_[index] + k, pass, base, rows, work, wanted, at);
          }
          if (last) return;
          this->tiles_.scatter(pass, base, rows.ket, states.ket);
          this->tiles_.scatter(pass, base, rows.ket_tangent, states.ket_tangent);
          this->tiles_.scatter(pass, base, rows.bra, states.bra);
          this->tiles_.scatter(pass, base, rows.bra_tangent, states.bra_tangent);
        });
    for (std::size_t j = 0; j < this->turns_.size(); ++j) {
      for (int l = 0; l < width; ++l) overlaps[this->turns_[j] * width + l] += this->sums_[j * width + l];
    }
  }

 private:
  Index tiles_to_visit(const Pass& pass) const { return this->some_nan_ ? pass.tiles.size() : pass.active_tiles; }

  // --- what the generators are weighted with: half the angles' derivatives -------------------------------------------

  bool moves(int turn) const { return this->call_.moves(this->plan_.turns[turn].angle.input); }

  Row<T> weight(int turn, double sign) const {
    const Slot& slot = this->plan_.turns[turn].angle;
    Row<T> w{};
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const double tangent = this->call_.tangent(slot, this->group_.sample(Base::single ? 0 : l));
      w[l] = static_cast<T>(0.5 * sign * (this->inverse_ ? -tangent : tangent));
    }
    return w;
  }

  // One weight a turn of a block, one a string of phases. Returns where they begin, -1 where nothing moves.
  int add_weights(const Operation& op) {
    std::vector<int> turns;
    Base::append_turns(op, turns);
    if (std::none_of(turns.begin(), turns.end(), [&](int t) { return moves(t); })) return -1;
    const int first = static_cast<int>(weights_.size());
    if (const auto* block = std::get_if<TurnBlock>(&op)) {
      for (std::size_t j = 0; j < block->turns.size(); ++j) {
        const int t = block->turns[j];
        const Row<T> w = weight(t, Base::sign_of(this->plan_.turns[t].word));
        weights_.push_back(Base::single ? w * lane_signs<T>(block->lane_sign[j]) : w);
      }
      return first;
    }
    for (const PhaseString& s : std::get<Phases>(op).strings) {
      Row<T> total{};
      for (const int t : s.turns) {
        if (moves(t)) total += weight(t, this->plan_.turns[t].word.negative != s.negative ? -1 : 1);
      }
      weights_.push_back(total);
    }
    return first;
  }

  Angles<T> weights_in_tile(const TurnBlock& block, int first, Mask base) const {
    Angles<T> weights{};
    for (std::size_t j = 0; j < block.turns.size(); ++j) {
      const Row<T>& w = weights_[first + j];
      weights.b[j] = odd_parity(block.tile_sign[j] & base) ? -w : w;
    }
    return weights;
  }

  // sum over strings of weight (-1)^parity, at every row.
  const Row<T>* phase_function(const Phases& phases, int first, Mask base, Index rows, Workspace<V>& work) const {
    work.products.assign(Sums::vectors(rows), Row<T>{});
    for (std::size_t j = 0; j < phases.strings.size(); ++j) {
      const PhaseString& s = phases.strings[j];
      const Mask place = Sums::place(s.row_mask & static_cast<Mask>(rows - 1), s.lane_mask);
      const Row<T> w = weights_[first + j] * Sums::signs(place);
      work.products[Sums::vector(place)] += odd_parity(s.tile_mask & base) ? -w : w;
    }
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    return work.products.data();
  }

  // Calls f with that function, if anything moves. Where all lanes share it, it is made once, of numbers.
  template <class F>
  void with_phase_function(const Phases& phases, int at, Mask base, Index rows, Workspace<V>& work, const F& f) const {
    const int first = first_weight_[at];
    if (first < 0) return;
    if constexpr (!Base::single) {
      if (!this->numbers_[at].own && this->keeps_tables()) {
        LaneVector<T>& function = shared_functions_[at];
        if (static_cast<Index>(function.size()) != rows) fill_function(phases, first, rows, function);
        return f([&](Index r) { return Row<T>{} + function[r]; });
      }
    }
    const Row<T>* function = phase_function(phases, first, base, rows, work);
    f([&](Index r) { return Sums::function_at(function, r); });
  }

  void fill_function(const Phases& phases, int first, Index rows, LaneVector<T>& function) const {
    function.assign(rows, T(0));
    for (std::size_t j = 0; j < phases.strings.size(); ++j)
      function[phases.strings[j].row_mask & static_cast<Mask>(rows - 1)] += weights_[first + j][0];
    hadamard(function.data(), rows);
  }

  // --- a tile --------------------------------------------------------------------------------------------------------

  void apply(const Operation& op, int at, const Pass& pass, Mask base, T* rows, T* tangents, Workspace<V>& work) const {
    const Numbers& n = this->numbers_[at];
    if (const auto* block = std::get_if<TurnBlock>(&op)) {
      const Angles<T> angles = this->angles_in_tile(*block, n, base);
      const Index groups = this->groups_to_visit(*block);
      apply_turns(rows, *block, angles, groups);
      apply_turns(tangents, *block, angles, groups);
      generate(*block, at, base, rows, tangents);
      return;
    }
    const Phases& phases = std::get<Phases>(op);
    const Index visited = this->rows_to_visit(phases);
    this->for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      apply_phases<Cell>(rows, table, phases.rows, visited);
      apply_phases<Cell>(tangents, table, phases.rows, visited);
    });
    with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows, tangents, function, phases.rows, visited);
    });
  }

  void generate(const TurnBlock& block, int at, Mask base, const T* rows, T* tangents) const {
    if (first_weight_[at] < 0) return;
    generate_turns(rows, tangents, block, weights_in_tile(block, first_weight_[at], base),
                   this->groups_to_visit(block));
  }

  void undo(const Operation& op, int at, const Pass& pass, Mask base, const States& rows, Workspace<V>& work,
            const std::vector<char>& wanted, double* sums) const {
    if (const auto* block = std::get_if<TurnBlock>(&op)) return undo_block(*block, at, base, rows, wanted, sums);
    undo_phases_of(std::get<Phases>(op), at, pass, base, rows, work, wanted, sums);
  }

  void undo_block(const TurnBlock& block, int at, Mask base, const States& rows, const std::vector<char>& wanted,
                  double* sums) const {
    const Numbers& n = this->numbers_[at];
    const Angles<T> angles = this->angles_in_tile(block, n, base);
    const Index groups = this->groups_to_visit(block);
    const bool any = std::any_of(block.turns.begin(), block.turns.end(), [&](int t) { return wanted[t] != 0; });
    if (any) {
      Row<T> found[TurnBlock::most] = {};
      undo_turns<true>(rows.ket, rows.bra_tangent, block, angles, groups, found);
      undo_turns<true>(rows.ket_tangent, rows.bra, block, angles, groups, found);
      this->add_block_sums(block, n, base, found, sums);
    } else {
      undo_turns<false>(rows.ket, rows.bra_tangent, block, angles, groups, static_cast<Row<T>*>(nullptr));
      undo_turns<false>(rows.ket_tangent, rows.bra, block, angles, groups, static_cast<Row<T>*>(nullptr));
    }
    generate(block, at, base, rows.ket, rows.ket_tangent);
    generate(block, at, base, rows.bra, rows.bra_tangent);
  }

  void undo_phases_of(const Phases& phases, int at, const Pass& pass, Mask base, const States& rows, Workspace<V>& work,
                      const std::vector<char>& wanted, double* sums) const {
    const Numbers& n = this->numbers_[at];
    const bool any = Base::wants_any(phases, wanted);
    const Index visited = this->rows_to_visit(phases);
    const Index products = visited / Cell::packed_together;
    if (any) {
      work.products.resize(products);
      work.more_products.resize(products);
    }
    bool left = any;
    this->for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      Row<T>* first = work.products.data();
      Row<T>* second = work.more_products.data();
      if (std::exchange(left, false)) {
        undo_phases<Cell, true>(rows.ket, rows.bra_tangent, table, phases.rows, visited, first);
        undo_phases<Cell, true>(rows.ket_tangent, rows.bra, table, phases.rows, visited, second);
      } else {
        undo_phases<Cell, false>(rows.ket, rows.bra_tangent, table, phases.rows, visited, first);
        undo_phases<Cell, false>(rows.ket_tangent, rows.bra, table, phases.rows, visited, second);
      }
    });
    if (any) {
      for (Index i = 0; i < products; ++i) work.products[i] += work.more_products[i];
      this->add_phase_sums(phases, n, base, visited, work, sums);
    }
    with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows.ket, rows.ket_tangent, function, phases.rows, visited);
      generate_phases<Cell>(rows.bra, rows.bra_tangent, function, phases.rows, visited);
    });
  }

  std::vector<int> first_weight_;  // per operation
  LaneVector<Row<T>> weights_;
  mutable std::vector<LaneVector<T>> shared_functions_;  // per operation, of what lanes share
};

// --- steps ------------------------------------------------------------------------------------------------------------

// out += d in on the diagonals of the groups.
template <class V>
void add_diagonal(V* out, const V* in, const IndexMap& groups, const std::vector<Index>& offsets, const V* d,
                  Index begin, Index end) {
  for (Index r = begin; r < end; ++r) {
    const Index base = groups[r];
    for (std::size_t a = 0; a < offsets.size(); ++a) {
      const Index i = base ^ offsets[a];
      out[2 * i] += d[2 * a] * in[2 * i] - d[2 * a + 1] * in[2 * i + 1];
      out[2 * i + 1] += d[2 * a] * in[2 * i + 1] + d[2 * a + 1] * in[2 * i];
    }
  }
}

// Calls f(i, re, im) with (-i P in)_i for the amplitudes of the groups.
template <class V, class F>
void for_each_rotated(const V* in, const IndexMap& groups, const PauliWord& word, Index begin, Index end, const F& f) {
  const RotationPhase phase(word);
  const auto at = [&](Index i) {
    const Index j = i ^ static_cast<Index>(word.x);
    V re, im;
    rotated(in + 2 * j, phase, odd_parity(static_cast<Mask>(j) & word.z), re, im);
    f(i, re, im);
  };
  for (Index r = begin; r < end; ++r) {
    at(groups[r]);
    if (word.x != 0) at(groups[r] ^ static_cast<Index>(word.x));
  }
}

// --- the walk ---------------------------------------------------------------------------------------------------------

template <class V>
class TangentWalk : public GroupWalk<V> {
  using Base = GroupWalk<V>;
  using T = Scalar<V>;
  using Base::call_;
  using Base::count_;
  using Base::dimension_;
  using Base::gradients_;
  using Base::lambda_;
  using Base::plan_;
  using Base::program_;
  using Base::psi_;
  using Base::team_;
  static constexpr int width = lane_width<V>;

 public:
  TangentWalk(const Call<T>& call, const Plan& plan, const SharedSteps<T>& shared, const Task& task)
      : Base(call, plan, shared, task),
        third_scratch_(call.extent().needs_scratch ? 2 * dimension_ : 0),
        fourth_scratch_(call.extent().needs_scratch ? 2 * dimension_ : 0) {}

  void run(const Task& task, const Directional<T>& directional, TaskGradients<T>& gradients) {
    const bool goes_back = directional.wants_gradients();
    const Buffer<V> ket(2 * dimension_);
    const Buffer<V> ket_tangent(2 * dimension_);
    const Buffer<V> bra(goes_back ? 2 * dimension_ : 0);
    const Buffer<V> bra_tangent(goes_back ? 2 * dimension_ : 0);
    psi_ = ket.data();
    dpsi_ = ket_tangent.data();
    lambda_ = bra.data();
    dlambda_ = bra_tangent.data();
    gradients_ = &gradients;
    for (Index sample = task.begin; sample < task.end; sample += width) {
      this->start_group(sample, task.end);
      if (!run_circuit()) return;
      measure(directional.results);
      if (!goes_back) continue;
      add_bras(directional);
      if (!undo_circuit()) return;
      if (this->wants(program_.initial.input)) initial_state_gradient();
    }
  }

 private:
  // --- circuit -------------------------------------------------------------------------------------------------------

  TangentRunner<V>& started(std::optional<TangentRunner<V>>& turns, bool inverse) {
    if (!turns) turns.emplace(call_, plan_, inverse, this->tiles_);
    turns->start(this->group_);
    return *turns;
  }

  const V* tangent_lanes(int input) { return this->input_lanes(call_.tangents[input]); }

  bool run_circuit() {
    this->prepare();
    this->fill_zero(dpsi_);
    if (const int input = program_.initial.input; call_.moves(input))
      store_group(dpsi_, 0, plan_.initial_offsets, plan_.initial_offsets.size(), tangent_lanes(input));
    TangentRunner<V>& turns = started(forward_turns_, false);
    for (std::size_t p = 0; p < plan_.passes.size(); ++p) {
      if (call_.should_stop()) return false;
      const int s = plan_.passes[p].step;
      if (s == Element::none) {
        turns.forward(static_cast<int>(p), this->numbers(psi_), this->numbers(dpsi_));
      } else {
        run_step(s, Way::forward, psi_, dpsi_);
      }
    }
    return true;
  }

  bool undo_circuit() {
    TangentRunner<V>& turns = started(backward_turns_, true);
    this->find_wanted_turns();
    this->turn_overlaps_.assign(plan_.turns.size() * width, 0.0);
    const bool start_wanted = this->wants(program_.initial.input);
    const typename TangentRunner<V>::States states{this->numbers(psi_), this->numbers(dpsi_), this->numbers(lambda_),
                                                   this->numbers(dlambda_)};
    for (int p = static_cast<int>(plan_.passes.size()) - 1; p >= gradients_->first_pass; --p) {
      if (call_.should_stop()) return false;
      const int s = plan_.passes[p].step;
      if (s == Element::none) {
        const bool last = p == gradients_->first_pass && !start_wanted;
        turns.backward(p, states, last, this->wanted_turns_, this->turn_overlaps_);
      } else {
        undo_step(s);
      }
    }
    this->collect_turn_overlaps();
    return true;
  }

  // 2 lambda is the gradient of a prepared state, and the derivative of the one that of the other.
  void initial_state_gradient() {
    std::swap(lambda_, dlambda_);
    Base::initial_state_gradient();
    std::swap(lambda_, dlambda_);
  }

  // --- steps ---------------------------------------------------------------------------------------------------------

  enum class Way : std::uint8_t { forward, ket_back, bra_back };

  // state' = V state, tangent' = V tangent + dV state, where V is the step's matrix, its inverse or its adjoint.
  void run_step(int index, Way way, V* state, V* tangent) {
    const Step& step = plan_.steps[index];
    apply_step(index, way != Way::forward, tangent);
    if (call_.moves(step)) add_step(step, step_tangent_lanes(step, way), tangent, state);
    apply_step(index, way != Way::forward, state);
  }

  void apply_step(int index, bool inverse, V* state) {
    const Step& step = plan_.steps[index];
    const auto& numbers = inverse ? this->shared_.inverse : this->shared_.forward;
    if (call_.shared(step)) return this->apply(state, step, numbers[index].data());
    this->apply(state, step, this->own_coefficients(step, inverse));
  }

  // The ket is undone by the inverse of a matrix, the bra by its adjoint. For a unitary they are the same, but not their
  // derivatives along a direction that leaves the unitary ones.
  const V* step_tangent_lanes(const Step& step, Way way) {
    const Index n = coefficient_count(step);
    std::vector<double> coefficients(n);
    std::vector<double> tangents(n);
    slopes_.resize(n);
    for (int l = 0; l < width; ++l) {
      step_tangents(call_, step, this->sample(l), tangents.data());
      if (way == Way::ket_back) {
        step_coefficients(call_, step, this->sample(l), coefficients.data());
        invert_tangents(step, coefficients.data(), tangents.data());
      } else if (way == Way::bra_back) {
        invert_coefficients(step, tangents.data());
      }
      for (Index e = 0; e < n; ++e) set_lane(slopes_[e], l, static_cast<T>(tangents[e]));
    }
    return slopes_.data();
  }

  // out += (the step with other coefficients) in
  void add_step(const Step& step, const V* c, V* out, const V* in) const {
    team_.for_range(step.groups.size(), [&](Index begin, Index end) {
      switch (step.kind) {
        case StepKind::exchange: return;
        case StepKind::dense: return add_large_block(out, in, step.groups, step.offsets, step.size(), c, begin, end);
        case StepKind::diagonal: return add_diagonal(out, in, step.groups, step.offsets, c, begin, end);
        case StepKind::pauli_rotation:
          return for_each_rotated(in, step.groups, step.word, begin, end, [&](Index i, const V& re, const V& im) {
            out[2 * i] += c[0] * in[2 * i] + c[1] * re;
            out[2 * i + 1] += c[0] * in[2 * i + 1] + c[1] * im;
          });
      }
    });
  }

  // Adds the overlaps of a step, as GradientSink::contract takes them.
  void add_overlaps(const Step& step, const V* bra, const V* ket, std::vector<double>& overlaps) const {
    team_.template reduce<V>(
        step.groups.size(), overlap_count(step), overlaps.data(), [&](Index begin, Index end, V* w) {
          if (step.kind == StepKind::pauli_rotation) {
            return for_each_rotated(ket, step.groups, step.word, begin, end, [&](Index i, const V& re, const V& im) {
              w[0] += bra[2 * i] * re + bra[2 * i + 1] * im;
            });
          }
          add_block_overlaps(step, bra, ket, begin, end, w);
        });
  }

  static void add_block_overlaps(const Step& step, const V* bra, const V* ket, Index begin, Index end, V* w) {
    const Index size = step.size();
    LaneVector<V> bra_group(2 * size);
    LaneVector<V> ket_group(2 * size);
    for (Index r = begin; r < end; ++r) {
      load_group(bra, step.groups[r], step.offsets, size, bra_group.data());
      load_group(ket, step.groups[r], step.offsets, size, ket_group.data());
      if (step.kind == StepKind::dense) {
        add_outer(bra_group.data(), ket_group.data(), size, w);
      } else {
        for (Index a = 0; a < size; ++a) add_outer(bra_group.data() + 2 * a, ket_group.data() + 2 * a, 1, w + 2 * a);
      }
    }
  }

  // A block's overlaps are of the bra behind it and the ket before it, a rotation's of both at the same place.
  void undo_step(int index) {
    const Step& step = plan_.steps[index];
    const bool wanted = gradients_->sink->wants(step);
    const Index n = wanted ? overlap_count(step) : 0;
    std::vector<double> overlaps(n * width, 0.0);
    std::vector<double> tangents(n * width, 0.0);
    const auto take_overlaps = [&] {
      if (!wanted) return;
      add_overlaps(step, lambda_, psi_, overlaps);
      add_overlaps(step, dlambda_, psi_, tangents);
      add_overlaps(step, lambda_, dpsi_, tangents);
    };
    const bool is_rotation = step.kind == StepKind::pauli_rotation;
    if (is_rotation) take_overlaps();
    run_step(index, Way::ket_back, psi_, dpsi_);
    if (!is_rotation) take_overlaps();
    run_step(index, Way::bra_back, lambda_, dlambda_);
    if (!wanted) return;
    std::vector<double> of_lane(n);
    std::vector<double> tangent_of_lane(n);
    for (int l = 0; l < count_; ++l) {
      for (Index e = 0; e < n; ++e) {
        of_lane[e] = overlaps[e * width + l];
        tangent_of_lane[e] = tangents[e * width + l];
      }
      gradients_->sink->contract_tangent(step, of_lane.data(), tangent_of_lane.data(), this->sample(l));
    }
  }

  // --- observables ---------------------------------------------------------------------------------------------------

  // A term's coefficient, without one of its slots, and the derivative.
  Dual coefficient(const Term& term, Index sample, std::size_t left_out) const {
    Dual c = term.scale;
    for (std::size_t j = 0; j < term.coefficients.size(); ++j) {
      const Slot& s = term.coefficients[j];
      if (j != left_out) c = c * Dual(call_.value(s, sample), call_.tangent(s, sample));
    }
    return c;
  }

  Dual coefficient(const Term& term, Index sample) const { return coefficient(term, sample, term.coefficients.size()); }

  static bool moves(const Call<T>& call, const Term& term) {
    for (const Slot& s : term.coefficients) {
      if (call.moves(s.input)) return true;
    }
    return false;
  }

  // state = dF state. Of a matrix that is Hermitian, the Hermitian part of a direction is what results depend on.
  void apply_factor_tangent(V* state, const PlannedFactor& f) {
    const Index size = f.offsets.size();
    const Index numbers = 2 * call_.inputs[f.factor->input].numel;
    const V* lanes = tangent_lanes(f.factor->input);
    const LaneVector<V> slopes(lanes, lanes + numbers);
    switch (f.factor->kind) {
      case FactorKind::projector: return;
      case FactorKind::hermitian:
        make_hermitian(this->values_.data(), size);
        return team_.for_range(f.groups.size(), [&](Index begin, Index end) {
          apply_large_block(state, f.groups, f.offsets, size, this->values_.data(), begin, end);
        });
      case FactorKind::sparse:
        return team_.for_range(f.groups.size(), [&](Index begin, Index end) {
          apply_sparse_hermitian(state, f, slopes.data(), begin, end);
        });
      case FactorKind::state_projector: {
        const V* phi = this->input_lanes(f.factor->input);
        return team_.for_range(f.groups.size(), [&](Index begin, Index end) {
          project_on_tangent(state, f, phi, slopes.data(), begin, end);
        });
      }
    }
  }

  // Calls f(W in) for each way to take one of a term's factors, other than `left_out`, by its derivative.
  template <class F>
  void for_each_term_tangent(const V* in, const PlannedTerm& term, const PlannedFactor* left_out, const F& f) {
    for (const PlannedFactor& moving : term.factors) {
      if (&moving == left_out || !call_.moves(moving.factor->input)) continue;
      V* out = fourth_scratch_.data();
      team_.for_range(dimension_, [&](Index begin, Index end) { write_pauli(out, in, term.word, begin, end); });
      for (const PlannedFactor& factor : term.factors) {
        if (&factor == &moving) {
          apply_factor_tangent(out, factor);
        } else if (&factor != left_out) {
          this->apply_factor(out, factor);
        }
      }
      f(static_cast<const V*>(out));
    }
  }

  // out += weight(lane) dO in
  template <class F>
  void add_observable_tangent(V* out, const V* in, const PlannedMeasurement& m, const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      if (moves(call_, *t.term)) {
        const V c = this->lanes([&](int l) { return weight(l) * coefficient(*t.term, this->sample(l)).slope; });
        V* scratch = this->second_scratch_.data();
        this->write_term(scratch, in, t);
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, scratch, c, begin, end); });
      }
      const V c = this->lanes([&](int l) { return weight(l) * coefficient(*t.term, this->sample(l)).value; });
      for_each_term_tangent(in, t, nullptr, [&](const V* w) {
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, w, c, begin, end); });
      });
    }
  }

  static double one(int) { return 1; }

  // v = O psi in the first scratch, dv = O dpsi + dO psi in the third.
  void apply_observable(const PlannedMeasurement& m) {
    this->applied_observable(m);
    V* dv = third_scratch_.data();
    this->fill_zero(dv);
    this->add_observable(dv, dpsi_, m, one);
    add_observable_tangent(dv, psi_, m, one);
  }

  // --- derivatives of results ----------------------------------------------------------------------------------------

  void measure(const Results<T>& results) {
    measure_words(results);
    for (const PlannedMeasurement& m : plan_.measurements) {
      switch (m.measurement->kind) {
        case MeasurementKind::expval: measure_expval(m, results); break;
        case MeasurementKind::var: measure_var(m, results); break;
        case MeasurementKind::probs: measure_probs(m, results); break;
        case MeasurementKind::state: measure_state(m, results); break;
        case MeasurementKind::density_matrix: measure_density_matrix(m, results); break;
      }
    }
  }

  // <psi|P|psi> of each word, where that is needed, and 2 Re<psi|P|dpsi>.
  void find_word_overlaps() {
    this->words_.overlaps(this->numbers(psi_), this->numbers(dpsi_), word_tangents_);
    for (double& overlap : word_tangents_) overlap *= 2;
    this->words_.overlaps(this->numbers(psi_), this->numbers(psi_), this->word_numbers_);
  }

  void measure_words(const Results<T>& results) {
    if (this->words_.count() > 0) find_word_overlaps();
    std::vector<double>& totals = this->overlaps_;
    totals.assign(this->real_stride() * width, 0.0);
    this->words_.for_each_member([&](const WordGroup::Member& m, Index at) {
      for (int l = 0; l < count_; ++l) {
        const Dual c = coefficient(*m.term, this->sample(l));
        totals[m.result * width + l] +=
            c.value * word_tangents_[at * width + l] + c.slope * this->word_numbers_[at * width + l];
      }
    });
    for (const PlannedMeasurement& m : plan_.measurements) {
      if (m.measurement->kind != MeasurementKind::expval) continue;
      for (int l = 0; l < count_; ++l)
        *this->real_row(results, m, l) = static_cast<T>(totals[m.first_result * width + l]);
    }
  }

  // d<O> = 2 Re<O psi|dpsi> + Re<psi|dO|psi> = Re<O psi|dpsi> + Re<psi|dv>
  void measure_expval(const PlannedMeasurement& m, const Results<T>& results) {
    if (m.terms.empty()) return;
    apply_observable(m);
    double slope[width] = {};
    this->real_overlap(this->first_scratch_.data(), dpsi_, slope);
    this->real_overlap(psi_, third_scratch_.data(), slope);
    for (int l = 0; l < count_; ++l) *this->real_row(results, m, l) += static_cast<T>(slope[l]);
  }

  // <O> and its derivative, of v and dv in the scratches.
  void find_mean(double* mean, double* slope) {
    this->real_overlap(psi_, this->first_scratch_.data(), mean);
    this->real_overlap(dpsi_, this->first_scratch_.data(), slope);
    this->real_overlap(psi_, third_scratch_.data(), slope);
  }

  // d(<O O> - <O>^2) = 2 Re<v|dv> - 2 <O> d<O>
  void measure_var(const PlannedMeasurement& m, const Results<T>& results) {
    apply_observable(m);
    double mean[width] = {};
    double slope[width] = {};
    double square[width] = {};
    find_mean(mean, slope);
    this->real_overlap(this->first_scratch_.data(), third_scratch_.data(), square);
    for (int l = 0; l < count_; ++l)
      *this->real_row(results, m, l) = static_cast<T>(2 * square[l] - 2 * mean[l] * slope[l]);
  }

  void measure_probs(const PlannedMeasurement& m, const Results<T>& results) {
    const Index size = m.offsets.size();
    team_.for_range(size, [&](Index begin, Index end) {
      for (Index a = begin; a < end; ++a) {
        V p{};
        add_probability(psi_, dpsi_, m.groups, m.offsets[a], p);
        for (int l = 0; l < count_; ++l) this->real_row(results, m, l)[a] = 2 * get_lane(p, l);
      }
    });
  }

  void measure_state(const PlannedMeasurement& m, const Results<T>& results) {
    V* const ket = std::exchange(psi_, dpsi_);
    Base::measure_state(m, results);
    psi_ = ket;
  }

  void measure_density_matrix(const PlannedMeasurement& m, const Results<T>& results) {
    const Index entries = m.offsets.size() * m.offsets.size();
    this->overlaps_.assign(2 * entries * width, 0.0);
    team_.template reduce<V>(m.groups.size(), 2 * entries, this->overlaps_.data(), [&](Index begin, Index end, V* rho) {
      matrix_gradient(psi_, dpsi_, m.groups, m.offsets, begin, end, rho);
      matrix_gradient(dpsi_, psi_, m.groups, m.offsets, begin, end, rho);
    });
    for (int l = 0; l < count_; ++l) {
      T* row = results.complex + 2 * (this->sample(l) * this->complex_stride() + m.first_result);
      for (Index e = 0; e < 2 * entries; ++e) row[e] = static_cast<T>(this->overlaps_[e * width + l]);
    }
  }

  // --- bras: lambda, and its derivative ------------------------------------------------------------------------------

  void add_bras(const Directional<T>& directional) {
    const Cotangents<T>& c = directional.cotangents;
    const Cotangents<T> dc = directional.cotangents_tangent();
    add_words_bras(c, dc);
    for (const PlannedMeasurement& m : plan_.measurements) {
      switch (m.measurement->kind) {
        case MeasurementKind::expval: add_expval_bras(m, c, dc); break;
        case MeasurementKind::var: add_var_bras(m, c, dc); break;
        case MeasurementKind::probs:
          this->add_probs_bra(lambda_, psi_, m, c);
          this->add_probs_bra(dlambda_, dpsi_, m, c);
          if (dc.real != nullptr) this->add_probs_bra(dlambda_, psi_, m, dc);
          break;
        case MeasurementKind::state:
          this->add_state_bra(lambda_, m, c);
          if (dc.complex != nullptr) this->add_state_bra(dlambda_, m, dc);
          break;
        case MeasurementKind::density_matrix:
          this->add_density_matrix_bra(lambda_, psi_, m, c);
          this->add_density_matrix_bra(dlambda_, dpsi_, m, c);
          if (dc.complex != nullptr) this->add_density_matrix_bra(dlambda_, psi_, m, dc);
          break;
      }
    }
  }

  Dual cotangent(const Cotangents<T>& c, const Cotangents<T>& dc, Index result, int lane) const {
    const Index at = this->sample(lane) * this->real_stride() + result;
    return {static_cast<double>(c.real[at]), dc.real == nullptr ? 0 : static_cast<double>(dc.real[at])};
  }

  void add_words_bras(const Cotangents<T>& c, const Cotangents<T>& dc) {
    if (this->words_.count() == 0) {
      this->fill_zero(lambda_);
      return this->fill_zero(dlambda_);
    }
    std::vector<double> weights(this->words_.count() * width, 0.0);
    std::vector<double> slopes(weights.size(), 0.0);
    bool some_slope = dc.real != nullptr;
    bool wanted = false;
    this->words_.for_each_member([&](const WordGroup::Member& m, Index at) {
      some_slope |= moves(call_, *m.term);
      for (const Slot& s : m.term->coefficients) wanted |= this->wants(s.input);
      for (int l = 0; l < count_; ++l) {
        const Dual weight = cotangent(c, dc, m.result, l) * coefficient(*m.term, this->sample(l));
        weights[at * width + l] = weight.value;
        slopes[at * width + l] = weight.slope;
      }
    });
    this->words_.write_bra(this->numbers(psi_), this->numbers(lambda_), weights, false);
    this->words_.write_bra(this->numbers(dpsi_), this->numbers(dlambda_), weights, false);
    if (some_slope) this->words_.write_bra(this->numbers(psi_), this->numbers(dlambda_), slopes, true);
    if (!wanted) return;
    this->words_.for_each_member([&](const WordGroup::Member& m, Index at) {
      for (int l = 0; l < count_; ++l) {
        const Dual overlap(this->word_numbers_[at * width + l], word_tangents_[at * width + l]);
        add_coefficient_tangents(*m.term, this->sample(l), cotangent(c, dc, m.result, l) * overlap);
      }
    });
  }

  // Each slot sees the product of the others.
  void add_coefficient_tangents(const Term& term, Index sample, Dual overlap) {
    for (std::size_t j = 0; j < term.coefficients.size(); ++j)
      gradients_->sink->add(term.coefficients[j], sample, (coefficient(term, sample, j) * overlap).slope);
  }

  // lambda = g O psi; dlambda = g (O dpsi + dO psi) + dg O psi
  void add_expval_bras(const PlannedMeasurement& m, const Cotangents<T>& c, const Cotangents<T>& dc) {
    if (m.terms.empty()) return;
    const auto g = [&](int l) { return cotangent(c, dc, m.first_result, l); };
    this->add_observable(lambda_, psi_, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, dpsi_, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, psi_, m, [&](int l) { return g(l).slope; });
    add_observable_tangent(dlambda_, psi_, m, [&](int l) { return g(l).value; });
    const Moving ket{psi_, dpsi_};
    add_observable_gradients(ket, ket, m, g, true);
  }

  // lambda = g (O v - 2 <O> v) with v = O psi; what O is made of sees u = 2 g (v - <O> psi), from either side of O O.
  void add_var_bras(const PlannedMeasurement& m, const Cotangents<T>& c, const Cotangents<T>& dc) {
    apply_observable(m);
    V* v = this->first_scratch_.data();
    V* dv = third_scratch_.data();
    double mean[width] = {};
    double slope[width] = {};
    find_mean(mean, slope);
    const auto g = [&](int l) { return cotangent(c, dc, m.first_result, l); };
    const auto back = [&](int l) { return -2.0 * g(l) * Dual(mean[l], slope[l]); };
    this->add_observable(lambda_, v, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, dv, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, v, m, [&](int l) { return g(l).slope; });
    add_observable_tangent(dlambda_, v, m, [&](int l) { return g(l).value; });
    const V back_value = this->lanes([&](int l) { return back(l).value; });
    const V back_slope = this->lanes([&](int l) { return back(l).slope; });
    const V twice = this->lanes([&](int l) { return 2 * g(l).value; });
    const V twice_slope = this->lanes([&](int l) { return 2 * g(l).slope; });
    team_.for_range(dimension_, [&](Index begin, Index end) {
      add_scaled(lambda_, v, back_value, begin, end);
      add_scaled(dlambda_, dv, back_value, begin, end);
      add_scaled(dlambda_, v, back_slope, begin, end);
      scale(dv, twice, begin, end);
      add_scaled(dv, v, twice_slope, begin, end);
      add_scaled(dv, dpsi_, back_value, begin, end);
      add_scaled(dv, psi_, back_slope, begin, end);
      scale(v, twice, begin, end);
      add_scaled(v, psi_, back_value, begin, end);
    });
    const Moving u{v, dv};
    const Moving ket{psi_, dpsi_};
    add_observable_gradients(u, ket, m, [](int) { return Dual(1); }, true, 0.5);
    add_observable_gradients(ket, u, m, [](int) { return Dual(0.5); }, false);
  }

  struct Moving {
    const V* state;
    const V* tangent;
  };

  // Derivatives of weight(lane) d Re<u|O|ket> by coefficients, if those are wanted, and times `share` by factors.
  template <class F>
  void add_observable_gradients(const Moving& u, const Moving& ket, const PlannedMeasurement& m, const F& weight,
                                bool coefficients, double share = 1) {
    for (const PlannedTerm& t : m.terms) {
      if (coefficients && this->wants_coefficients(m)) add_term_gradients(u, ket, t, weight);
      for (const PlannedFactor& f : t.factors) {
        if (this->wants(f.factor->input))
          add_factor_tangents(u, ket, t, f,
                              [&](int l) { return share * weight(l) * coefficient(*t.term, this->sample(l)); });
      }
    }
  }

  template <class F>
  void add_term_gradients(const Moving& u, const Moving& ket, const PlannedTerm& t, const F& weight) {
    double value[width] = {};
    double slope[width] = {};
    V* w = this->second_scratch_.data();
    this->write_term(w, ket.state, t);
    this->real_overlap(u.state, w, value);
    this->real_overlap(u.tangent, w, slope);
    this->write_term(w, ket.tangent, t);
    this->real_overlap(u.state, w, slope);
    for_each_term_tangent(ket.state, t, nullptr, [&](const V* moved) { this->real_overlap(u.state, moved, slope); });
    for (int l = 0; l < count_; ++l)
      add_coefficient_tangents(*t.term, this->sample(l), weight(l) * Dual(value[l], slope[l]));
  }

  // The gradient is linear in u, in everything else of the term applied to the ket, and in a projector's state.
  template <class F>
  void add_factor_tangents(const Moving& u, const Moving& ket, const PlannedTerm& t, const PlannedFactor& f,
                           const F& weight) {
    const auto value = [&](int l) { return weight(l).value; };
    const bool has_phi = f.factor->kind == FactorKind::state_projector;
    const auto phi = [&] { return has_phi ? this->input_lanes(f.factor->input) : nullptr; };
    V* rest = this->second_scratch_.data();
    this->write_term(rest, ket.state, t, &f);
    this->add_factor_gradient(u.state, rest, f, phi(), [&](int l) { return weight(l).slope; });
    this->add_factor_gradient(u.tangent, rest, f, phi(), value);
    if (has_phi && call_.moves(f.factor->input))
      this->add_factor_gradient(u.state, rest, f, tangent_lanes(f.factor->input), value);
    this->write_term(rest, ket.tangent, t, &f);
    this->add_factor_gradient(u.state, rest, f, phi(), value);
    for_each_term_tangent(ket.state, t, &f,
                          [&](const V* moved) { this->add_factor_gradient(u.state, moved, f, phi(), value); });
  }

  V* dpsi_ = nullptr;
  V* dlambda_ = nullptr;
  std::optional<TangentRunner<V>> forward_turns_;
  std::optional<TangentRunner<V>> backward_turns_;
  LaneVector<V> slopes_;
  std::vector<double> word_tangents_;
  Buffer<V> third_scratch_;
  Buffer<V> fourth_scratch_;
};

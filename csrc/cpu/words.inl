// Pauli words of expectation values: their overlaps, and what they add to a bra. Included by walk.inl after tiles.inl.
//
// Words that flip the same bits differ by signs only: <u|P|psi> = i^quarter sum_q (-1)^parity conj(u_(q^flip)) psi_q. So
// the products of a group are formed once, and the sums for all its members are one Walsh-Hadamard transform of them;
// the other way round, the coefficients of all members become one real function of q by the same transform. A few
// members are summed one by one.

template <class V>
class WordRunner {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  static constexpr bool single = width == 1;
  using Cell = typename TileRunner<V>::Cell;
  using Sums = typename TileRunner<V>::Sums;

 public:
  WordRunner(const Plan& plan, TileRunner<V>& tiles) : plan_(plan), tiles_(tiles) {
    for (const ObservablePass& pass : plan.observables) {
      for (const WordGroup& group : pass.groups) count_ += static_cast<Index>(group.members.size());
    }
  }

  // Members of all groups, in order.
  Index count() const { return count_; }

  template <class F>
  void for_each_member(const F& f) const {
    Index at = 0;
    for (const ObservablePass& pass : plan_.observables) {
      for (const WordGroup& group : pass.groups) {
        for (const WordGroup::Member& m : group.members) f(m, at++);
      }
    }
  }

  // overlaps[member][lane] = Re<ket|P|ket>
  void overlaps(const T* ket, std::vector<double>& found) {
    found.assign(count_ * width, 0.0);
    Index first = 0;
    for (const ObservablePass& pass : plan_.observables) {
      const Index size = members(pass) * width;
      tiles_.for_each(pass, pass.tiles.size(), size, found.data() + first,
                      [&](Index tile, Workspace<T>& work, double* sums) {
                        const Mask base = static_cast<Mask>(pass.tiles[tile]);
                        const T* rows = tiles_.gather(pass, base, ket, work.ket);
                        for (const WordGroup& group : pass.groups) {
                          if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                          for (const bool imaginary : {false, true})
                            group_overlaps(group, imaginary, base, rows, pass.rows.size(), work, sums);
                          sums += group.members.size() * width;
                        }
                      });
      first += size;
    }
  }

  // bra = sum over members of weights[member][lane] P ket
  void write_bra(const T* ket, T* bra, const std::vector<double>& weights) {
    Index first = 0;
    for (const ObservablePass& pass : plan_.observables) {
      tiles_.for_each(pass, pass.tiles.size(), 0, nullptr, [&](Index tile, Workspace<T>& work, double*) {
        const Mask base = static_cast<Mask>(pass.tiles[tile]);
        const T* ket_rows = tiles_.gather(pass, base, ket, work.ket);
        const bool is_first = &pass == &plan_.observables.front();
        T* bra_rows = is_first ? tiles_.zeros(pass, bra, work.bra) : tiles_.gather(pass, base, bra, work.bra);
        const double* at = weights.data() + first;
        for (const WordGroup& group : pass.groups) {
          if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
          for (const bool imaginary : {false, true})
            add_group(group, imaginary, base, ket_rows, bra_rows, pass.rows.size(), work, at);
          at += group.members.size() * width;
        }
        tiles_.scatter(pass, base, bra_rows, bra);
      });
      first += members(pass) * width;
    }
  }

 private:
  using Member = WordGroup::Member;

  // So many members or fewer are summed one by one.
  static constexpr int few = 3;

  static Index members(const ObservablePass& pass) {
    Index count = 0;
    for (const WordGroup& group : pass.groups) count += static_cast<Index>(group.members.size());
    return count;
  }

  static bool is_imaginary(const Member& m) { return (m.quarter & 1) != 0; }

  // With products of conj(u) and i psi for the imaginary members, only a sign is left of i^quarter.
  static double sign(const Member& m, Mask base) {
    return (m.quarter >= 2) != odd_parity(m.tile_mask & base) ? -1 : 1;
  }

  static int count_of(const WordGroup& group, bool imaginary) {
    int count = 0;
    for (const Member& m : group.members) count += is_imaginary(m) == imaginary;
    return count;
  }

  // Per cell: the partner's conjugate times psi or i psi.
  template <int flip>
  static Row<T> product(const WordGroup& group, bool imaginary, const T* ket, Index row) {
    const Cell x = Cell::load(ket, row);
    const Cell partner = trade<flip>(Cell::load(ket, row ^ group.row_flip));
    return partner.inner(imaginary ? x.times_i() : x);
  }

  static void add_sum(const Row<T>& v, const Row<T>& signs, double factor, double* out) {
    if constexpr (single) {
      out[0] += factor * static_cast<double>(sum_lanes(v * signs));
    } else {
      for (int l = 0; l < width; ++l) out[l] += factor * static_cast<double>(v[l]);
    }
  }

  void group_overlaps(const WordGroup& group, bool imaginary, Mask base, const T* ket, Index rows, Workspace<T>& work,
                      double* sums) const {
    const int count = count_of(group, imaginary);
    if (count == 0) return;
    with_flip(group.lane_flip, [&](auto flip) {
      if (count > few) {
        work.products.resize(Sums::vectors(rows));
        write_products<flip>(group, imaginary, ket, rows, work.products.data());
        hadamard(work.products.data(), static_cast<Index>(work.products.size()));
      }
      for (std::size_t j = 0; j < group.members.size(); ++j) {
        const Member& m = group.members[j];
        if (is_imaginary(m) != imaginary) continue;
        if (count > few) {
          const Mask place = Sums::place(m.row_mask, m.lane_mask);
          add_sum(work.products[Sums::vector(place)], Sums::signs(place), sign(m, base), sums + j * width);
        } else {
          add_sum(sum_one<flip>(group, m, ket, rows), lane_signs<T>(m.lane_mask), sign(m, base), sums + j * width);
        }
      }
    });
  }

  template <int flip>
  static Row<T> sum_one(const WordGroup& group, const Member& m, const T* ket, Index rows) {
    Row<T> total{};
    for (Index r = 0; r < rows; ++r) {
      const Row<T> p = product<flip>(group, is_imaginary(m), ket, r);
      total += odd_parity(static_cast<Mask>(r) & m.row_mask) ? -p : p;
    }
    return total;
  }

  template <int flip>
  static void write_products(const WordGroup& group, bool imaginary, const T* ket, Index rows, Row<T>* out) {
    if constexpr (single) {
      for (Index r = 0; r < rows; r += 2) {
        const Row<T> first = product<flip>(group, imaginary, ket, r);
        const Row<T> second = product<flip>(group, imaginary, ket, r + 1);
        out[r / 2] = even_lanes(first, second) + odd_lanes(first, second);
      }
    } else {
      for (Index r = 0; r < rows; ++r) out[r] = product<flip>(group, imaginary, ket, r);
    }
  }

  static Row<T> weight(const double* weights) {
    Row<T> w{};
    for (int l = 0; l < batch_lanes<T>; ++l) w[l] = static_cast<T>(weights[single ? 0 : l]);
    return w;
  }

  void add_group(const WordGroup& group, bool imaginary, Mask base, const T* ket, T* bra, Index rows,
                 Workspace<T>& work, const double* weights) const {
    const int count = count_of(group, imaginary);
    if (count == 0) return;
    // The weights as a function on the amplitudes: it is that of the members' signs, transformed.
    const Index size = Sums::vectors(rows);
    work.products.assign(size, Row<T>{});
    bool constant = true;
    for (std::size_t j = 0; j < group.members.size(); ++j) {
      const Member& m = group.members[j];
      if (is_imaginary(m) != imaginary) continue;
      const Mask place = Sums::place(m.row_mask, m.lane_mask);
      work.products[Sums::vector(place)] +=
          static_cast<T>(sign(m, base)) * weight(weights + j * width) * Sums::signs(place);
      constant &= m.row_mask == 0 && m.lane_mask == 0;
    }
    if (constant) {
      const Row<T> w = work.products[0];
      std::fill(work.products.begin(), work.products.end(), w);
    } else {
      hadamard(work.products.data(), size);
    }
    with_flip(group.lane_flip, [&](auto flip) {
      for (Index r = 0; r < rows; ++r) {
        const Cell x = Cell::load(ket, r);
        const Cell turned = (imaginary ? x.times_i() : x).times(function_at(work.products.data(), r));
        const Index partner = r ^ group.row_flip;
        Cell::load(bra, partner).plus(trade<flip>(turned)).store(bra, partner);
      }
    });
  }

  // The real function's value at the amplitudes of a row.
  static Row<T> function_at(const Row<T>* function, Index row) {
    if constexpr (single) {
      return (row & 1) == 0 ? low_pairs(function[row / 2]) : high_pairs(function[row / 2]);
    } else {
      return function[row];
    }
  }

  const Plan& plan_;
  TileRunner<V>& tiles_;
  Index count_ = 0;
};

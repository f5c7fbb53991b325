#include "plan/tile.h"

#include <algorithm>

namespace ketgrad {

TileGeometry::TileGeometry(int num_bits, int lane_bits, int tile_bits, int run_bits)
    : num_bits_(num_bits), lane_bits_(std::min(lane_bits, num_bits)), tile_bits_(std::min(tile_bits, num_bits)) {
  for (int b = 0; b < lane_bits_; ++b) {
    span_.add(unit(b));
    coordinates_.add(unit(b));
  }
  for (int b = lane_bits_; b < std::min(lane_bits_ + run_bits, num_bits); ++b) reach(unit(b));
}

bool TileGeometry::reach(Mask flip) {
  if (span_.contains(flip)) return true;
  if (span_.size() >= tile_bits_) return false;
  span_.add(flip);
  coordinates_.add(flip);
  row_vectors_.push_back(flip);
  return true;
}

bool TileGeometry::reach_all(std::span<const Mask> flips) {
  Span span = span_;
  for (const Mask f : flips) span.add(f);
  if (span.size() > span_.size() && span.size() > tile_bits_) return false;
  for (const Mask f : flips) reach(f);
  return true;
}

void TileGeometry::fill() {
  for (int b = 0; b < num_bits_ && span_.size() < tile_bits_; ++b) reach(unit(b));
  are_bits_ = true;
  for (std::size_t j = 0; j < row_vectors_.size(); ++j)
    are_bits_ = are_bits_ && row_vectors_[j] == unit(lane_bits_ + static_cast<int>(j));
}

Mask TileGeometry::parity(Mask physical) const {
  if (are_bits_) return physical & (unit(span_.size()) - 1);
  Mask found = physical & (unit(lane_bits_) - 1);
  for (std::size_t j = 0; j < row_vectors_.size(); ++j) {
    if (odd_parity(physical & row_vectors_[j])) found |= unit(lane_bits_ + static_cast<int>(j));
  }
  return found;
}

namespace {

// Finds a vector of the tile on which functionals have given values: the first independent ones do, and as many others
// as follow.
class Solver {
 public:
  explicit Solver(const std::vector<Mask>& functionals) {
    for (std::size_t m = 0; m < functionals.size(); ++m) add(functionals[m], m);
  }

  // `values[m]`: the value that functional m should have.
  Mask solve(const std::vector<bool>& values) const {
    Mask solution = 0;
    for (const Row& row : rows_) {
      bool odd = false;
      for (const std::size_t m : row.combination) odd ^= values[m];
      if (odd) solution |= row.functional & -row.functional;
    }
    return solution;
  }

 private:
  struct Row {
    Mask functional;  // its lowest bit is in no other row
    std::vector<std::size_t> combination;
  };

  static void combine(Row& row, const Row& other) {
    row.functional ^= other.functional;
    for (const std::size_t m : other.combination) {
      const auto at = std::find(row.combination.begin(), row.combination.end(), m);
      if (at == row.combination.end()) {
        row.combination.push_back(m);
      } else {
        row.combination.erase(at);
      }
    }
  }

  void add(Mask functional, std::size_t m) {
    Row row{functional, {m}};
    for (const Row& r : rows_) {
      if (row.functional & (r.functional & -r.functional)) combine(row, r);
    }
    if (row.functional == 0) return;
    for (Row& r : rows_) {
      if (r.functional & (row.functional & -row.functional)) combine(r, row);
    }
    rows_.push_back(std::move(row));
  }

  std::vector<Row> rows_;
};

}  // namespace

IndexMap TileGeometry::tiles(Mask origin, const Span& support, const std::vector<Mask>& parities,
                             Index& num_active) const {
  Span taken = span_;
  Vectors basis;
  const auto take = [&](Mask v) {
    v = span_.reduce(v);
    if (taken.add(v)) basis.push_back(v);
  };
  for (const Mask v : support.basis()) take(v);
  num_active = Index{1} << basis.size();
  for (int b = 0; b < num_bits_; ++b) take(unit(b));
  if (basis.empty()) return IndexMap(span_.reduce(origin), basis);
  std::vector<Mask> functionals;
  for (const Mask p : parities) functionals.push_back(parity(p));
  const Solver solver(functionals);
  const auto make_even = [&](Mask v) {
    std::vector<bool> odd;
    for (const Mask p : parities) odd.push_back(odd_parity(p & v));
    const Mask local = solver.solve(odd);
    v ^= local & (unit(lane_bits_) - 1);
    for (std::size_t j = 0; j < row_vectors_.size(); ++j) {
      if ((local >> (lane_bits_ + static_cast<int>(j))) & 1) v ^= row_vectors_[j];
    }
    return v;
  };
  for (Mask& v : basis) v = make_even(v);
  return IndexMap(span_.reduce(origin), basis);
}

}  // namespace ketgrad

#include "plan/wire_map.h"

#include <utility>

namespace ketgrad {

Mask wire_mask(const std::vector<int>& wires) {
  Mask found = 0;
  for (const int w : wires) found |= unit(w);
  return found;
}

WireWord wire_word(std::string_view letters, const std::vector<int>& wires) {
  WireWord word;
  for (std::size_t j = 0; j < letters.size(); ++j) {
    const Mask wire = unit(wires[j]);
    if (letters[j] == 'X' || letters[j] == 'Y') word.x |= wire;
    if (letters[j] == 'Z' || letters[j] == 'Y') word.z |= wire;
  }
  return word;
}

WireMap::WireMap(int num_wires, Basis basis) : basis_(basis) {
  flip_.reserve(num_wires);
  for (int w = 0; w < num_wires; ++w) flip_.push_back(unit(bit_of_wire(w, num_wires)));
  parity_ = flip_;
}

// The target's new bit is the sum of both. What flips the new control alone must keep that sum: it flips both old bits.
void WireMap::cnot(int control, int target) {
  parity_[target] ^= parity_[control];
  if (offset(control)) flip_wire(target);
  flip_[control] ^= flip_[target];
}

void WireMap::swap(int a, int b) {
  std::swap(parity_[a], parity_[b]);
  std::swap(flip_[a], flip_[b]);
  if (offset(a) != offset(b)) offsets_ ^= unit(a) | unit(b);
}

PauliWord WireMap::pauli_word(const WireWord& word) const {
  PauliWord pauli_word;
  Mask& flips = basis_ == Basis::z ? pauli_word.x : pauli_word.z;
  Mask& parities = basis_ == Basis::z ? pauli_word.z : pauli_word.x;
  for_each_wire(word.x, [&](int w) { flips ^= flip_[w]; });
  for_each_wire(word.z, [&](int w) { parities ^= parity_[w]; });
  pauli_word.y_count = std::popcount(word.x & word.z);
  pauli_word.negative = odd_parity(word.z & offsets_) != (basis_ == Basis::x && odd_parity(word.x & word.z));
  return pauli_word;
}

IndexMap WireMap::coset(const std::vector<int>& wires, Mask origin) const {
  const Mask taken = wire_mask(wires);
  Span span;
  for (int w = 0; w < num_wires(); ++w) {
    if (((taken >> w) & 1) == 0) span.add(flip_[w]);
  }
  Vectors basis = span.basis();
  // By pivots: the lowest bits come first, so that neighbours are visited one after the other.
  std::sort(basis.begin(), basis.end(), [](Mask a, Mask b) { return (a & -a) < (b & -b); });
  return IndexMap(span.reduce(origin), basis);
}

IndexMap WireMap::fixed(const std::vector<int>& wires, const std::vector<bool>& bits) const {
  Mask origin = 0;
  for (std::size_t j = 0; j < wires.size(); ++j) {
    if (bits[j] != offset(wires[j])) origin ^= flip_[wires[j]];
  }
  return coset(wires, origin);
}

IndexMap WireMap::groups(const std::vector<int>& wires) const { return coset(wires, 0); }

IndexMap WireMap::local(const std::vector<int>& wires) const {
  Mask origin = 0;
  Vectors basis;
  for (auto w = wires.rbegin(); w != wires.rend(); ++w) {
    if (offset(*w)) origin ^= flip_[*w];
    basis.push_back(flip_[*w]);
  }
  return IndexMap(origin, basis);
}

}  // namespace ketgrad

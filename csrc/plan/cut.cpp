#include "plan/cut.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "plan/parts.h"
#include "plan/subprogram.h"

namespace ketgrad {

namespace {

// Each cut wire doubles the Pauli words that are measured.
constexpr Index most_terms = 1024;
// Gates on several wires, for each wire, from which on cuts are not looked for: where wires meet again and again, none
// of them leaves early.
constexpr std::size_t most_meetings = 4;

// Whether two states take less than one that is larger than each of them.
bool pays(std::size_t whole, std::size_t rest, std::size_t part) {
  if (whole > static_cast<std::size_t>(max_wires)) return true;
  const auto amplitudes = [](std::size_t wires) { return std::ldexp(1.0, static_cast<int>(wires)); };
  return amplitudes(rest) + amplitudes(part) + part_costs().of_cut < amplitudes(whole);
}

char name_of(Letter letter) { return letter == Letter::x ? 'X' : letter == Letter::y ? 'Y' : 'Z'; }

Measurement measured(int wire, char letter) {
  return {MeasurementKind::expval, {}, {{1, {}, {wire}, std::string(1, letter), {}}}};
}

}  // namespace

CutCone::CutCone(const Program& program, const ConeFinder& finder, const Cone& cone)
    : program_(program), finder_(finder) {
  std::size_t meetings = 0;
  for (const int g : cone.gates) meetings += finder_.end(g) - finder_.begin(g) > 1 ? 1 : 0;
  const auto is_other = [](const Measurement& m) { return m.kind != MeasurementKind::expval; };
  if (meetings > most_meetings * cone.wires.size() ||
      std::any_of(program_.measurements.begin(), program_.measurements.end(), is_other))
    return;
  reduce({cone, {}}, program_.measurements);
}

// Cuts a piece as often as is worth it; what is left of it stays in hand.
void CutCone::reduce(Piece piece, const std::vector<Measurement>& measurements) {
  rest_ = std::move(piece);
  is_measured_.assign(rest_.cone.wires.size(), false);
  terms_ = 0;
  for (const Measurement& m : measurements) {
    terms_ += static_cast<Index>(m.terms.size());
    for (const WireLetter& s : seen_by(m)) is_measured_[local(s.wire)] = true;
  }
  Place place;
  int component = -1;
  while (find_cut(place, component)) {
    const int wire = rest_.cone.wires[place.local];
    Piece before = take_before(place, component);
    Piece rest = std::move(rest_);
    std::vector<bool> is_measured = std::move(is_measured_);
    const Index terms = terms_;
    const int link = add_before(std::move(before), wire, name_of(place.letter));
    rest_ = std::move(rest);
    is_measured_ = std::move(is_measured);
    terms_ = terms;
    rest_.cut_wires.push_back({wire, name_of(place.letter), link});
  }
}

// Cuts it too; its links come before its own, which is returned.
int CutCone::add_before(Piece piece, int wire, char letter) {
  reduce(std::move(piece), {measured(wire, letter)});
  const int link = static_cast<int>(befores_.size());
  befores_.push_back({std::move(rest_), {wire, letter, link}});
  return link;
}

int CutCone::local(int wire) const { return rest_.cone.local(wire); }

int CutCone::root(int node) {
  while (parents_[node] != node) node = parents_[node] = parents_[parents_[node]];
  return node;
}

CutCone::Place CutCone::place_on(int local) const {
  const int wire = rest_.cone.wires[local];
  Place place{local};
  for (auto g = rest_.cone.gates.rbegin(); g != rest_.cone.gates.rend(); ++g) {
    const auto* touch = std::find_if(finder_.begin(*g), finder_.end(*g), [&](const auto& t) { return t.wire == wire; });
    if (touch == finder_.end(*g)) continue;
    if (place.letter == Letter::none) place.letter = touch->letter;
    if (place.letter == Letter::all) return place;
    if (touch->letter != place.letter) {
      place.is_one = true;
      return place;
    }
    place.first_kept = *g;
  }
  return place;
}

// The tree of the wire's part before the place, if it holds no measured wire nor what comes after.
int CutCone::component_of(const Place& place) {
  const int after = static_cast<int>(rest_.cone.wires.size());
  parents_.resize(after + 1);
  std::iota(parents_.begin(), parents_.end(), 0);
  for (const int g : rest_.cone.gates) {
    int first = -1;
    for (const auto* t = finder_.begin(g); t != finder_.end(g); ++t) {
      const int wire = local(t->wire);
      const int node = root(wire == place.local && g >= place.first_kept ? after : wire);
      if (first < 0) first = node;
      parents_[node] = root(first);
    }
  }
  const int component = root(place.local);
  if (root(after) == component) return -1;
  for (int w = 0; w < after; ++w) {
    if (is_measured_[w] && root(w) == component) return -1;
  }
  return component;
}

// Of both sides of a cut that makes this component one of them.
bool CutCone::has_few_terms(int component) {
  Index before = 1, rest = 2 * terms_;
  for (const CutWire& c : rest_.cut_wires) (root(local(c.wire)) == component ? before : rest) *= 2;
  return std::max(before, rest) <= most_terms;
}

// The cut that leaves the larger side smallest.
bool CutCone::find_cut(Place& best, int& component) {
  const auto wires = rest_.cone.wires.size();
  std::size_t least = wires;  // of the larger side
  std::size_t cut_off = 0;
  for (int w = 0; w < static_cast<int>(wires); ++w) {
    if (is_measured_[w]) continue;
    const Place place = place_on(w);
    if (!place.is_one) continue;
    const int found = component_of(place);
    if (found < 0 || !has_few_terms(found)) continue;
    std::size_t size = 0;
    for (int v = 0; v < static_cast<int>(wires); ++v) size += v != w && root(v) == found ? 1 : 0;
    const std::size_t larger = std::max(wires - size, size + 1);
    if (size == 0 || larger >= least) continue;
    least = larger;
    cut_off = size;
    best = place;
  }
  if (cut_off == 0 || !pays(wires, wires - cut_off, cut_off + 1)) return false;
  component = component_of(best);
  return true;
}

// Takes what a cut separates out of the piece in hand.
CutCone::Piece CutCone::take_before(const Place& place, int component) {
  const std::vector<int>& wires = rest_.cone.wires;
  Piece before, rest;
  std::vector<bool> is_measured;
  for (int w = 0; w < static_cast<int>(wires.size()); ++w) {
    if (root(w) == component) before.cone.wires.push_back(wires[w]);
    if (root(w) == component && w != place.local) continue;
    rest.cone.wires.push_back(wires[w]);
    is_measured.push_back(is_measured_[w]);
  }
  for (const int g : rest_.cone.gates) {
    const int wire = local(finder_.begin(g)->wire);
    const bool is_after = wire == place.local && g >= place.first_kept;
    (!is_after && root(wire) == component ? before : rest).cone.gates.push_back(g);
  }
  for (const CutWire& c : rest_.cut_wires) (root(local(c.wire)) == component ? before : rest).cut_wires.push_back(c);
  rest_ = std::move(rest);
  is_measured_ = std::move(is_measured);
  return before;
}

std::vector<Program> CutCone::befores() const {
  std::vector<Program> programs;
  for (const Before& b : befores_) programs.push_back(program_of(b.piece, {measured(b.made.wire, b.made.letter)}));
  return programs;
}

Program CutCone::rest() const { return program_of(rest_, program_.measurements); }

// Each word P becomes P (1 + q L) for each cut wire, that begins where L is 1 and -1 alike.
Program CutCone::program_of(const Piece& piece, const std::vector<Measurement>& measurements) const {
  const int links = static_cast<int>(program_.inputs.size());
  std::vector<Measurement> with_links = measurements;
  for (Measurement& m : with_links) {
    for (const CutWire& c : piece.cut_wires) {
      const std::size_t count = m.terms.size();
      for (std::size_t t = 0; t < count; ++t) {
        Term term = m.terms[t];
        term.coefficients.push_back({links, c.link});
        term.pauli_wires.push_back(c.wire);
        term.pauli_word += c.letter;
        m.terms.push_back(std::move(term));
      }
    }
  }
  Program program = subprogram(program_, piece.cone, std::move(with_links));
  program.inputs.push_back({false, {static_cast<Index>(befores_.size())}});
  std::vector<Gate> gates;
  for (const CutWire& c : piece.cut_wires) {
    if (c.letter != 'Z') continue;  // |0> is in X and in Y what H|0> is in Z
    Gate gate;
    gate.opcode = static_cast<Opcode>(find_gate("H"));
    gate.targets = {piece.cone.local(c.wire)};
    gates.push_back(std::move(gate));
  }
  gates.insert(gates.end(), std::make_move_iterator(program.gates.begin()),
               std::make_move_iterator(program.gates.end()));
  program.gates = std::move(gates);
  return program;
}

}  // namespace ketgrad

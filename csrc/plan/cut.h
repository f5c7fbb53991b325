// Cuts of a light cone at a wire: see parts.h.
#pragma once

#include <vector>

#include "plan/cone.h"
#include "program/program.h"

namespace ketgrad {

// What is left of a wire after a cut: a coin with the expectation value of a letter.
struct CutWire {
  int wire = 0;
  char letter = 'Z';  // of the gates on it
  int link = 0;       // where its expectation value is among the links
};

class CutCone {
 public:
  // `cone`: of all that the program measures. Not cut where that is not worth it, or something else than expectation
  // values is measured.
  CutCone(const Program& program, const ConeFinder& finder, const Cone& cone);

  bool is_cut() const { return !befores_.empty(); }

  // Programs whose only result is the link of their number. They, and the rest, have an input more than the whole, the
  // last: all links, of which each reads those before its own.
  std::vector<Program> befores() const;
  Program rest() const;

 private:
  // What is measured of some gates and wires, after cuts.
  struct Piece {
    Cone cone;
    std::vector<CutWire> cut_wires;  // among its wires
  };
  struct Before {
    Piece piece;
    CutWire made;  // by the cut
  };
  // Where a wire may be cut.
  struct Place {
    int local = 0;  // among the wires of the piece in hand
    Letter letter = Letter::none;
    int first_kept = 0;   // gate on the wire
    bool is_one = false;  // there is a gate on the wire before it
  };

  void reduce(Piece piece, const std::vector<Measurement>& measurements);
  bool find_cut(Place& best, int& component);
  int component_of(const Place& place);
  Place place_on(int local) const;
  Piece take_before(const Place& place, int component);
  int add_before(Piece piece, int wire, char letter);
  int local(int wire) const;
  int root(int node);
  bool has_few_terms(int component);
  Program program_of(const Piece& piece, const std::vector<Measurement>& measurements) const;

  const Program& program_;
  const ConeFinder& finder_;
  std::vector<Before> befores_;
  // While pieces are cut, the one in hand; in the end what is left of the whole.
  Piece rest_;
  std::vector<bool> is_measured_;  // per wire of it
  Index terms_ = 0;
  std::vector<int> parents_;  // of a forest over its wires, and the cut wire once more
};

}  // namespace ketgrad

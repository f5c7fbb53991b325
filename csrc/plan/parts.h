// The parts of a program: smaller programs whose results add up to its own.
//
// Measurements, and the terms of an expectation value, see their light cones (cone.h). Wires outside of all cones leave
// the program. Where cones overlap little, several small states take less time than one: then each part has the
// measurements and terms of one cone, or of some whose union is not dearer.
//
// A cone can be cut at a wire t. Let all its gates on t from some place on be made of one letter L on t, and let what
// comes before on t, with the wires T that are tied to it, meet the rest nowhere else. The rest then sees of t only
// whether L is 1 or -1, a coin with the expectation value q = <L>: that of a part on t and T alone. In the rest t begins
// in a state in which both are as probable, and each word P that is measured becomes P + q P L: with (1 + q)/2 of the
// half of the state where L is 1, and (1 - q)/2 of the other one,
//   <P> = <P (1 + q L)>.
// This is linear in q, a coefficient: a link from one part to another.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "program/program.h"

namespace ketgrad {

class PlannedProgram;
using ProgramHandle = std::shared_ptr<const PlannedProgram>;

// Neighbouring results of a part, and where they are added to the whole's (or to the links).
struct ResultSpan {
  Index from = 0;
  Index to = 0;
  Index count = 1;
};

// One circuit among those of a part.
struct PartMember {
  std::vector<std::vector<int>> columns;  // per input of the part, of the input that it is read from; of real vectors
  std::vector<ResultSpan> real;
  std::vector<ResultSpan> complex;
};

// Circuits that are one program up to the columns that they read: one batch.
struct Part {
  ProgramHandle program;
  std::vector<int> inputs;  // per input of the part, where it is read from; `links`: the links
  std::vector<PartMember> members;
  bool feeds_links = false;  // its results are links
};

struct Parts {
  std::vector<Part> parts;  // each reads links that parts before it feed
  Index num_links = 0;
  int links = 0;  // what takes the place of an input's number: the number of inputs
};

// What is run in a program's place: its parts, or one program without some of its wires, or neither: the program itself.
struct Decomposition {
  Parts parts;
  std::optional<Program> smaller;
  std::vector<int> gates;  // of the whole, per gate of `smaller`
  int num_left_out = 0;    // gates of the whole that no measurement depends on
};

// A state on more wires than are possible. MemoryError in Python.
class TooManyWires : public std::bad_alloc {
 public:
  TooManyWires(int measurement, int wires);
  const char* what() const noexcept override { return message_.c_str(); }

  const int measurement;  // that depends on them; -1: all of them together
  const int wires;

 private:
  std::string message_;
};

// What decides, in amplitudes: those of all states of a call.
struct PartCosts {
  double of_part = 1 << 10;  // another part takes as long as so many more: its call, its tasks
  double of_cut = 1 << 9;    // and the part that a cut makes
  double least_gain = 4;     // one state takes so many times longer than several parts, or it is the better choice
  int most_kept = 8;         // a state on so many wires keeps them all: it takes no longer than its call
};

const PartCosts& part_costs();

// For tests, which split circuits of a few wires; programs that are registered already stay as they are.
void set_part_costs(const PartCosts& costs);

// Throws TooManyWires.
Decomposition decompose(const Program& program);

// For each measurement of a circuit the wires of the largest state that it takes.
std::vector<int> measured_wires(const PlannedProgram& planned);

}  // namespace ketgrad

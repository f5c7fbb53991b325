// The passes of a circuit: over tiles, and of one unfused gate each.
#pragma once

#include <cstddef>

#include "cuda/tables/operation_builder.h"
#include "cuda/tables/pauli_word_builder.h"
#include "cuda/tables/sign_builder.h"
#include "cuda/tables/tables.h"
#include "cuda/tables/value_builder.h"

namespace ketgrad::cuda {

class PassBuilder {
 public:
  PassBuilder(Tables& tables, const Plan& plan, SignBuilder& signs, ValueBuilder& values, PauliWordBuilder& pauli_words)
      : tables_(tables),
        plan_(plan),
        signs_(signs),
        values_(values),
        pauli_words_(pauli_words),
        operations_(tables, signs, values) {}

  void run();

 private:
  void reserve_angles();
  void add_pass(std::size_t number);
  void add_tile_pass(std::size_t number, const TilePass& pass, TablePass& found);
  bool last_pass_measures() const { return !plan_.observables.empty() && plan_.observables[0].in_last_pass; }
  SupportMap support_map(const Support& support, const TilePass& pass);
  void add_gate_op(const GateOp& gate_op);

  Tables& tables_;
  const Plan& plan_;
  SignBuilder& signs_;
  ValueBuilder& values_;
  PauliWordBuilder& pauli_words_;
  OperationBuilder operations_;
  bool after_gate_op_ = false;
};

}  // namespace ketgrad::cuda

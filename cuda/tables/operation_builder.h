// The operations of a pass on tiles: rotations of groups of rows, each with the diagonal rotations that come before it.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cuda/tables/sign_builder.h"
#include "cuda/tables/tables.h"
#include "cuda/tables/value_builder.h"

namespace ketgrad::cuda {

class OperationBuilder {
 public:
  OperationBuilder(Tables& tables, SignBuilder& signs, ValueBuilder& values)
      : tables_(tables), signs_(signs), values_(values) {}

  // The operations of a pass, whose tiles are those that `signs` has begun with.
  Range add_operations(const TilePass& pass);

 private:
  // A Z-string that no operation has taken yet.
  struct Waiting {
    SignMask mask;
    const DiagonalRotation* string = nullptr;
  };

  TableOp rotations(const RotationBlock& rotation_block, std::vector<Waiting>& waiting, int tile_bits);
  TableOp phases(std::vector<Waiting>& waiting, int tile_bits);
  void set_groups(TableOp& op, std::vector<Mask> flips, AffineMap groups, std::vector<Waiting>& waiting, int tile_bits);
  void take_strings(TableOp& op, const std::vector<Mask>& flips, const AffineMap& groups,
                    std::vector<Waiting>& waiting);
  std::int32_t slots_of(const AffineMap& groups);

  Tables& tables_;
  SignBuilder& signs_;
  ValueBuilder& values_;
  int rotations_ = 0;  // that operations have so far
  std::map<AffineMap, std::int32_t> group_slots_;
};

}  // namespace ketgrad::cuda

// The entry points of one instruction set. Included once by each engine_*.cpp, after headers.h and after the
// instruction set is chosen: everything in a -inl.h lives in an anonymous namespace, so that no linker merges code of
// different sets.
#pragma once

#include "cpu/engine.h"
#include "cpu/engine/circuit-inl.h"
#include "cpu/engine/tangents-inl.h"

namespace ketgrad {
namespace {

template <class V>
void forward(const Call<Scalar<V>>& call, const Plan& plan, const SharedGateOps<Scalar<V>>& shared,
             const Results<Scalar<V>>& results, const Task& task) {
  CircuitEngine<V>(call, plan, shared, task).forward(results);
}

template <class V>
void backward(const Call<Scalar<V>>& call, const Plan& plan, const SharedGateOps<Scalar<V>>& shared,
              const Cotangents<Scalar<V>>& cotangents, const Measured<Scalar<V>>* measured, const Task& task,
              TaskGradients<Scalar<V>>& gradients) {
  CircuitEngine<V>(call, plan, shared, task).backward(cotangents, measured, gradients);
}

template <class V>
void tangents(const Call<Scalar<V>>& call, const Plan& plan, const SharedGateOps<Scalar<V>>& shared,
              const Directional<Scalar<V>>& directional, const Task& task, TaskGradients<Scalar<V>>& gradients) {
  TangentEngine<V>(call, plan, shared, task).run(directional, gradients);
}

template <class T>
Engine<T> engine_of() {
  using V = Row<T>;
  return {forward<T>, forward<V>, backward<T>, backward<V>, tangents<T>, tangents<V>};
}

EngineSet these_engines() { return {row_bytes, engine_of<float>(), engine_of<double>()}; }

}  // namespace
}  // namespace ketgrad

// Calls of programs that have parts (plan/parts.h): each part is a call of its own, of all its members and samples as
// one batch, and the results are put together.
#pragma once

#include "cpu/execute.h"

namespace ketgrad {

template <class T>
void execute_parts(const Call<T>& call, const Results<T>& results);

template <class T>
void execute_parts_vjp(const Call<T>& call, const Cotangents<T>& cotangents);

template <class T>
void execute_parts_and_vjp(const Call<T>& call, const Measured<T>& measured, const Cotangents<T>& cotangents);

template <class T>
void execute_parts_tangents(const Call<T>& call, const Directional<T>& directional);

// Bytes of working memory of the largest of them, as workspace_bytes says.
template <class T>
double parts_workspace_bytes(const Call<T>& call, bool backward);

// Of all of them together.
template <class T>
CallWork work_of_parts(const Call<T>& call);

}  // namespace ketgrad

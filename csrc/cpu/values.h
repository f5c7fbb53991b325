// Checks that states among the inputs of a call are normalised and matrices unitary or Hermitian, before it runs.
#pragma once

#include "cpu/call.h"

namespace ketgrad {

// Throws std::invalid_argument where a state is not of norm 1, a matrix not unitary, an entry of a diagonal not of
// modulus 1 or an observable's matrix not Hermitian, by more than what is lost where values come in a coarser
// precision: half in float, float in double. The time is that of reading them. NaN and infinities pass, as they do in
// torch.
template <class T>
void check_values(const Call<T>& call);

extern template void check_values<float>(const Call<float>& call);
extern template void check_values<double>(const Call<double>& call);

}  // namespace ketgrad

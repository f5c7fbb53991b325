// Where a circuit begins, unless its state is an input: in one basis state, or in all alike.
#pragma once

#include "math/bits.h"
#include "math/host_device.h"

namespace ketgrad {

struct InitialAmplitudes {
  Index index = 0;
  double everywhere = 0;  // the amplitude of all basis states; 0: it is 1 at the index alone

  KETGRAD_HOST_DEVICE double amplitude(Index i) const { return everywhere != 0 ? everywhere : i == index ? 1 : 0; }
};

}  // namespace ketgrad

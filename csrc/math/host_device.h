// Functions that kernels call too are declared with this.
#pragma once

#if defined(__CUDACC__)
#define KETGRAD_HOST_DEVICE __host__ __device__
#else
#define KETGRAD_HOST_DEVICE
#endif

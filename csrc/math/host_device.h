// KETGRAD_HOST_DEVICE marks functions that CUDA kernels call too.
#pragma once

#if defined(__CUDACC__)
#define KETGRAD_HOST_DEVICE __host__ __device__
#else
#define KETGRAD_HOST_DEVICE
#endif

// CUDA's names for a C++ compiler: what a `.cu` file sees when the emulator compiles it.
#pragma once

#include <cmath>

#include "kernels.h"

#define __global__
#define __device__

using emulator::blockDim;
using emulator::blockIdx;
using emulator::gridDim;
using emulator::threadIdx;

inline unsigned atomicAdd(unsigned* address, unsigned value) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

// Runs a kernel's blocks with threads as fibers.
#pragma once
#include "cuda.h"

namespace emulation {

Kernel *find(const char *name);

/** What went wrong: nothing, memory that is not the kernel's, or threads that wait for ones that never come. */
enum class Outcome { done, illegal_access, deadlock };

Outcome launch(const Kernel &kernel, dim3 grid, dim3 block, const void *params);

} // namespace emulation

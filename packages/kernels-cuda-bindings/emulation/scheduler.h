// Runs a kernel's blocks with threads as fibers.
#pragma once
#include "cuda.h"

// With AddressSanitizer memory that is nobody's is known to the byte.
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(at, bytes) __asan_poison_memory_region(at, bytes)
#define UNPOISON(at, bytes) __asan_unpoison_memory_region(at, bytes)
#else
#define POISON(at, bytes)
#define UNPOISON(at, bytes)
#endif

namespace emulation {

Kernel *find(const char *name);

/** What went wrong: nothing, memory that is not the kernel's, or threads that wait for ones that never come. */
enum class Outcome { done, illegal_access, deadlock };

Outcome launch(const Kernel &kernel, dim3 grid, dim3 block, const void *params);

} // namespace emulation

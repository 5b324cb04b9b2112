// What a kernel sees of CUDA, for g++: each thread of a block is a fiber, and one processor runs them in turn.
//
// A fiber runs until it waits at a barrier (emulation.cpp has the scheduler). Blocks run one after the other, so that
// shared memory is static memory. Shuffles and votes wait for all lanes of their warp, and it is an error, not
// silence, when some of them have ended or wait elsewhere.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

template <class To, class From> To cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

struct Kernel {
  const char *name;
  size_t params;
  unsigned threads;
  void (*run)(const void *);
  Kernel *next;
  Kernel(const char *name, size_t params, unsigned threads, void (*run)(const void *));
};

void wait_for_block();
/** Puts a value where the other lanes of the warp can see it, and waits for theirs. */
const uint64_t *exchange(unsigned mask, uint64_t value);
unsigned lane();

template <class T> T from_lane(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const uint64_t *all = exchange(mask, bits);
  T result;
  std::memcpy(&result, &all[source % 32], sizeof(T));
  return result;
}

} // namespace emulation

#define KERNEL(name, Params, limit)                                                              \
  static void name(const Params p);                                                              \
  static emulation::Kernel emulated_##name(#name, sizeof(Params), limit,                         \
                                           [](const void *p) { name(*static_cast<const Params *>(p)); }); \
  static void name(const Params p)

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp(unsigned mask = ~0u) { emulation::exchange(mask, 0); }
template <class T> T __shfl_sync(unsigned mask, T value, unsigned source) {
  return emulation::from_lane(mask, value, source);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned apart) {
  return emulation::from_lane(mask, value, emulation::lane() ^ apart);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned apart) {
  const unsigned source = emulation::lane() + apart;
  return emulation::from_lane(mask, value, source < 32 ? source : emulation::lane());
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t *all = emulation::exchange(mask, predicate != 0);
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; i++) votes |= static_cast<unsigned>(all[i]) << i;
  return votes;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

// Fibers do not interrupt each other, so that atomics are plain.
template <class T> T atomicAdd(T *at, T value) { T old = *at; *at = old + value; return old; }
template <class T> T atomicMin(T *at, T value) { T old = *at; if (value < old) *at = value; return old; }
template <class T> T atomicMax(T *at, T value) { T old = *at; if (value > old) *at = value; return old; }
template <class T> T atomicOr(T *at, T value) { T old = *at; *at = old | value; return old; }

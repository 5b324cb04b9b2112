// What all kernels share: short names of types, how a kernel is declared, and sums over a warp and a block.
//
// A kernel takes one struct, whose fields tooling/compile.ts reads from here: a pointer that is not given is null.
// The file compiles with nvcc, and with g++ behind emulation/cuda.h, which runs each thread as a fiber.
#pragma once

#ifdef LOWBIT_EMULATION
#include "cuda.h"
#else
#include <cuda_fp16.h>
#define KERNEL(name, Params, threads) extern "C" __global__ void __launch_bounds__(threads) name(const Params p)
#endif

typedef float f32;
typedef double f64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 WARP = 32;
constexpr u32 ALL = 0xffffffffu;

/** Threads of a block where a kernel does one element a thread. */
constexpr u32 LANES = 128;

__device__ inline u32 element() { return blockIdx.x * blockDim.x + threadIdx.x; }

/** Four numbers that are read at once. */
struct alignas(16) f32x4 {
  f32 x;
  f32 y;
  f32 z;
  f32 w;
};

__device__ inline f32 bits_to_float(u32 bits) {
#ifdef LOWBIT_EMULATION
  return emulation::cast<f32>(bits);
#else
  return __uint_as_float(bits);
#endif
}

__device__ inline f32 half_to_float(u32 bits) {
#ifdef LOWBIT_EMULATION
  return static_cast<f32>(emulation::cast<_Float16>(static_cast<u16>(bits)));
#else
  return __half2float(__ushort_as_half(static_cast<u16>(bits)));
#endif
}

__device__ inline u32 float_to_bits(f32 x) {
#ifdef LOWBIT_EMULATION
  return emulation::cast<u32>(x);
#else
  return __float_as_uint(x);
#endif
}

/** Rounded half to even. */
__device__ inline u32 float_to_half(f32 x) {
#ifdef LOWBIT_EMULATION
  return emulation::cast<u16>(static_cast<_Float16>(x));
#else
  return __half_as_ushort(__float2half_rn(x));
#endif
}

/** As bf16, rounded half to even. */
__device__ inline u32 float_to_brain(f32 x) {
  const u32 bits = float_to_bits(x);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/** E4M3 (FP8) has the bits of a half that is 2⁸ times smaller; all ones are no number. */
__device__ inline f32 e4m3_to_float(u32 code) {
  return (code & 127) == 127 ? NAN : half_to_float((code & 128) << 8 | (code & 127) << 7) * 256.0f;
}

/** Not NaN and not ±∞. */
__device__ inline bool finite(f32 x) { return fabsf(x) <= 3.4028235e38f; }

__device__ inline u32 least(u32 a, u32 b) { return a < b ? a : b; }

struct Sum {
  template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct Most {
  __device__ f32 operator()(f32 a, f32 b) const { return fmaxf(a, b); }
};

struct Least {
  __device__ u64 operator()(u64 a, u64 b) const { return a < b ? a : b; }
};

/** What is ordered as x is, NaN at the ends; both zeros are one. */
__device__ inline u32 key_of(f32 x) {
  const u32 bits = x == 0 ? 0 : float_to_bits(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
/** Ordered by x, then by the place. */
__device__ inline u64 placed(f32 x, u32 place) { return static_cast<u64>(key_of(x)) << 32 | place; }
constexpr u64 NOWHERE = ~0ull;

/** The same on all lanes, in an order that does not depend on who is first. */
template <class T, class Combine> __device__ T over_warp(T value, Combine combine) {
  for (u32 apart = WARP / 2; apart > 0; apart /= 2) {
    value = combine(value, __shfl_xor_sync(ALL, value, apart));
  }
  return value;
}

/** The same on all threads of a block of so many; all of them must come here. */
template <u32 THREADS, class T, class Combine> __device__ T over_block(T value, Combine combine) {
  if constexpr (THREADS == WARP) return over_warp(value, combine);
  __shared__ T parts[THREADS / WARP];
  value = over_warp(value, combine);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
  __syncthreads();
  value = parts[0];
  for (u32 i = 1; i < THREADS / WARP; i++) value = combine(value, parts[i]);
  __syncthreads();
  return value;
}

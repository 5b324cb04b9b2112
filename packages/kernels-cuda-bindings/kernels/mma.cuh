// Tensor cores: a warp's product of fragments, D = A·B + C, A 16 × k and B k × 8, and copies that run beside it.
//
// Lane l has row g = l / 4 and place t = l % 4 (PTX ISA, matrix fragments for mma.m16n8k16 and .m16n8k32):
//   A, f16: (g, 2t…) (g + 8, 2t…) (g, 2t + 8…) (g + 8, 2t + 8…), two numbers a register
//   B, f16: (2t…, g) (2t + 8…, g)
//   A, bytes: (g, 4t…) (g + 8, 4t…) (g, 4t + 16…) (g + 8, 4t + 16…), four numbers a register
//   B, bytes: (4t…, g) (4t + 16…, g)
//   bf16 lies as f16, E4M3 (FP8) as bytes
//   C and D: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
#pragma once
#include "common.cuh"

#ifdef LOWBIT_EMULATION
#include "mma.h"
#define NEWER 1
#define FP8 1
#else
#define NEWER (__CUDA_ARCH__ >= 800)
#define FP8 (__CUDA_ARCH__ >= 890)
#endif

/** Halves; their sums are f32. */
__device__ inline void mma_halves(f32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef LOWBIT_EMULATION
  emulation::multiply_halves(c, a, b);
#elif NEWER
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (u32 half = 0; half < 2; half++) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}

/** bf16; their sums are f32. From sm_80 on. */
__device__ inline void mma_brains(f32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef LOWBIT_EMULATION
  emulation::multiply_brains(c, a, b);
#elif NEWER
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("trap;");
#endif
}

/** E4M3 (FP8); their sums are f32. From sm_89 on. */
__device__ inline void mma_fp8(f32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef LOWBIT_EMULATION
  emulation::multiply_fp8(c, a, b);
#elif FP8
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("trap;");
#endif
}

/** A has bytes without a sign, B with one. */
__device__ inline void mma_bytes(int (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef LOWBIT_EMULATION
  emulation::multiply_bytes(c, a, b);
#elif NEWER
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (u32 half = 0; half < 2; half++) {
    for (u32 top = 0; top < 2; top++) {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                   : "+r"(c[2 * top]), "+r"(c[2 * top + 1])
                   : "r"(a[2 * half + top]), "r"(b[half]));
    }
  }
#endif
}

/** a · b + c of two halves each. */
__device__ inline u32 fma_halves(u32 a, u32 b, u32 c) {
#ifdef LOWBIT_EMULATION
  return emulation::fma_halves(a, b, c);
#else
  u32 out;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
#endif
}

/** Copies 4, 8 or 16 bytes into shared memory; from sm_80 on without waiting. */
template <u32 BYTES> __device__ inline void copy_async(void *to, const void *from) {
#ifdef LOWBIT_EMULATION
  emulation::copy_later(to, from, BYTES);
#elif !NEWER
  for (u32 i = 0; i < BYTES / 4; i++) static_cast<u32 *>(to)[i] = static_cast<const u32 *>(from)[i];
#else
  const u32 shared = static_cast<u32>(__cvta_generic_to_shared(to));
  // What is read once passes by the first cache.
  if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(from), "n"(BYTES) : "memory");
#endif
}

/** Ends a group of copies. */
__device__ inline void copies_end() {
#ifdef LOWBIT_EMULATION
  emulation::end_copies();
#elif NEWER
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/** Waits until all but the last so many groups of this thread have arrived. */
template <u32 GROUPS> __device__ inline void copies_wait() {
#ifdef LOWBIT_EMULATION
  emulation::wait_for_copies(GROUPS);
#elif NEWER
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

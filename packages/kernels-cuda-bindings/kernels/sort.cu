// Bitonic sorts (Batcher, 1968) of segments side by side: words of 64 bits, a key above and a place below. The size of a
// segment is a power of two. Every second merge is a descending one, but for the last of a segment.
#include "common.cuh"

/** Words that a block sorts in its own memory. */
constexpr u32 CHUNK = 512;
constexpr u32 SORTERS = CHUNK / 2;

struct Sort {
  u64 *pairs;
  /** Words that there are, in whole segments. */
  u32 count;
  /** The merges of `begin`, 2 · begin, … `end` words. */
  u32 begin;
  u32 end;
  /** Words of a segment. */
  u32 size;
  u32 stride;
};

__device__ inline bool descending(const Sort &p, u32 i, u32 merged) { return merged < p.size && i & merged; }

/** All strides of merges that lie within chunks, and the last strides of a larger merge. */
KERNEL(sort_chunks, Sort, 256) {
  __shared__ u64 held[CHUNK];
  const u32 first = blockIdx.x * CHUNK, lane = threadIdx.x;
  for (u32 i = lane; i < CHUNK; i += SORTERS) held[i] = first + i < p.count ? p.pairs[first + i] : NOWHERE;
  for (u32 merged = p.begin; merged <= p.end; merged *= 2) {
    for (u32 stride = merged / 2 < SORTERS ? merged / 2 : SORTERS; stride > 0; stride /= 2) {
      __syncthreads();
      const u32 i = lane / stride * stride * 2 + lane % stride;
      const u64 a = held[i], b = held[i + stride];
      if ((a > b) != descending(p, first + i, merged)) {
        held[i] = b;
        held[i + stride] = a;
      }
    }
  }
  __syncthreads();
  for (u32 i = lane; i < CHUNK; i += SORTERS) {
    if (first + i < p.count) p.pairs[first + i] = held[i];
  }
}

/** One stride of a merge that is wider than a chunk: `begin` words. */
KERNEL(sort_across, Sort, 128) {
  const u32 n = element();
  if (n >= p.count / 2) return;
  const u32 i = n / p.stride * p.stride * 2 + n % p.stride;
  const u64 a = p.pairs[i], b = p.pairs[i + p.stride];
  if ((a > b) == descending(p, i, p.begin)) return;
  p.pairs[i] = b;
  p.pairs[i + p.stride] = a;
}

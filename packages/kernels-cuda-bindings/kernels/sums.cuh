// Sums over what has one code, in an order that is always the same: threads own entries and look through the codes,
// which come by in shared memory. Several stretches of codes are looked through side by side and added afterwards.
#pragma once
#include "common.cuh"

struct Sums {
  f64 *out;
  u32 entries;
  u32 tables;
  /** Threads that share out the entries; others look through another part of the codes. */
  u32 width;
  u32 tiles;
  u32 stretches;
  u32 stretch;
};

constexpr u32 SUM_THREADS = 256;

/** `items` of the table g; code(g, i); value(g, i, e) for e < values ≤ MOST. out [stretches, tables, entries, values]. */
template <u32 MOST, class Items, class Code, class Value>
__device__ void sum_by_code(const Sums &p, u32 values, Items items, Code code, Value value) {
  __shared__ u32 held[SUM_THREADS];
  __shared__ f64 parts[SUM_THREADS];
  const u32 lane = threadIdx.x, piece = blockIdx.x % p.stretches;
  const u32 tile = blockIdx.x / p.stretches % p.tiles, g = blockIdx.x / (p.stretches * p.tiles);
  const u32 slice = lane / p.width * p.width, mine = tile * SUM_THREADS + lane % p.width;
  f64 sums[MOST] = {};
  const u32 all = items(g), last = (piece + 1) * p.stretch, end = all < last ? all : last;
  for (u32 begin = piece * p.stretch; begin < end; begin += SUM_THREADS) {
    held[lane] = begin + lane < end ? code(g, begin + lane) : ~0u;
    __syncthreads();
    for (u32 j = slice; j < slice + p.width; j++) {
      if (held[j] != mine) continue;
#pragma unroll
      for (u32 e = 0; e < MOST; e++) {
        if (e < values) sums[e] += value(g, begin + j, e);
      }
    }
    __syncthreads();
  }
  f64 *out = p.out + (static_cast<size_t>(piece) * p.tables * p.entries + g * p.entries + mine) * values;
#pragma unroll
  for (u32 e = 0; e < MOST; e++) {
    if (e >= values) break;
    parts[lane] = sums[e];
    __syncthreads();
    if (slice == 0 && mine < p.entries) {
      f64 sum = 0;
      for (u32 other = lane; other < SUM_THREADS; other += p.width) sum += parts[other];
      out[e] = sum;
    }
    __syncthreads();
  }
}

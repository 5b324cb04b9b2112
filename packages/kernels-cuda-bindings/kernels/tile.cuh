// A tile of 32 × 32 of out = A·B, of any A and B that can be asked for an element. 64 threads, 4 × 4 outputs each.
#pragma once
#include "common.cuh"

constexpr u32 TILE = 32;
constexpr u32 TILE_DEPTH = 16;
constexpr u32 TILE_THREADS = 64;
constexpr u32 EACH = 4;

/** a(i, k) and b(k, j) are asked only inside [rows, depth] and [depth, columns]; put(i, j, sum) likewise. */
template <class A, class B, class Put>
__device__ void tile_product(u32 rows, u32 columns, u32 depth, A a, B b, Put put) {
  __shared__ f32 left[TILE_DEPTH][TILE + 1];
  __shared__ f32 right[TILE_DEPTH][TILE + 1];
  const u32 across = (columns + TILE - 1) / TILE;
  const u32 top = blockIdx.x / across * TILE, start = blockIdx.x % across * TILE;
  const u32 row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
  f32 sums[EACH][EACH] = {};
  for (u32 from = 0; from < depth; from += TILE_DEPTH) {
    for (u32 i = threadIdx.x; i < TILE * TILE_DEPTH; i += TILE_THREADS) {
      const u32 k = i % TILE_DEPTH, line = i / TILE_DEPTH;
      const bool inside = from + k < depth;
      left[k][line] = inside && top + line < rows ? a(top + line, from + k) : 0.0f;
      right[k][line] = inside && start + line < columns ? b(from + k, start + line) : 0.0f;
    }
    __syncthreads();
    for (u32 k = 0; k < TILE_DEPTH; k++) {
      for (u32 i = 0; i < EACH; i++) {
        for (u32 j = 0; j < EACH; j++) sums[i][j] += left[k][row + i] * right[k][column + j];
      }
    }
    __syncthreads();
  }
  for (u32 i = 0; i < EACH; i++) {
    for (u32 j = 0; j < EACH; j++) {
      if (top + row + i < rows && start + column + j < columns) put(top + row + i, start + column + j, sums[i][j]);
    }
  }
}

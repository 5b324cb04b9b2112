// Attention of one query over positions, of keys and values that can be asked for a number.
#pragma once
#include "common.cuh"

/** Largest head. */
constexpr u32 HEAD = 512;

/**
 * 128 positions at a time are scored, a thread each, and their values are added up, a thread a channel; what was
 * added before shrinks where a larger score is found. scores(from) is the score of position from + thread, −∞ past the
 * last one; all threads ask at once. value(position, i) is of the head.
 */
template <class Scores, class Value>
__device__ void attend_scored(f32 *out, u32 size, u32 seen, Scores scores, Value value) {
  __shared__ f32 weights[LANES];
  const u32 lane = threadIdx.x;
  f32 most = -INFINITY, mass = 0, sums[HEAD / LANES] = {};
  for (u32 from = 0; from < seen; from += LANES) {
    const f32 score = scores(from);
    const f32 larger = fmaxf(most, over_block<LANES>(score, Most()));
    const f32 weight = from + lane < seen ? expf(score - larger) : 0.0f;
    weights[lane] = weight;
    const f32 shrink = expf(most - larger);
    mass = mass * shrink + over_block<LANES>(weight, Sum());
    most = larger;
    const u32 count = seen - from < LANES ? seen - from : LANES;
#pragma unroll
    for (u32 j = 0; j < HEAD / LANES; j++) {
      const u32 channel = j * LANES + lane;
      if (channel >= size) continue;
      f32 sum = sums[j] * shrink;
      for (u32 i = 0; i < count; i++) sum += weights[i] * value(from + i, channel);
      sums[j] = sum;
    }
    __syncthreads();
  }
#pragma unroll
  for (u32 j = 0; j < HEAD / LANES; j++) {
    const u32 channel = j * LANES + lane;
    if (channel < size) out[channel] = sums[j] / mass;
  }
}

/** key(position, i) is of the head, too. */
template <class Key, class Value>
__device__ void attend(const f32 *q, f32 *out, u32 size, u32 seen, f32 scale, Key key, Value value) {
  __shared__ f32 query[HEAD];
  for (u32 i = threadIdx.x; i < size; i += LANES) query[i] = q[i];
  __syncthreads();
  attend_scored(
      out, size, seen,
      [&](u32 from) {
        const u32 position = from + threadIdx.x;
        if (position >= seen) return -INFINITY;
        f32 score = 0;
        for (u32 i = 0; i < size; i++) score += query[i] * key(position, i);
        return score * scale;
      },
      value);
}

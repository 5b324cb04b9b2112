// What trains weights that are on their way to a palette: soft assignment, its gradient, equal values, Adam.
#include "common.cuh"

/**
 * −log(−log(u)) of an evenly distributed u, of which the hash gives 32 bits (mulberry32). Above ½ the logarithm is
 * that of the distance to 1, since f32 has few numbers there.
 */
__device__ inline f32 gumbel(u32 seed, u32 index) {
  u32 t = seed + (index + 1) * 0x6d2b79f5u;
  t = (t ^ t >> 15) * (1 | t);
  t = (t + (t ^ t >> 7) * (61 | t)) ^ t;
  t = t ^ t >> 14;
  const f32 heavy = t >= 0x80000000u ? -log1pf(-(static_cast<f32>(~t) + 0.5f) / 4294967296.0f)
                                     : -logf((static_cast<f32>(t) + 0.5f) / 4294967296.0f);
  return -logf(heavy);
}

struct SoftAssign {
  const f32 *x;
  const f32 *table;
  f32 *out;
  u32 k;
  u32 d;
  f32 temperature;
  u32 noisy;
  u32 seed;
};

constexpr u32 MOST_ENTRIES = 256;

/** A block a point: softmax over the entries of −|x − c|² / τ, or the nearest entry, of equals the first. */
KERNEL(soft_assign, SoftAssign, 128) {
  __shared__ f32 logits[MOST_ENTRIES];
  const f32 *x = p.x + blockIdx.x * p.d;
  f32 *out = p.out + blockIdx.x * p.k;
  f32 most = -INFINITY, mass = 0;
  for (u32 j = threadIdx.x; j < p.k; j += LANES) {
    f32 far = 0;
    for (u32 e = 0; e < p.d; e++) far += (x[e] - p.table[j * p.d + e]) * (x[e] - p.table[j * p.d + e]);
    logits[j] = p.temperature == 0 ? -far : -far / p.temperature;
    if (p.temperature != 0 && p.noisy) logits[j] += gumbel(p.seed, blockIdx.x * p.k + j);
    most = fmaxf(most, logits[j]);
  }
  const f32 peak = over_block<LANES>(most, Most());
  if (p.temperature == 0) {
    for (u32 j = threadIdx.x; j < p.k; j += LANES) {
      bool first = logits[j] == peak;
      for (u32 i = 0; i < j && first; i++) first = logits[i] != peak;
      out[j] = first ? 1.0f : 0.0f;
    }
    return;
  }
  for (u32 j = threadIdx.x; j < p.k; j += LANES) {
    logits[j] = expf(logits[j] - peak);
    mass += logits[j];
  }
  const f32 all = over_block<LANES>(mass, Sum());
  for (u32 j = threadIdx.x; j < p.k; j += LANES) out[j] = logits[j] / all;
}

struct SoftmaxGradient {
  const f32 *q;
  const f32 *g;
  f32 *out;
  u32 columns;
  f32 factor;
};

KERNEL(softmax_gradient, SoftmaxGradient, 128) {
  const u32 at = blockIdx.x * p.columns;
  f32 sum = 0;
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) sum += p.q[at + i] * p.g[at + i];
  const f32 mean = over_block<LANES>(sum, Sum());
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) p.out[at + i] = p.factor * p.q[at + i] * (p.g[at + i] - mean);
}

struct Adam {
  const f32 *g;
  f32 *x;
  f32 *mean;
  f32 *square;
  u32 count;
  f32 rate;
  f32 beta1;
  f32 beta2;
  /** 1 / (1 − βᵗ) */
  f32 first;
  f32 second;
};

KERNEL(adam, Adam, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const f32 g = p.g[i];
  const f32 m = p.beta1 * p.mean[i] + (1.0f - p.beta1) * g, v = p.beta2 * p.square[i] + (1.0f - p.beta2) * g * g;
  p.mean[i] = m;
  p.square[i] = v;
  const f32 size = sqrtf(v * p.second);
  if (size > 0) p.x[i] -= p.rate * m * p.first / size;
}

// The different values of a tensor: numbers are bits here. Each value, rounded, has a bin; the bins that hold
// something, counted through, are the values in order.

/** Ties go away from zero; both zeros are one. */
__device__ inline u32 key_of(u32 bits, u32 drop) {
  const u32 magnitude = ((bits & 0x7fffffffu) + (1u << (drop - 1))) >> drop, middle = 1u << (31 - drop);
  return bits >= 0x80000000u ? middle - magnitude : middle + magnitude;
}
__device__ inline u32 bits_of(u32 key, u32 drop) {
  const u32 middle = 1u << (31 - drop);
  return key < middle ? 0x80000000u | (middle - key) << drop : (key - middle) << drop;
}

struct Distinct {
  const u32 *x;
  u32 *bins;
  u32 *index;
  u32 *values;
  f32 *counts;
  u16 *codes;
  u32 *found;
  u32 count;
  u32 drop;
  u32 size;
  u32 most;
};

KERNEL(distinct_count, Distinct, 128) {
  const u32 i = element();
  if (i < p.count) atomicAdd(&p.bins[key_of(p.x[i], p.drop)], 1u);
}

KERNEL(distinct_list, Distinct, 256) {
  __shared__ u32 taken[256];
  const u32 share = (p.size + 255) / 256, begin = threadIdx.x * share;
  const u32 end = begin + share < p.size ? begin + share : p.size;
  u32 mine = 0, place = 0;
  for (u32 i = begin; i < end; i++) mine += p.bins[i] > 0;
  taken[threadIdx.x] = mine;
  __syncthreads();
  for (u32 i = 0; i < threadIdx.x; i++) place += taken[i];
  for (u32 i = begin; i < end; i++) {
    p.index[i] = place;
    if (p.bins[i] == 0) continue;
    if (place < p.most) {
      p.values[place] = bits_of(i, p.drop);
      p.counts[place] = static_cast<f32>(p.bins[i]);
    }
    place++;
  }
  if (threadIdx.x == 255) *p.found = place;
}

KERNEL(distinct_assign, Distinct, 128) {
  const u32 i = element();
  if (i < p.count) p.codes[i] = static_cast<u16>(p.index[key_of(p.x[i], p.drop)]);
}

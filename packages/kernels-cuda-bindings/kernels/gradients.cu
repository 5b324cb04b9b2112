// A decoder's operations backward.
#include "activations.cuh"
#include "attention.cuh"

struct NormInput {
  const f32 *dy;
  const f32 *x;
  const f32 *gain;
  f32 *dx;
  /** Each row's centre and factor, for the gradients of gain and bias. */
  f32 *stats;
  u32 columns;
  f32 epsilon;
  u32 centred;
};

/** Adds the gradient of x, a block a row. */
KERNEL(norm_gradient, NormInput, 128) {
  const f32 *x = p.x + blockIdx.x * p.columns, *dy = p.dy + blockIdx.x * p.columns;
  f32 *dx = p.dx + blockIdx.x * p.columns;
  const f32 size = static_cast<f32>(p.columns);
  f32 centre = 0, squares = 0, together = 0, alone = 0;
  if (p.centred) {
    f32 sum = 0;
    for (u32 i = threadIdx.x; i < p.columns; i += LANES) sum += x[i];
    centre = over_block<LANES>(sum, Sum()) / size;
  }
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) squares += (x[i] - centre) * (x[i] - centre);
  const f32 factor = 1.0f / sqrtf(over_block<LANES>(squares, Sum()) / size + p.epsilon);
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    const f32 d = dy[i] * p.gain[i];
    together += d * (x[i] - centre) * factor;
    alone += d;
  }
  const f32 along = over_block<LANES>(together, Sum()) / size;
  const f32 level = over_block<LANES>(alone, Sum()) / size;
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    const f32 unit = (x[i] - centre) * factor, d = dy[i] * p.gain[i];
    dx[i] += factor * (d - (p.centred ? level : 0.0f) - unit * along);
  }
  if (threadIdx.x == 0) {
    p.stats[blockIdx.x * 2] = centre;
    p.stats[blockIdx.x * 2 + 1] = factor;
  }
}

struct NormTerms {
  const f32 *dy;
  const f32 *x;
  const f32 *stats;
  f32 *out;
  u32 count;
  u32 rows;
  u32 scaled;
};

/** Added to the gradients of gain (times the normalized x) or bias, a thread a column; sums of 64 rows apart. */
KERNEL(norm_terms, NormTerms, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  f32 sum = 0;
  for (u32 begin = 0; begin < p.rows; begin += 64) {
    f32 part = 0;
    for (u32 row = begin; row < begin + 64 && row < p.rows; row++) {
      const f32 value = p.dy[row * p.count + i];
      const f32 unit = (p.x[row * p.count + i] - p.stats[row * 2]) * p.stats[row * 2 + 1];
      part += p.scaled ? value * unit : value;
    }
    sum += part;
  }
  p.out[i] += sum;
}

struct ActivateGradient {
  const f32 *dy;
  const f32 *gate;
  const f32 *up;
  f32 *d_gate;
  f32 *d_up;
  u32 count;
  u32 kind;
};

/** The results may be written over what is read: all is read first. */
KERNEL(activate_gradient, ActivateGradient, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const f32 x = p.gate[i], d = p.dy[i], up = p.up ? p.up[i] : 1.0f;
  if (p.up) p.d_up[i] = d * activated(p.kind, x);
  p.d_gate[i] = d * up * slope(p.kind, x);
}

struct AttentionGradient {
  const f32 *q;
  const f32 *k;
  const f32 *v;
  const f32 *dy;
  f32 *dq;
  f32 *dk;
  f32 *dv;
  /** Of each query and head: the largest score, the sum of the exponentials, and Σ p · dp. */
  f32 *stats;
  u32 heads;
  u32 sharers;
  u32 size;
  u32 start;
  u32 rows;
  f32 scale;
};

constexpr u32 PARTS = HEAD / LANES;

struct Pair {
  f32 score;
  f32 d;
};

/** Two products over a head at once. */
__device__ inline Pair both(const f32 *a, const f32 *b, const f32 *c, const f32 *d, u32 size) {
  Pair sums = {0, 0};
  for (u32 i = 0; i < size; i++) {
    sums.score += a[i] * b[i];
    sums.d += c[i] * d[i];
  }
  return sums;
}

/** exp of what is 0 at most: far below it is a small number, not NaN. */
__device__ inline f32 share_of(f32 x) { return expf(fmaxf(x, -87.0f)); }

/** The gradient of a query: a block for each query and head. */
KERNEL(attention_gradient_queries, AttentionGradient, 128) {
  __shared__ f32 query[HEAD];
  __shared__ f32 slopes[HEAD];
  __shared__ f32 weights[LANES];
  const u32 row = blockIdx.x / p.heads, head = blockIdx.x % p.heads, lane = threadIdx.x;
  const u32 seen = p.start + row + 1, width = p.sharers * p.size;
  const u32 at = blockIdx.x * p.size, column = head * p.sharers / p.heads * p.size;
  for (u32 i = lane; i < p.size; i += LANES) {
    query[i] = p.q[at + i] * p.scale;
    slopes[i] = p.dy[at + i];
  }
  __syncthreads();
  f32 peak = -3e38f, mass = 0, level = 0;
  for (u32 key = lane; key < seen; key += LANES) {
    const Pair pair = both(query, p.k + key * width + column, slopes, p.v + key * width + column, p.size);
    const f32 most = fmaxf(peak, pair.score), shrink = share_of(peak - most), weight = expf(pair.score - most);
    mass = mass * shrink + weight;
    level = level * shrink + weight * pair.d;
    peak = most;
  }
  const f32 top = over_block<LANES>(peak, Most()), share = share_of(peak - top);
  const f32 whole = over_block<LANES>(mass * share, Sum()), mean = over_block<LANES>(level * share, Sum()) / whole;
  f32 sums[PARTS] = {};
  for (u32 begin = 0; begin < seen; begin += LANES) {
    const u32 key = begin + lane;
    f32 ds = 0;
    if (key < seen) {
      const Pair pair = both(query, p.k + key * width + column, slopes, p.v + key * width + column, p.size);
      ds = p.scale * share_of(pair.score - top) / whole * (pair.d - mean);
    }
    weights[lane] = ds;
    __syncthreads();
    const u32 count = seen - begin < LANES ? seen - begin : LANES;
    for (u32 s = 0; s < count; s++) {
#pragma unroll
      for (u32 part = 0; part < PARTS; part++) {
        const u32 i = lane + part * LANES;
        if (i < p.size) sums[part] += weights[s] * p.k[(begin + s) * width + column + i];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (u32 part = 0; part < PARTS; part++) {
    const u32 i = lane + part * LANES;
    if (i < p.size) p.dq[at + i] = sums[part];
  }
  if (lane == 0) {
    p.stats[blockIdx.x * 3] = top;
    p.stats[blockIdx.x * 3 + 1] = whole;
    p.stats[blockIdx.x * 3 + 2] = mean;
  }
}

/** The gradients of a key and its value: a block for each position and head of keys, over all that have seen it. */
KERNEL(attention_gradient_keys, AttentionGradient, 128) {
  __shared__ f32 key[HEAD];
  __shared__ f32 value[HEAD];
  __shared__ f32 slopes[LANES];
  __shared__ f32 shares[LANES];
  const u32 position = blockIdx.x / p.sharers, sharer = blockIdx.x % p.sharers, lane = threadIdx.x;
  const u32 line = blockIdx.x * p.size, together = p.heads / p.sharers;
  const u32 first = position > p.start ? position - p.start : 0, from = first < p.rows ? first : p.rows;
  const u32 count = (p.rows - from) * together;
  f32 key_sums[PARTS] = {}, value_sums[PARTS] = {};
  if (count > 0) {
    for (u32 i = lane; i < p.size; i += LANES) {
      key[i] = p.k[line + i];
      value[i] = p.v[line + i];
    }
  }
  __syncthreads();
  for (u32 begin = 0; begin < count; begin += LANES) {
    const u32 n = begin + lane;
    f32 ds = 0, share = 0;
    if (n < count) {
      const u32 query = (from + n / together) * p.heads + sharer * together + n % together;
      const Pair pair = both(p.q + query * p.size, key, p.dy + query * p.size, value, p.size);
      const f32 *stat = p.stats + query * 3;
      share = share_of(pair.score * p.scale - stat[0]) / stat[1];
      ds = p.scale * share * (pair.d - stat[2]);
    }
    slopes[lane] = ds;
    shares[lane] = share;
    __syncthreads();
    const u32 these = count - begin < LANES ? count - begin : LANES;
    for (u32 s = 0; s < these; s++) {
      const u32 m = begin + s;
      const u32 at = ((from + m / together) * p.heads + sharer * together + m % together) * p.size;
#pragma unroll
      for (u32 part = 0; part < PARTS; part++) {
        const u32 i = lane + part * LANES;
        if (i >= p.size) continue;
        key_sums[part] += slopes[s] * p.q[at + i];
        value_sums[part] += shares[s] * p.dy[at + i];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (u32 part = 0; part < PARTS; part++) {
    const u32 i = lane + part * LANES;
    if (i >= p.size) continue;
    p.dk[line + i] = key_sums[part];
    p.dv[line + i] = value_sums[part];
  }
}

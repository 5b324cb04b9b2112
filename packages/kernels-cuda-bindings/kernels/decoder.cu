// A decoder's operations between its matrices, and what is done with logits.
#include "activations.cuh"
#include "attention.cuh"

struct Norm {
  const f32 *x;
  const f32 *gain;
  const f32 *bias;
  f32 *out;
  u32 columns;
  f32 epsilon;
  u32 centred;
};

/** A block a row: out = (x − centre) / √(mean((x − centre)²) + ε) · gain + bias; an rms norm has centre 0. */
KERNEL(normalize, Norm, 128) {
  const f32 *x = p.x + blockIdx.x * p.columns;
  f32 *out = p.out + blockIdx.x * p.columns;
  const f32 columns = static_cast<f32>(p.columns);
  f32 centre = 0, squares = 0;
  if (p.centred) {
    f32 sum = 0;
    for (u32 i = threadIdx.x; i < p.columns; i += LANES) sum += x[i];
    centre = over_block<LANES>(sum, Sum()) / columns;
  }
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) squares += (x[i] - centre) * (x[i] - centre);
  const f32 factor = 1.0f / sqrtf(over_block<LANES>(squares, Sum()) / columns + p.epsilon);
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    out[i] = (x[i] - centre) * factor * p.gain[i] + (p.bias ? p.bias[i] : 0.0f);
  }
}

struct Add {
  f32 *x;
  const f32 *y;
  u32 count;
  /** Numbers of y: all, or those of one row that is added to every row. */
  u32 period;
};

KERNEL(add, Add, 128) {
  const u32 i = element();
  if (i < p.count) p.x[i] += p.y[i % p.period];
}

struct Rope {
  f32 *x;
  const f32 *cosines;
  const f32 *sines;
  u32 count;
  u32 columns;
  u32 half;
  u32 start;
};

/** A thread a pair (i, i + headSize / 2) of a head. */
KERNEL(rope, Rope, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 pairs = p.columns / 2, row = i / pairs, pair = i % pairs;
  f32 *first = p.x + row * p.columns + pair / p.half * p.half * 2 + pair % p.half;
  const u32 turn = (p.start + row) * p.half + pair % p.half;
  const f32 c = p.cosines[turn], s = p.sines[turn], a = first[0], b = first[p.half];
  first[0] = a * c - b * s;
  first[p.half] = b * c + a * s;
}

struct Activate {
  const f32 *gate;
  const f32 *up;
  f32 *out;
  u32 count;
  u32 kind;
};

KERNEL(activate, Activate, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const f32 value = activated(p.kind, p.gate[i]);
  p.out[i] = p.up ? value * p.up[i] : value;
}

struct Attention {
  const f32 *q;
  const f32 *k;
  const f32 *v;
  f32 *out;
  u32 heads;
  u32 sharers;
  u32 size;
  u32 start;
  f32 scale;
};

/** A block for each row and head. */
KERNEL(attention, Attention, 128) {
  const u32 row = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const u32 width = p.sharers * p.size, shared = head * p.sharers / p.heads * p.size;
  attend(
      p.q + blockIdx.x * p.size, p.out + blockIdx.x * p.size, p.size, p.start + row + 1, p.scale,
      [&](u32 position, u32 i) { return p.k[position * width + shared + i]; },
      [&](u32 position, u32 i) { return p.v[position * width + shared + i]; });
}

/** exp of differences of logits: those of 1e30 give a clean 0. */
__device__ inline f32 power(f32 x) { return x < -87.0f ? 0.0f : expf(x); }

struct Softmax {
  f32 peak;
  f32 mass;
};

/** softmax(x)[i] = power(x[i] − peak) / mass. */
__device__ inline Softmax softmax_of(const f32 *x, u32 columns) {
  f32 most = -3.4028235e38f, sum = 0;
  for (u32 i = threadIdx.x; i < columns; i += LANES) most = fmaxf(most, x[i]);
  const f32 peak = over_block<LANES>(most, Most());
  for (u32 i = threadIdx.x; i < columns; i += LANES) sum += power(x[i] - peak);
  return {peak, over_block<LANES>(sum, Sum())};
}

struct Logits {
  const f32 *x;
  /** Tokens that came, or logits to compare with. */
  const u32 *targets;
  const f32 *truth;
  f32 *out;
  u32 columns;
  f32 factor;
};

KERNEL(softmax, Logits, 128) {
  const u32 at = blockIdx.x * p.columns;
  const Softmax all = softmax_of(p.x + at, p.columns);
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) p.out[at + i] = power(p.x[at + i] - all.peak) / all.mass;
}

KERNEL(cross_entropy, Logits, 128) {
  const f32 *x = p.x + blockIdx.x * p.columns;
  const Softmax all = softmax_of(x, p.columns);
  if (threadIdx.x == 0) p.out[blockIdx.x] = logf(all.mass) + (all.peak - x[p.targets[blockIdx.x]]);
}

KERNEL(divergence, Logits, 128) {
  const f32 *guess = p.x + blockIdx.x * p.columns, *truth = p.truth + blockIdx.x * p.columns;
  const Softmax is = softmax_of(guess, p.columns), right = softmax_of(truth, p.columns);
  f32 sum = 0;
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    const f32 q = truth[i] - right.peak, weight = power(q);
    if (weight > 0) sum += weight * (q - (guess[i] - is.peak));
  }
  const f32 mean = over_block<LANES>(sum, Sum()) / right.mass;
  if (threadIdx.x == 0) p.out[blockIdx.x] = fmaxf(0.0f, mean - logf(right.mass) + logf(is.mass));
}

KERNEL(cross_entropy_gradient, Logits, 128) {
  const u32 at = blockIdx.x * p.columns;
  const Softmax all = softmax_of(p.x + at, p.columns);
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    const f32 hit = i == p.targets[blockIdx.x] ? 1.0f : 0.0f;
    p.out[at + i] = p.factor * (power(p.x[at + i] - all.peak) / all.mass - hit);
  }
}

KERNEL(divergence_gradient, Logits, 128) {
  const u32 at = blockIdx.x * p.columns;
  const Softmax is = softmax_of(p.x + at, p.columns), right = softmax_of(p.truth + at, p.columns);
  for (u32 i = threadIdx.x; i < p.columns; i += LANES) {
    const f32 wanted = power(p.truth[at + i] - right.peak) / right.mass;
    p.out[at + i] = p.factor * (power(p.x[at + i] - is.peak) / is.mass - wanted);
  }
}

// Products on tensor cores with weights that are decoded on the way: tables, vectors, and whatever else lies in words.
//
// A warp has 16 outputs; of 64 inputs at a time their weights become halves in shared memory, 32 in a row of one output a
// lane, which are the left side of mma then. As x, a row of weights is divided by a power of two first, so
// that its largest number lies in [1, 2): then halves hold it. bf16 has the range of f32 and needs no factors.
#include "mma.cuh"
#include "words.cuh"

constexpr u32 CHUNK = 64;
constexpr u32 GROUP = 32;
constexpr u32 COLUMNS = 8;
constexpr u32 ROWS = 16;
/** A row of halves in shared memory: two rows' quads that are read together lie in different banks. */
constexpr u32 LINE = 96;

__device__ inline f32 any_weight(const Words &w, u32 kind, u32 n, u32 k) {
  switch (static_cast<Kind>(kind)) {
  case Kind::f32: return weight_of<Kind::f32>(w, n, k);
  case Kind::f16: return weight_of<Kind::f16>(w, n, k);
  case Kind::bf16: return weight_of<Kind::bf16>(w, n, k);
  case Kind::integer: return weight_of<Kind::integer>(w, n, k);
  default: return weight_of<Kind::table>(w, n, k);
  }
}

struct RowFactors {
  Words weight;
  /** Of each output: what its weights are multiplied by to become halves, and what undoes it. */
  f32 *factors;
  u32 kind;
};

/** A warp an output. */
KERNEL(row_factors, RowFactors, 32) {
  const u32 n = blockIdx.x;
  f32 most = 0;
  for (u32 k = threadIdx.x; k < p.weight.depth; k += WARP) most = fmaxf(most, fabsf(any_weight(p.weight, p.kind, n, k)));
  most = over_warp(most, Most());
  if (threadIdx.x > 0) return;
  const bool usual = finite(most) && most >= 1.1754944e-38f;
  const f32 factor = usual ? fminf(bits_to_float(float_to_bits(most) & 0x7f800000u), 8.5070592e37f) : 1.0f;
  p.factors[2 * n] = 1.0f / factor;
  p.factors[2 * n + 1] = factor * row_scale_of(p.weight, n);
}

struct Decoded {
  Words weight;
  /** Of row_factors; null where all are one. */
  const f32 *row_factors;
  /** x in halves [lines, inputs filled up to chunks], and what each of its rows is multiplied by. */
  const u32 *q;
  const f32 *factors;
  f32 *out;
  u32 kind;
  u32 tokens;
  u32 chunks;
  u32 keep;
};

struct alignas(16) Quad {
  u32 w[4];
};

template <bool BRAINS> __device__ u32 half_of(f32 x) { return BRAINS ? float_to_brain(x) : float_to_half(x); }

/** 32 weights of an output from input k on, where a word's weights share their scales. */
template <Kind kind, u32 BITS, bool BRAINS>
__device__ void decode_words(const Words &w, u32 n, u32 k, f32 factor, u32 *to) {
  constexpr u32 EACH = 32 / BITS;
  static_assert(EACH >= 2, "a word has pairs");
  for (u32 i = 0; i < GROUP; i += EACH) {
    const bool inside = k + i < w.depth;
    const u32 word = inside ? w.w[n * w.words + (k + i) / EACH] : 0, at = least(k + i, w.depth - 1);
    const f32 slope = scale_of(w, n, at), level = bias_of(w, n, at) - slope * zero_of(w, n, at);
#pragma unroll
    for (u32 j = 0; j < EACH; j += 2) {
      u32 pair = 0;
#pragma unroll
      for (u32 e = 0; e < 2; e++) {
        const u32 place = k + i + j + e;
        if (place >= w.depth) continue;
        const f32 value = slope * grid_value<kind>(w, word, j + e, 0, n, place) + level;
        pair |= half_of<BRAINS>(value * factor) << (16 * e);
      }
      to[(i + j) / 2] = pair;
    }
  }
}

/** However they lie. */
template <Kind kind, bool BRAINS> __device__ void decode_each(const Words &w, u32 n, u32 k, f32 factor, u32 *to) {
  for (u32 i = 0; i < GROUP; i += 2) {
    const u32 low = k + i < w.depth ? half_of<BRAINS>(weight_of<kind>(w, n, k + i) * factor) : 0;
    const u32 high = k + i + 1 < w.depth ? half_of<BRAINS>(weight_of<kind>(w, n, k + i + 1) * factor) : 0;
    to[i / 2] = low | high << 16;
  }
}

template <Kind kind, bool BRAINS> __device__ void decode_codes(const Words &w, u32 n, u32 k, f32 factor, u32 *to) {
  const bool alone = w.length == 1 && w.even;
  if (alone && w.bits == 2) decode_words<kind, 2, BRAINS>(w, n, k, factor, to);
  else if (alone && w.bits == 4) decode_words<kind, 4, BRAINS>(w, n, k, factor, to);
  else if (alone && w.bits == 8) decode_words<kind, 8, BRAINS>(w, n, k, factor, to);
  else decode_each<kind, BRAINS>(w, n, k, factor, to);
}

template <bool BRAINS> __device__ void decode_any(const Words &w, u32 kind, u32 n, u32 k, f32 factor, u32 *to) {
  switch (static_cast<Kind>(kind)) {
  case Kind::f32: return decode_each<Kind::f32, BRAINS>(w, n, k, factor, to);
  case Kind::f16: return decode_words<Kind::f16, 16, BRAINS>(w, n, k, factor, to);
  case Kind::bf16: return decode_words<Kind::bf16, 16, BRAINS>(w, n, k, factor, to);
  case Kind::integer: return decode_codes<Kind::integer, BRAINS>(w, n, k, factor, to);
  default: return decode_codes<Kind::table, BRAINS>(w, n, k, factor, to);
  }
}

/**
 * T eights of tokens; a warp has 16 outputs. Warps of a block stand side by side over the outputs, or share out the
 * inputs of the same ones (SPLIT).
 */
template <bool BRAINS, u32 T, u32 WARPS, u32 SPLIT> __device__ void decoded_product(const Decoded &p) {
  __shared__ u32 ring[WARPS][ROWS][LINE / 2];
  const Words &w = p.weight;
  constexpr u32 OUTPUTS = WARPS / SPLIT * ROWS;
  const u32 wide = (w.rows + OUTPUTS - 1) / OUTPUTS;
  const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, split = warp % SPLIT;
  const u32 top = blockIdx.x % wide * OUTPUTS + warp / SPLIT * ROWS, token = blockIdx.x / wide * T * COLUMNS;
  u32(&halves)[ROWS][LINE / 2] = ring[warp];
  const u32 mine = least(top + lane / 2, w.rows - 1), side = lane % 2;
  const f32 factor = p.row_factors ? p.row_factors[2 * mine] : 1.0f;
  f32 totals[T][4] = {};
  for (u32 chunk = split; chunk < p.chunks; chunk += SPLIT) {
    decode_any<BRAINS>(w, p.kind, mine, chunk * CHUNK + side * GROUP, factor, &halves[lane / 2][side * GROUP / 2]);
    __syncwarp();
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      // As in tiles.cu place t of a lane has 8 inputs in a row.
      const u32 place = (half * GROUP + 8 * t) / 2;
      const Quad one = *reinterpret_cast<const Quad *>(&halves[g][place]);
      const Quad other = *reinterpret_cast<const Quad *>(&halves[8 + g][place]);
#pragma unroll
      for (u32 column = 0; column < T; column++) {
        const u32 row = token + column * COLUMNS + g;
        Quad x = {};
        if (row < p.tokens) x = *reinterpret_cast<const Quad *>(p.q + (row * p.chunks + chunk) * (CHUNK / 2) + place);
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
          const u32 a[4] = {one.w[2 * step], other.w[2 * step], one.w[2 * step + 1], other.w[2 * step + 1]};
          const u32 b[2] = {x.w[2 * step], x.w[2 * step + 1]};
          if constexpr (BRAINS) mma_brains(totals[column], a, b);
          else mma_halves(totals[column], a, b);
        }
      }
    }
    // What all have read may be written over.
    __syncwarp();
  }

  // The warps that share out the inputs add up, in their order.
  if constexpr (SPLIT > 1) {
    static_assert(sizeof(halves) >= sizeof(totals) * WARP, "a warp's totals must fit where its weights were");
    f32 *sums = reinterpret_cast<f32 *>(halves);
    for (u32 i = 0; i < T * 4; i++) sums[i * WARP + lane] = totals[i / 4][i % 4];
    __syncthreads();
    if (split > 0) return;
    for (u32 i = 0; i < T * 4; i++) {
      for (u32 other = 1; other < SPLIT; other++) {
        totals[i / 4][i % 4] += reinterpret_cast<const f32 *>(ring[warp + other])[i * WARP + lane];
      }
    }
  }
#pragma unroll
  for (u32 column = 0; column < T; column++) {
    for (u32 i = 0; i < 4; i++) {
      const u32 n = top + g + i / 2 * 8, row = token + column * COLUMNS + 2 * t + i % 2;
      if (n >= w.rows || row >= p.tokens) continue;
      const f32 back = p.row_factors ? p.row_factors[2 * n + 1] : row_scale_of(w, n);
      const f32 value = totals[column][i] * back * p.factors[row];
      f32 *out = p.out + static_cast<size_t>(row) * w.rows + n;
      *out = p.keep ? *out + value : value;
    }
  }
}

// Up to 16 tokens, or 64 at a time.
KERNEL(decoded_f16_few, Decoded, 256) { decoded_product<false, 2, 8, 8>(p); }
KERNEL(decoded_f16_many, Decoded, 128) { decoded_product<false, 8, 4, 1>(p); }
KERNEL(decoded_bf16_few, Decoded, 256) { decoded_product<true, 2, 8, 8>(p); }
KERNEL(decoded_bf16_many, Decoded, 128) { decoded_product<true, 8, 4, 1>(p); }

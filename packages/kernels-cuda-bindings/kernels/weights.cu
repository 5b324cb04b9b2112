// Products with matrices in words: out[t, n] = Σ_k x[t, k] · W[n, k].
#include "tile.cuh"
#include "words.cuh"

struct Product {
  Words weight;
  const f32 *x;
  f32 *out;
  u32 tokens;
  /** Columns of x, and the first that meets the weight. */
  u32 x_row;
  u32 x_from;
  u32 keep;
};

__device__ inline void put(const Product &p, u32 t, u32 n, f32 sum) {
  f32 *out = p.out + t * p.weight.rows + n;
  const f32 value = sum * row_scale_of(p.weight, n);
  *out = p.keep ? *out + value : value;
}

constexpr u32 FEW_ROWS = 4;
/** Outputs of a warp: they share what is read of x. */
constexpr u32 EACH_WARP = 2;
constexpr u32 OUTPUTS = EACH_WARP * LANES / WARP;

template <Kind kind, u32 BITS> constexpr bool FROM_MIDDLE = kind == Kind::integer && BITS <= 8;

/** The values of some codes of a word from `first` on, of integers their distance from the middle. */
template <Kind kind, u32 BITS, u32 COUNT>
__device__ void values_of(f32 (&out)[COUNT], const Words &w, u32 word, u32 first, u32 n, u32 k) {
#pragma unroll
  for (u32 i = 0; i < COUNT; i++) {
    if constexpr (FROM_MIDDLE<kind, BITS>) {
      // 2²³ + code has the code in its last bits: cheaper than a conversion.
      const u32 code = word >> ((first + i) * BITS) & ((1u << BITS) - 1);
      out[i] = bits_to_float(0x4b000000u | code) - (8388608.0f + static_cast<f32>(1u << (BITS - 1)));
    } else {
      out[i] = k + i < w.depth ? grid_value<kind>(w, word, first + i, 0, n, k + i) : 0.0f;
    }
  }
}

/** The block of a scale in which a lane's next word lies: a division for each word would cost more than its weights. */
struct Blocks {
  u32 per;
  u32 block;
  u32 rest;

  __device__ Blocks(const Words &w, u32 columns, u32 each, u32 lane) {
    per = columns == 0 || columns >= w.depth ? w.words : columns / each;
    block = lane / per;
    rest = lane % per;
    skip = WARP / per;
    more = WARP % per;
  }
  __device__ void next() {
    block += skip;
    rest += more;
    if (rest < per) return;
    rest -= per;
    block++;
  }

private:
  u32 skip;
  u32 more;
};

/** Where the row of a scale begins. */
__device__ inline u32 line_of(u32 at, u32 n, u32 rows, u32 across) { return rows > 0 ? at + n / rows * across : 0; }

/** A word a lane and output, whose weights share their scales: a weight is slope · value + level. */
template <Kind kind, u32 BITS> __device__ void meet_words(const Product &p, u32 top, f32 (&sums)[EACH_WARP][FEW_ROWS]) {
  constexpr u32 EACH = 32 / BITS, PIECE = EACH < 8 ? EACH : 8;
  const Words &w = p.weight;
  const bool aligned = p.x_row % 4 == 0 && p.x_from % 4 == 0;
  const u32 lane = threadIdx.x % WARP;
  constexpr bool CODES = FROM_MIDDLE<kind, BITS>;
  const f32 base = CODES ? w.lowest + w.step * static_cast<f32>(1u << (BITS - 1)) : 0.0f, step = CODES ? w.step : 1.0f;
  u32 rows[EACH_WARP], scales[EACH_WARP], zeros[EACH_WARP], biases[EACH_WARP];
#pragma unroll
  for (u32 r = 0; r < EACH_WARP; r++) {
    const u32 n = least(top + r, w.rows - 1);
    rows[r] = n * w.words;
    scales[r] = line_of(w.scale, n, w.scale_rows, w.scale_across);
    zeros[r] = line_of(w.zero, n, w.zero_rows, w.zero_across);
    biases[r] = line_of(w.bias, n, w.bias_rows, w.bias_across);
  }
  Blocks scale(w, w.scale_columns, EACH, lane), zero(w, w.zero_columns, EACH, lane), bias(w, w.bias_columns, EACH, lane);
  for (u32 at = lane; at < w.words; at += WARP, scale.next(), zero.next(), bias.next()) {
    const u32 begin = at * EACH;
    u32 words[EACH_WARP];
    f32 slopes[EACH_WARP], levels[EACH_WARP];
#pragma unroll
    for (u32 r = 0; r < EACH_WARP; r++) {
      words[r] = w.w[rows[r] + at];
      const f32 size = w.has_scale ? number(w, scales[r] + scale.block) : 1.0f;
      slopes[r] = size * step;
      levels[r] = w.has_zero ? (base - number(w, zeros[r] + zero.block)) * size : base * size;
      if (w.has_bias) levels[r] += number(w, biases[r] + bias.block);
    }
#pragma unroll
    for (u32 first = 0; first < EACH; first += PIECE) {
      const u32 k = begin + first;
      if (k >= w.depth) break;
      f32 values[EACH_WARP][PIECE];
#pragma unroll
      for (u32 r = 0; r < EACH_WARP; r++) {
        values_of<kind, BITS>(values[r], w, words[r], first, least(top + r, w.rows - 1), k);
      }
#pragma unroll
      for (u32 t = 0; t < FEW_ROWS; t++) {
        if (t >= p.tokens) continue;
        const f32 *from = p.x + t * p.x_row + p.x_from + k;
        f32 x[PIECE];
        if (PIECE % 4 == 0 && aligned && k + PIECE <= w.depth) {
#pragma unroll
          for (u32 i = 0; i < PIECE; i += 4) {
            const f32x4 four = *reinterpret_cast<const f32x4 *>(from + i);
            x[i] = four.x;
            x[i + 1] = four.y;
            x[i + 2] = four.z;
            x[i + 3] = four.w;
          }
        } else {
#pragma unroll
          for (u32 i = 0; i < PIECE; i++) x[i] = k + i < w.depth ? from[i] : 0.0f;
        }
        f32 all = 0;
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) all += x[i];
#pragma unroll
        for (u32 r = 0; r < EACH_WARP; r++) {
          f32 dot = 0;
#pragma unroll
          for (u32 i = 0; i < PIECE; i++) dot += x[i] * values[r][i];
          sums[r][t] += slopes[r] * dot + levels[r] * all;
        }
      }
    }
  }
}

/** 1 … 4 rows of x. */
template <Kind kind> __device__ void vector_product(const Product &p) {
  const Words &w = p.weight;
  const u32 top = blockIdx.x * OUTPUTS + threadIdx.x / WARP * EACH_WARP;
  const u32 lane = threadIdx.x % WARP;
  if (top >= w.rows) return;
  f32 sums[EACH_WARP][FEW_ROWS] = {};
  if constexpr (kind == Kind::f32) {
    meet_words<kind, 32>(p, top, sums);
  } else if constexpr (kind == Kind::f16 || kind == Kind::bf16) {
    meet_words<kind, 16>(p, top, sums);
  } else if (w.length == 1 && w.even) {
    if (w.bits == 1) meet_words<kind, 1>(p, top, sums);
    else if (w.bits == 2) meet_words<kind, 2>(p, top, sums);
    else if (w.bits == 4) meet_words<kind, 4>(p, top, sums);
    else if (w.bits == 8) meet_words<kind, 8>(p, top, sums);
    else meet_words<kind, 16>(p, top, sums);
  } else {
    for (u32 r = 0; r < EACH_WARP; r++) {
      const u32 n = least(top + r, w.rows - 1);
      for (u32 k = lane; k < w.depth; k += WARP) {
        const f32 value = weight_of<kind>(w, n, k);
#pragma unroll
        for (u32 t = 0; t < FEW_ROWS; t++) {
          if (t < p.tokens) sums[r][t] += value * p.x[t * p.x_row + p.x_from + k];
        }
      }
    }
  }
#pragma unroll
  for (u32 r = 0; r < EACH_WARP; r++) {
#pragma unroll
    for (u32 t = 0; t < FEW_ROWS; t++) {
      if (t >= p.tokens) continue;
      const f32 sum = over_warp(sums[r][t], Sum());
      if (lane == 0 && top + r < w.rows) put(p, t, top + r, sum);
    }
  }
}

template <Kind kind> __device__ void matrix_product(const Product &p) {
  const Words &w = p.weight;
  tile_product(
      p.tokens, w.rows, w.depth, [&](u32 t, u32 k) { return p.x[t * p.x_row + p.x_from + k]; },
      [&](u32 k, u32 n) { return weight_of<kind>(w, n, k); },
      [&](u32 t, u32 n, f32 sum) { put(p, t, n, sum); });
}

KERNEL(vector_f32, Product, 128) { vector_product<Kind::f32>(p); }
KERNEL(vector_f16, Product, 128) { vector_product<Kind::f16>(p); }
KERNEL(vector_bf16, Product, 128) { vector_product<Kind::bf16>(p); }
KERNEL(vector_integer, Product, 128) { vector_product<Kind::integer>(p); }
KERNEL(vector_table, Product, 128) { vector_product<Kind::table>(p); }

KERNEL(matrix_f32, Product, 64) { matrix_product<Kind::f32>(p); }
KERNEL(matrix_f16, Product, 64) { matrix_product<Kind::f16>(p); }
KERNEL(matrix_bf16, Product, 64) { matrix_product<Kind::bf16>(p); }
KERNEL(matrix_integer, Product, 64) { matrix_product<Kind::integer>(p); }
KERNEL(matrix_table, Product, 64) { matrix_product<Kind::table>(p); }

struct Gather {
  Words weight;
  /** Which rows; all where null. */
  const u32 *picked;
  /** Input feature of each stored column. */
  const u32 *order;
  f32 *out;
  u32 count;
  u32 out_row;
  u32 begin;
  u32 keep;
};

/** out[i, order[k]] = W[picked[i], k] over the stored columns of a stage. */
template <Kind kind> __device__ void gather_rows(const Gather &p) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 line = i / p.weight.depth, k = i % p.weight.depth;
  const u32 n = p.picked ? p.picked[line] : line;
  const u32 column = p.order ? p.order[p.begin + k] : p.begin + k;
  f32 *out = p.out + line * p.out_row + column;
  const f32 value = weight_of<kind>(p.weight, n, k) * row_scale_of(p.weight, n);
  *out = p.keep ? *out + value : value;
}

KERNEL(gather_f32, Gather, 128) { gather_rows<Kind::f32>(p); }
KERNEL(gather_f16, Gather, 128) { gather_rows<Kind::f16>(p); }
KERNEL(gather_bf16, Gather, 128) { gather_rows<Kind::bf16>(p); }
KERNEL(gather_integer, Gather, 128) { gather_rows<Kind::integer>(p); }
KERNEL(gather_table, Gather, 128) { gather_rows<Kind::table>(p); }

struct Arrange {
  const f32 *x;
  const u32 *order;
  const f32 *factors;
  f32 *out;
  u32 count;
  u32 columns;
};

/** x as the stored columns want it: x[order[i]] · factors[order[i]]. */
KERNEL(arrange, Arrange, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 column = p.order ? p.order[i % p.columns] : i % p.columns;
  const f32 value = p.x[i / p.columns * p.columns + column];
  p.out[i] = p.factors ? value * p.factors[column] : value;
}

struct AddBias {
  const f32 *x;
  const f32 *bias;
  f32 *out;
  u32 columns;
  u32 rows;
};

/** A bias of columns adds Σ_k x[t, k] · bias[k] to all outputs of a row. */
KERNEL(add_column_bias, AddBias, 128) {
  const f32 *x = p.x + blockIdx.x * p.columns;
  f32 sum = 0;
  for (u32 k = threadIdx.x; k < p.columns; k += LANES) sum += x[k] * p.bias[k];
  sum = over_block<LANES>(sum, Sum());
  for (u32 n = threadIdx.x; n < p.rows; n += LANES) p.out[blockIdx.x * p.rows + n] += sum;
}

struct Finish {
  f32 *out;
  const f32 *factors;
  const f32 *bias;
  u32 count;
  u32 columns;
};

/** Rows of a gathered matrix get their columns' factors and biases. */
KERNEL(finish_gather, Finish, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  f32 value = p.out[i];
  if (p.factors) value *= p.factors[i % p.columns];
  if (p.bias) value += p.bias[i % p.columns];
  p.out[i] = value;
}

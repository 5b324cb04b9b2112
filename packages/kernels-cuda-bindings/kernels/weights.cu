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
constexpr u32 OUTPUTS = 4;

/** 1 … 4 rows of x: a warp an output, a word a lane. */
template <Kind kind> __device__ void vector_product(const Product &p) {
  const Words &w = p.weight;
  const u32 n = blockIdx.x * OUTPUTS + threadIdx.x / WARP;
  const u32 lane = threadIdx.x % WARP;
  if (n >= w.rows) return;
  f32 sums[FEW_ROWS] = {};
  const auto meet = [&](u32 k, f32 value) {
    const f32 *x = p.x + p.x_from + k;
#pragma unroll
    for (u32 t = 0; t < FEW_ROWS; t++) {
      if (t < p.tokens) sums[t] += value * x[t * p.x_row];
    }
  };
  if (w.length == 1 && w.even) {
    const u32 each = 32 / w.bits;
    for (u32 at = lane; at < w.words; at += WARP) {
      const u32 word = w.w[n * w.words + at], first = at * each;
      const f32 scale = scale_of(w, n, first), zero = zero_of(w, n, first), bias = bias_of(w, n, first);
      for (u32 place = 0; place < each && first + place < w.depth; place++) {
        meet(first + place, (grid_value<kind>(w, word, place, 0, n, first + place) - zero) * scale + bias);
      }
    }
  } else {
    for (u32 k = lane; k < w.depth; k += WARP) meet(k, weight_of<kind>(w, n, k));
  }
#pragma unroll
  for (u32 t = 0; t < FEW_ROWS; t++) {
    if (t >= p.tokens) continue;
    const f32 sum = over_warp(sums[t], Sum());
    if (lane == 0) put(p, t, n, sum);
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

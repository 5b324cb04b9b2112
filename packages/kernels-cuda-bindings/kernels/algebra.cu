// The linear algebra of calibration.
#include "tile.cuh"

struct Strided {
  const f32 *a;
  const f32 *b;
  f32 *out;
  u32 rows;
  u32 columns;
  u32 depth;
  /** Numbers from an element of a to the next row and the next of its sum; of b to the next of its sum and column. */
  u32 a_row;
  u32 a_depth;
  u32 b_depth;
  u32 b_column;
  u32 out_row;
  u32 keep;
  f32 factor;
};

/** out[i, j] = factor · Σ_k a[i, k] · b[k, j], or added to what is there. */
KERNEL(product, Strided, 64) {
  tile_product(
      p.rows, p.columns, p.depth, [&](u32 i, u32 k) { return p.a[i * p.a_row + k * p.a_depth]; },
      [&](u32 k, u32 j) { return p.b[k * p.b_depth + j * p.b_column]; },
      [&](u32 i, u32 j, f32 sum) {
        f32 *out = p.out + i * p.out_row + j;
        *out = (p.keep ? *out : 0.0f) + p.factor * sum;
      });
}

struct Diagonal {
  const f32 *x;
  f32 *out;
  u32 count;
};

KERNEL(diagonal, Diagonal, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = p.x[i * (p.count + 1)];
}

struct Permute {
  const f32 *x;
  const u32 *order;
  f32 *out;
  u32 count;
  u32 columns;
  u32 wide;
};

KERNEL(permute_columns, Permute, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = p.x[i / p.columns * p.wide + p.order[i % p.columns]];
}

struct Moments {
  const f32 *x;
  f32 *out;
  u32 rows;
  u32 columns;
};

KERNEL(column_moments, Moments, 128) {
  const u32 i = element();
  if (i >= p.columns) return;
  f64 sum = 0, squares = 0;
  f32 least = p.x[i], most = least;
  for (u32 row = 0; row < p.rows; row++) {
    const f32 value = p.x[row * p.columns + i];
    sum += value;
    squares += static_cast<f64>(value) * value;
    least = fminf(least, value);
    most = fmaxf(most, value);
  }
  p.out[i] = static_cast<f32>(sum / p.rows);
  p.out[p.columns + i] = static_cast<f32>(squares / p.rows);
  p.out[2 * p.columns + i] = least;
  p.out[3 * p.columns + i] = most;
}

struct Scaled {
  const f32 *x;
  const f32 *row;
  const f32 *column;
  const f32 *bias;
  f32 *out;
  u32 count;
  u32 columns;
};

KERNEL(scale, Scaled, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 c = i % p.columns;
  f32 value = p.x[i];
  if (p.bias) value -= p.bias[c];
  if (p.row) value *= p.row[i / p.columns];
  if (p.column) value *= p.column[c];
  p.out[i] = value;
}

struct Times {
  f32 *x;
  const f32 *y;
  u32 count;
};

KERNEL(times, Times, 128) {
  const u32 i = element();
  if (i < p.count) p.x[i] *= p.y[i];
}

struct Transpose {
  const f32 *x;
  f32 *out;
  u32 count;
  u32 rows;
  u32 columns;
  u32 wide;
};

KERNEL(transpose, Transpose, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i % p.wide;
  p.out[i] = row < p.rows ? p.x[row * p.columns + i / p.wide] : 0.0f;
}

struct Rotate {
  f32 *x;
  const u32 *signs;
  u32 columns;
  u32 block;
};

/** Longest block of a rotation, kept by a block of threads in its own memory. */
constexpr u32 LONGEST = 8192;

/** x → H · diag(signs) · x, a block of threads each: the fast Walsh-Hadamard transform. */
KERNEL(rotate, Rotate, 128) {
  __shared__ f32 values[LONGEST];
  f32 *x = p.x + blockIdx.x * p.block;
  const u32 first = blockIdx.x * p.block % p.columns;
  for (u32 i = threadIdx.x; i < p.block; i += LANES) {
    const u32 column = first + i;
    values[i] = p.signs[column / 32] >> (column % 32) & 1 ? -x[i] : x[i];
  }
  for (u32 half = 1; half < p.block; half *= 2) {
    __syncthreads();
    for (u32 pair = threadIdx.x; pair < p.block / 2; pair += LANES) {
      const u32 a = pair / half * half * 2 + pair % half;
      const f32 u = values[a], v = values[a + half];
      values[a] = u + v;
      values[a + half] = u - v;
    }
  }
  __syncthreads();
  const f32 root = sqrtf(static_cast<f32>(p.block));
  for (u32 i = threadIdx.x; i < p.block; i += LANES) x[i] = values[i] / root;
}

struct Difference {
  const f32 *a;
  const f32 *b;
  f32 *out;
  u32 count;
};

KERNEL(difference, Difference, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = p.a[i] - (p.b ? p.b[i] : 0.0f);
}

struct Dots {
  const f32 *a;
  const f32 *b;
  f64 *out;
  u32 count;
  /** Numbers that a block sums. */
  u32 stretch;
};

KERNEL(dots, Dots, 128) {
  const u32 from = blockIdx.x * p.stretch;
  const u32 to = from + p.stretch < p.count ? from + p.stretch : p.count;
  f64 sum = 0;
  for (u32 i = from + threadIdx.x; i < to; i += LANES) sum += static_cast<f64>(p.a[i]) * p.b[i];
  sum = over_block<LANES>(sum, Sum());
  if (threadIdx.x == 0) p.out[blockIdx.x] = sum;
}

// The upper triangular U with A⁻¹ = UᵀU, for A = P·H·Pᵀ + damping. With the order of A's rows and columns turned
// round, A' = L·Lᵀ (Cholesky), and U is L⁻¹ turned round again. In blocks of 32 columns: one block of threads factors
// what is on the diagonal and inverts it, everything else is products.

struct Factor {
  const f32 *h;
  const u32 *order;
  f32 *a;
  f32 *inverse;
  u32 *bad;
  u32 count;
  u32 n;
  u32 begin;
  u32 size;
  f32 damping;
};

/** Row and column of H that row i of A' is. */
__device__ inline u32 turned(const Factor &p, u32 i) {
  const u32 at = p.n - 1 - i;
  return p.order ? p.order[at] : at;
}

KERNEL(factor_prepare, Factor, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.n, column = i % p.n;
  p.a[i] = p.h[turned(p, row) * p.n + turned(p, column)] + (row == column ? p.damping : 0.0f);
}

/** A pivot below 2⁻²⁴ of its diagonal is noise in f32. */
KERNEL(factor_diagonal, Factor, 32) {
  __shared__ f32 l[TILE][TILE];
  __shared__ f32 x[TILE][TILE];
  const u32 lane = threadIdx.x;
  for (u32 i = 0; i < p.size; i++) {
    if (lane < p.size) l[i][lane] = p.a[(p.begin + i) * p.n + p.begin + lane];
  }
  __syncthreads();
  for (u32 j = 0; j < p.size; j++) {
    const f32 pivot = l[j][j];
    const u32 at = turned(p, p.begin + j);
    const f32 whole = p.h[at * p.n + at] + p.damping;
    const bool good = finite(pivot) && pivot > whole * 5.9604645e-8f && whole > 0;
    const f32 root = sqrtf(good ? pivot : 1.0f);
    __syncthreads();
    if (lane == j) {
      l[j][j] = root;
      if (!good) *p.bad = 1;
    }
    if (lane > j && lane < p.size) l[lane][j] /= root;
    __syncthreads();
    if (lane > j && lane < p.size) {
      for (u32 k = j + 1; k <= lane; k++) l[lane][k] -= l[lane][j] * l[k][j];
    }
    __syncthreads();
  }
  // A column of L⁻¹ each, by forward substitution.
  for (u32 i = 0; i < p.size; i++) {
    f32 sum = i == lane ? 1.0f : 0.0f;
    for (u32 k = lane; k < i; k++) sum -= l[i][k] * x[k][lane];
    x[i][lane] = i >= lane ? sum / l[i][i] : 0.0f;
    if (lane < p.size) p.inverse[i * TILE + lane] = x[i][lane];
  }
}

struct FactorPlace {
  const f32 *inverse;
  f32 *x;
  u32 count;
  u32 n;
  u32 begin;
  u32 size;
};

KERNEL(factor_place, FactorPlace, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.size, column = i % p.size;
  p.x[(p.begin + row) * p.n + p.begin + column] = p.inverse[row * TILE + column];
}

struct FactorFinish {
  const f32 *x;
  f32 *out;
  u32 *bad;
  u32 count;
  u32 n;
};

KERNEL(factor_finish, FactorFinish, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.n, column = i % p.n;
  const f32 value = row <= column ? p.x[(p.n - 1 - row) * p.n + p.n - 1 - column] : 0.0f;
  if (!finite(value)) *p.bad = 1;
  p.out[i] = value;
}

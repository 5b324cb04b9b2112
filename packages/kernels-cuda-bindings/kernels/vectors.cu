// Passes over vectors of weights (VPTQ along the outputs, GPTVQ along the inputs). A block of threads has the rows of one
// vector, and goes through some columns by itself, since what it needs of others lies in the factor or the Hessian; what
// it leaves goes to all later columns in one product.
#include "sums.cuh"
#include "vectors.cuh"

constexpr u32 LONGEST = 16;
/** Columns of a launch. */
constexpr u32 STEP = 32;

struct Factors {
  const f32 *row_scale;
  const f32 *column_scale;
  const f32 *column_bias;
  u32 columns;
  u32 across;
  u32 scale_columns;
};

__device__ inline f32 scale_of(const Factors &p, u32 row, u32 column) {
  f32 scale = p.row_scale ? p.row_scale[row * p.across + column / p.scale_columns] : 1.0f;
  if (p.column_scale) scale *= p.column_scale[column];
  return scale;
}
__device__ inline f32 bias_of(const Factors &p, u32 column) { return p.column_bias ? p.column_bias[column] : 0.0f; }

struct Pad {
  const f32 *x;
  f32 *out;
  u32 count;
  u32 length;
  u32 wide;
};

/** Entries filled up with zeros to fours. */
KERNEL(pad_entries, Pad, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = i % p.wide < p.length ? p.x[i / p.wide * p.length + i % p.wide] : 0.0f;
}

/** Where a weight's code lies, and which of its vector's weights it is. */
struct Place {
  u32 length;
  u32 along_out;
  u32 table_rows;
  u32 entries;
  /** Columns of the codes. */
  u32 wide;
  u32 first;
};

struct DecodeVectors {
  Factors factors;
  Place place;
  const u16 *codes;
  const f32 *table;
  f32 *out;
  u32 count;
  u32 width;
  /** Added to the stages before it; the last one multiplies by the scales and adds the bias. */
  u32 keep;
  u32 finish;
};

KERNEL(decode_vectors, DecodeVectors, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const Place &at = p.place;
  const u32 row = i / p.width, j = i % p.width, column = at.first + j;
  const u32 code = at.along_out ? row / at.length * at.wide + j : row * at.wide + j / at.length;
  const u32 e = at.along_out ? row % at.length : j % at.length;
  const u32 entry = row / at.table_rows * at.entries + least(p.codes[code], at.entries - 1);
  f32 *out = p.out + row * p.factors.columns + column;
  f32 value = p.table[entry * at.length + e];
  if (p.keep) value += *out;
  *out = p.finish ? value * scale_of(p.factors, row, column) + bias_of(p.factors, column) : value;
}

struct ScatterVectors {
  Sums sums;
  Factors factors;
  Place place;
  const u16 *codes;
  const f32 *x;
  u32 rows;
  u32 last;
  /** Rows of codes, and those that share a table. */
  u32 code_rows;
  u32 group_rows;
};

/** x · scales over the weights of each entry. Each table has whole rows of codes. */
KERNEL(scatter_vectors, ScatterVectors, 256) {
  const Place &at = p.place;
  sum_by_code<LONGEST>(
      p.sums, at.length, [&](u32 g) { return least(p.group_rows, p.code_rows - g * p.group_rows) * at.wide; },
      [&](u32 g, u32 i) { return static_cast<u32>(p.codes[g * p.group_rows * at.wide + i]); },
      [&](u32 g, u32 i, u32 e) {
        const u32 line = g * p.group_rows + i / at.wide, j = i % at.wide;
        const u32 row = at.along_out ? line * at.length + e : line;
        const u32 column = at.first + (at.along_out ? j : j * at.length + e);
        const bool inside = row < p.rows && column < p.last;
        return inside ? static_cast<f64>(p.x[row * p.factors.columns + column]) * scale_of(p.factors, row, column) : 0;
      });
}

/** One of the tables that are searched one after the other, entries filled up to fours. */
struct Stage {
  const f32 *table;
  u16 *codes;
  /** The codes that may take the place of each. */
  const u16 *near;
  u32 entries;
  u32 candidates;
};

struct Pass {
  Factors factors;
  /** The factor, or the Hessian. */
  const f32 *u;
  const Stage *stages;
  /** What is quantized; with coordinate descent the slope (w − q)·(H + λ1), which follows each change. */
  f32 *line;
  f32 *decoded;
  /** What later columns need, [rows, STEP]. */
  f32 *errors;
  const f32 *triangles;
  /** All stages' tables times the triangle of each vector's columns. */
  const f32 *turned;
  u32 count;
  u32 rows;
  u32 length;
  u32 begin;
  u32 size;
  u32 first;
  u32 wide;
  u32 table_rows;
  /** Entries of all stages. */
  u32 total;
  f32 damping;
};

/** The entry nearest to `rest`, which must be the same for all threads; they have all read it when it is found. */
template <u32 FOURS> __device__ u32 search(const f32 *rest, const f32 *table, u32 entries) {
  const Vector<FOURS> x = vector_at<FOURS>(rest, 4 * FOURS);
  u64 best = NOWHERE;
  for (u32 e = threadIdx.x; e < entries; e += LANES) {
    const u64 here = placed(squared_distance(x, entry_at<FOURS>(table, e)), e);
    if (here < best) best = here;
  }
  return static_cast<u32>(over_block<LANES>(best, Least()));
}

/** A column of the rows of a vector after the other. */
template <u32 FOURS> __device__ void feedback_out(const Pass &p) {
  __shared__ f32 rest[4 * FOURS], sum[4 * FOURS], value[4 * FOURS], left[STEP][4 * FOURS];
  const u32 lane = threadIdx.x, row = blockIdx.x * p.length + lane, columns = p.factors.columns;
  const bool mine = lane < p.length, live = mine && row < p.rows;
  for (u32 c = 0; c < p.size; c++) {
    const u32 j = p.begin + c;
    const f32 scale = live ? scale_of(p.factors, row, j) : 0.0f;
    if (lane < 4 * FOURS) {
      f32 v = 0;
      if (live) {
        v = p.line[row * columns + j];
        for (u32 k = 0; k < c; k++) v -= left[k][lane] * p.u[(p.begin + k) * columns + j];
      }
      value[lane] = v;
      rest[lane] = scale == 0 ? 0.0f : (v - bias_of(p.factors, j)) / scale;
      sum[lane] = 0;
    }
    __syncthreads();
    for (u32 s = 0; s < p.count; s++) {
      const Stage stage = p.stages[s];
      const u32 hit = search<FOURS>(rest, stage.table, stage.entries);
      if (mine) {
        const f32 x = stage.table[hit * 4 * FOURS + lane];
        rest[lane] -= x;
        sum[lane] += x;
      }
      if (lane == 0) stage.codes[blockIdx.x * p.wide + j - p.first] = static_cast<u16>(hit);
      __syncthreads();
    }
    if (live) {
      const f32 q = sum[lane] * scale + bias_of(p.factors, j);
      const f32 error = (value[lane] - q) / p.u[j * columns + j];
      p.line[row * columns + j] = q;
      left[c][lane] = error;
      p.errors[row * STEP + c] = error;
    }
    __syncthreads();
  }
}

KERNEL(feedback_out_4, Pass, 128) { feedback_out<1>(p); }
KERNEL(feedback_out_8, Pass, 128) { feedback_out<2>(p); }
KERNEL(feedback_out_12, Pass, 128) { feedback_out<3>(p); }
KERNEL(feedback_out_16, Pass, 128) { feedback_out<4>(p); }

/** The columns of a vector of one row after the other. Distances are those of vectors times a triangle. */
template <u32 FOURS> __device__ void feedback_in(const Pass &p) {
  __shared__ f32 rest[4 * FOURS], sum[4 * FOURS], value[4 * FOURS], left[STEP];
  const u32 lane = threadIdx.x, row = blockIdx.x, columns = p.factors.columns;
  f32 *line = p.line + row * columns;
  for (u32 c = 0; c < p.size; c += p.length) {
    const u32 j = p.begin + c, block = (j - p.first) / p.length;
    const bool live = lane < least(p.length, p.size - c);
    const f32 scale = scale_of(p.factors, row, j);
    if (lane < 4 * FOURS) {
      f32 v = 0;
      if (live) {
        v = line[j + lane];
        for (u32 k = 0; k < c; k++) v -= left[k] * p.u[(p.begin + k) * columns + j + lane];
      }
      value[lane] = scale == 0 ? 0.0f : v / scale;
      sum[lane] = 0;
    }
    __syncthreads();
    if (lane < 4 * FOURS) {
      f32 t = 0;
      if (live) {
        for (u32 a = 0; a <= lane; a++) t += value[a] * p.triangles[(block * p.length + a) * p.length + lane];
      }
      rest[lane] = t;
    }
    __syncthreads();
    const f32 *turned = p.turned + static_cast<size_t>(c / p.length) * p.total * 4 * FOURS;
    for (u32 s = 0; s < p.count; s++) {
      const Stage stage = p.stages[s];
      const u32 home = row / p.table_rows * stage.entries * 4 * FOURS;
      const u32 hit = search<FOURS>(rest, turned + home, stage.entries);
      const u32 at = home + hit * 4 * FOURS + lane;
      if (live) {
        rest[lane] -= turned[at];
        sum[lane] += stage.table[at];
      }
      if (lane == 0) stage.codes[row * p.wide + block] = static_cast<u16>(hit);
      __syncthreads();
      turned += (p.rows + p.table_rows - 1) / p.table_rows * stage.entries * 4 * FOURS;
    }
    if (live) {
      line[j + lane] = sum[lane] * scale;
      const f32 error = rest[lane] * scale;
      left[c + lane] = error;
      p.errors[row * STEP + c + lane] = error;
    }
    __syncthreads();
  }
}

KERNEL(feedback_in_4, Pass, 128) { feedback_in<1>(p); }
KERNEL(feedback_in_8, Pass, 128) { feedback_in<2>(p); }
KERNEL(feedback_in_12, Pass, 128) { feedback_in<3>(p); }
KERNEL(feedback_in_16, Pass, 128) { feedback_in<4>(p); }

/** Each vector in turn becomes the one of its neighbours that makes the error of its rows least. */
template <u32 FOURS> __device__ void descend_out(const Pass &p) {
  __shared__ f32 rest[4 * FOURS], value[4 * FOURS], scales[4 * FOURS], left[STEP][4 * FOURS];
  const u32 lane = threadIdx.x, row = blockIdx.x * p.length + lane, columns = p.factors.columns;
  const bool mine = lane < p.length, live = mine && row < p.rows;
  for (u32 c = 0; c < p.size; c++) {
    const u32 j = p.begin + c, place = blockIdx.x * p.wide + j - p.first;
    /** The sum of all stages' entries at hand. */
    const auto sum = [&] {
      f32 all = 0;
      for (u32 s = 0; s < p.count; s++) all += p.stages[s].table[p.stages[s].codes[place] * 4 * FOURS + lane];
      return all;
    };
    if (lane < 4 * FOURS) {
      f32 goal = 0, scale = 0;
      if (live) {
        f32 slope = p.line[row * columns + j];
        for (u32 k = 0; k < c; k++) slope -= left[k][lane] * p.u[(p.begin + k) * columns + j];
        const f32 power = p.u[j * columns + j] + p.damping;
        const f32 aim = p.decoded[row * columns + j] + (power > 0 ? slope / power : 0.0f);
        scale = scale_of(p.factors, row, j);
        goal = scale == 0 ? 0.0f : (aim - bias_of(p.factors, j)) / scale;
      }
      value[lane] = goal;
      scales[lane] = scale;
    }
    __syncthreads();
    bool changed = false;
    for (u32 s = 0; s < p.count; s++) {
      const Stage stage = p.stages[s];
      const u32 old = stage.codes[place];
      // What the others leave of it.
      if (lane < 4 * FOURS) rest[lane] = value[lane] - (sum() - stage.table[old * 4 * FOURS + lane]);
      __syncthreads();
      const Vector<FOURS> x = vector_at<FOURS>(rest, 4 * FOURS), scale = vector_at<FOURS>(scales, 4 * FOURS);
      const u16 *near = stage.near + old * stage.candidates;
      u64 best = NOWHERE;
      for (u32 i = lane; i < stage.candidates; i += WARP) {
        const u64 here = placed(scaled_distance(x, entry_at<FOURS>(stage.table, near[i]), scale), i);
        if (here < best) best = here;
      }
      const u32 hit = near[static_cast<u32>(over_block<WARP>(best, Least()))];
      changed |= hit != old;
      __syncthreads();
      if (lane == 0) stage.codes[place] = static_cast<u16>(hit);
      __syncthreads();
    }
    if (mine) {
      f32 error = 0;
      if (live && changed) {
        f32 *decoded = p.decoded + row * columns + j;
        const f32 q = sum() * scales[lane] + bias_of(p.factors, j);
        error = q - *decoded;
        *decoded = q;
      }
      left[c][lane] = error;
      if (live) p.errors[row * STEP + c] = error;
    }
    __syncthreads();
  }
}

KERNEL(descend_out_4, Pass, 32) { descend_out<1>(p); }
KERNEL(descend_out_8, Pass, 32) { descend_out<2>(p); }
KERNEL(descend_out_12, Pass, 32) { descend_out<3>(p); }
KERNEL(descend_out_16, Pass, 32) { descend_out<4>(p); }

struct Triangles {
  const f32 *u;
  f32 *out;
  u32 count;
  u32 columns;
  u32 length;
  u32 first;
  u32 last;
};

/** For each vector's columns the inverse of the factor's triangle there: what distances are measured in. */
KERNEL(vector_triangles, Triangles, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 j = p.first + i * p.length, d = least(p.length, p.last - j);
  f32 *t = p.out + i * p.length * p.length;
  for (u32 e = 0; e < p.length * p.length; e++) t[e] = 0;
  for (u32 b = 0; b < d; b++) {
    for (u32 a = b + 1; a-- > 0;) {
      f32 sum = a == b ? 1.0f : 0.0f;
      for (u32 m = a + 1; m <= b; m++) sum -= p.u[(j + a) * p.columns + j + m] * t[m * p.length + b];
      t[a * p.length + b] = sum / p.u[(j + a) * p.columns + j + a];
    }
  }
}

struct Turn {
  const f32 *tables;
  const f32 *triangles;
  f32 *out;
  u32 count;
  u32 length;
  /** Numbers of an entry with its zeros; entries of all tables; the first block of columns. */
  u32 wide;
  u32 total;
  u32 first;
};

/** All entries times the triangle of each of some blocks of columns. */
KERNEL(turn_entries, Turn, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 b = i % p.wide, entry = i / p.wide % p.total, block = p.first + i / (p.wide * p.total);
  f32 sum = 0;
  for (u32 a = 0; b < p.length && a <= b; a++) {
    sum += p.tables[entry * p.wide + a] * p.triangles[(block * p.length + a) * p.length + b];
  }
  p.out[i] = sum;
}

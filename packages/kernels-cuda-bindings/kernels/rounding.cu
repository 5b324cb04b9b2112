// Scales, codes, and the passes that round column by column.
#include "common.cuh"

/** As core's `gridWords` lays it out: ascending values and their codes, table after table. */
struct Grid {
  const u32 *grid;
  u32 integer;
  f32 lowest;
  f32 step;
  u32 levels;
  u32 even;
  u32 entries;
  u32 grid_rows;
  u32 grid_columns;
  u32 grid_across;
};

struct Rounded {
  u32 code;
  f32 value;
};

__device__ inline f32 clamp(f32 x, f32 low, f32 high) { return fminf(fmaxf(x, low), high); }

/**
 * The nearest value to x + zero. Integers of step 1 are rounded half to even before zero and offset are added. Between
 * two values of a float grid the even code wins, of a table the smaller value.
 */
__device__ inline Rounded nearest(const Grid &p, f32 x, f32 zero, u32 row, u32 column) {
  if (p.integer) {
    // Far out x would lose its fraction.
    const f32 near = clamp(x, -1e6f, 1e6f);
    const f32 exact = p.step == 1.0f ? rintf(near) + zero - p.lowest : rintf((near + zero - p.lowest) / p.step);
    const f32 index = clamp(exact, 0.0f, static_cast<f32>(p.levels - 1));
    return {static_cast<u32>(index), p.lowest + p.step * index};
  }
  const u32 *table = p.grid + (row / p.grid_rows * p.grid_across + column / p.grid_columns) * p.entries * 2;
  const f32 target = x + zero;
  u32 low = 0, high = p.entries - 1;
  while (high - low > 1) {
    const u32 middle = (low + high) / 2;
    if (bits_to_float(table[middle]) <= target) low = middle;
    else high = middle;
  }
  const f32 a = bits_to_float(table[low]), b = bits_to_float(table[high]);
  const f32 left = fabsf(a - target), right = fabsf(b - target);
  const u32 code = table[p.entries + low];
  bool upper = right < left;
  if (right == left && a != b) upper = p.even && code & 1;
  // Far away both are equally near.
  if (target >= b) upper = true;
  if (target <= a) upper = false;
  return upper && a != b ? Rounded{table[p.entries + high], b} : Rounded{code, a};
}

struct Fit {
  Grid grid;
  const f32 *w;
  const f32 *importance;
  f32 *scales;
  f32 *zeros;
  u32 rows;
  u32 columns;
  u32 block_rows;
  u32 block_columns;
  u32 across;
  u32 asymmetric;
  u32 candidates;
  f32 shrink;
  u32 scale_type;
  f32 largest;
  f32 reach;
  u32 mean;
};

__device__ inline int exponent_of(f32 x) {
  int exponent;
  frexpf(x, &exponent);
  return exponent - 1;
}

/** To the nearest value of the type (f32, f16, bf16, e8m0) that is neither 0 nor infinite. */
__device__ inline f32 stored_scale(const Fit &p, f32 scale, f32 range) {
  if (p.scale_type == 1) return clamp(half_to_float(float_to_half(scale)), 5.9604645e-8f, 65504.0f);
  if (p.scale_type == 2) {
    const u32 bits = float_to_bits(fminf(scale, 3.3895314e38f));
    return clamp(bits_to_float((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u), 9.1835496e-41f, 3.3895314e38f);
  }
  if (p.scale_type == 3) {
    const int shared = range > 0 ? exponent_of(range) - exponent_of(p.largest) : -127;
    return ldexpf(1.0f, shared < -127 ? -127 : shared > 127 ? 127 : shared);
  }
  return clamp(scale, 1.4012985e-45f, 3.4028235e38f);
}

/** The scale and zero point of a block, by a search over shrunken ranges. */
template <u32 THREADS> __device__ void fit_block(const Fit &p) {
  const u32 top = blockIdx.x / p.across * p.block_rows, left = blockIdx.x % p.across * p.block_columns;
  const u32 wide = p.block_columns < p.columns - left ? p.block_columns : p.columns - left;
  const u32 count = (p.block_rows < p.rows - top ? p.block_rows : p.rows - top) * wide;
  f32 lowest = 0, highest = 0, magnitude = 0;
  for (u32 i = threadIdx.x; i < count; i += THREADS) {
    const f32 value = p.w[(top + i / wide) * p.columns + left + i % wide];
    lowest = fminf(lowest, value);
    highest = fmaxf(highest, value);
    magnitude += fabsf(value);
  }
  const f32 high = over_block<THREADS>(highest, Most()), low = -over_block<THREADS>(-lowest, Most());
  const f32 average = over_block<THREADS>(magnitude, Sum()) / static_cast<f32>(count);
  f32 best_scale = 1, best_zero = 0, least = 0;
  for (u32 candidate = 0; candidate < p.candidates; candidate++) {
    const f32 share = 1.0f - p.shrink * static_cast<f32>(candidate);
    if (candidate > 0 && share <= 0) break;
    f32 scale, zero = 0;
    if (p.asymmetric) {
      const f32 most = static_cast<f32>(p.grid.levels - 1), range = (high - low) * share;
      scale = stored_scale(p, range / most, range);
      if (range > 0) zero = clamp(rintf(-low * share / range * most), 0.0f, most);
    } else {
      const f32 most = fmaxf(high, -low);
      scale = p.mean && candidate == 0 ? stored_scale(p, average / p.largest, most)
                                       : stored_scale(p, most * share / p.reach, most * share);
    }
    f32 error = 0;
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
      const u32 column = left + i % wide;
      const f32 value = p.w[(top + i / wide) * p.columns + column];
      const f32 apart = value - scale * (nearest(p.grid, value / scale, zero, 0, 0).value - zero);
      error += (p.importance ? p.importance[column] : 1.0f) * apart * apart;
    }
    error = over_block<THREADS>(error, Sum());
    if (candidate == 0 || error < least) {
      least = error;
      best_scale = scale;
      best_zero = zero;
    }
  }
  if (threadIdx.x == 0) {
    p.scales[blockIdx.x] = best_scale;
    if (p.asymmetric) p.zeros[blockIdx.x] = best_zero;
  }
}

/** Groups and rows, and blocks of many rows. */
KERNEL(fit_small, Fit, 32) { fit_block<32>(p); }
KERNEL(fit_large, Fit, 256) { fit_block<256>(p); }

/** A scale of 0 makes a block of zeros, not of NaN. */
__device__ inline f32 quotient(f32 w, f32 scale) { return scale == 0 ? 0.0f : w / scale; }

struct Round {
  Grid grid;
  const f32 *w;
  const f32 *scales;
  const f32 *zeros;
  u8 *codes;
  f32 *decoded;
  u32 count;
  u32 columns;
  u32 block_rows;
  u32 block_columns;
  u32 across;
};

KERNEL(round_codes, Round, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.columns, column = i % p.columns;
  const u32 block = row / p.block_rows * p.across + column / p.block_columns;
  const f32 scale = p.scales[block], zero = p.zeros ? p.zeros[block] : 0.0f;
  const Rounded hit = nearest(p.grid, quotient(p.w[i], scale), zero, row, column);
  p.codes[i] = static_cast<u8>(hit.code);
  if (p.decoded) p.decoded[i] = scale * (hit.value - zero);
}

/** Columns that a thread rounds before what they leave goes to all later ones in one product. */
constexpr u32 STEP = 32;

struct Pass {
  Grid grid;
  const f32 *scales;
  const f32 *zeros;
  const f32 *u;
  /** Each column's block of scales, then each column's block of tables. */
  const u32 *places;
  f32 *line;
  u8 *codes;
  f32 *decoded;
  f32 *errors;
  u32 count;
  u32 columns;
  u32 block_rows;
  u32 across;
  u32 begin;
  u32 size;
  /** Coordinate descent instead of feedback. */
  u32 descend;
  f32 damping;
};

/**
 * One row a thread, over the columns [begin, begin + size). Feedback: each error, over the factor's diagonal, goes into
 * the later ones of these columns. Coordinate descent: `line` is the slope (w − q)·(H + λ1) and follows each change.
 * What later columns need is left in `errors` [rows, STEP].
 */
KERNEL(round_columns, Pass, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  f32 values[STEP];
  for (u32 j = 0; j < p.size; j++) values[j] = p.line[i * p.columns + p.begin + j];
  for (u32 j = 0; j < p.size; j++) {
    const u32 column = p.begin + j, place = i * p.columns + column;
    const u32 block = i / p.block_rows * p.across + p.places[column];
    const f32 scale = p.scales[block], zero = p.zeros ? p.zeros[block] : 0.0f;
    const f32 diagonal = p.u[column * p.columns + column];
    f32 aim = values[j], old = 0;
    if (p.descend) {
      const f32 power = diagonal + p.damping;
      old = p.decoded[place];
      aim = power > 0 ? old + values[j] / power : old;
    }
    const u32 table = p.places[p.columns + column] * p.grid.grid_columns;
    const Rounded hit = nearest(p.grid, quotient(aim, scale), zero, i, table);
    const f32 q = scale * (hit.value - zero);
    p.codes[place] = static_cast<u8>(hit.code);
    p.decoded[place] = q;
    const f32 error = p.descend ? q - old : (values[j] - q) / diagonal;
    p.errors[i * STEP + j] = error;
    for (u32 k = j + 1; k < p.size; k++) values[k] -= error * p.u[column * p.columns + p.begin + k];
  }
}

struct PutColumns {
  const f32 *x;
  f32 *out;
  u32 count;
  u32 columns;
  u32 begin;
  u32 size;
};

KERNEL(put_columns, PutColumns, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 at = i / p.size * p.columns + p.begin + i % p.size;
  p.out[at] = p.x[at];
}

struct Multiple {
  const f32 *x;
  f32 *out;
  u32 count;
  f32 factor;
};

KERNEL(multiple, Multiple, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = p.factor * p.x[i];
}

// k-means of groups of points: nearest entries, sums by code, where entries begin (GPTVQ, 2402.15319; k-means++).
#include "sums.cuh"
#include "vectors.cuh"

struct Nearest {
  const f32 *x;
  const f32 *table;
  u16 *codes;
  f32 *distances;
  u32 rows;
  /** Rows that share a table, and blocks of threads that they take. */
  u32 group_rows;
  u32 tiles;
  u32 entries;
  u32 d;
};

/** Entries that a block holds at a time, in fours. */
constexpr u32 HELD = 512;

/** A point a thread; of equal entries the first. */
template <u32 FOURS> __device__ void nearest(const Nearest &p) {
  constexpr u32 TILE = HELD / FOURS;
  __shared__ Vector<FOURS> held[TILE];
  const u32 group = blockIdx.x / p.tiles, top = group * p.group_rows;
  const u32 i = top + blockIdx.x % p.tiles * LANES + threadIdx.x;
  const bool live = i < least(p.rows, top + p.group_rows);
  const Vector<FOURS> x = vector_at<FOURS>(p.x + (live ? i : top) * p.d, p.d);
  const f32 *table = p.table + group * p.entries * p.d;
  u32 best = 0;
  f32 nearest = INFINITY;
  for (u32 begin = 0; begin < p.entries; begin += TILE) {
    const u32 count = least(TILE, p.entries - begin);
    for (u32 e = threadIdx.x; e < count; e += LANES) held[e] = vector_at<FOURS>(table + (begin + e) * p.d, p.d);
    __syncthreads();
    for (u32 e = 0; e < count; e++) {
      const f32 far = squared_distance(x, held[e]);
      if (far < nearest) {
        nearest = far;
        best = begin + e;
      }
    }
    __syncthreads();
  }
  if (!live) return;
  p.codes[i] = static_cast<u16>(best);
  if (p.distances) p.distances[i] = nearest;
}

KERNEL(nearest_4, Nearest, 128) { nearest<1>(p); }
KERNEL(nearest_8, Nearest, 128) { nearest<2>(p); }
KERNEL(nearest_12, Nearest, 128) { nearest<3>(p); }
KERNEL(nearest_16, Nearest, 128) { nearest<4>(p); }

struct Neighbours {
  const f32 *table;
  f32 *far;
  u16 *out;
  u32 count;
  u32 entries;
  u32 d;
  /** The first entry at hand. */
  u32 top;
  u32 candidates;
};

/** Squared distances of some entries to all; to themselves −1, so that they come first. */
KERNEL(distances_apart, Neighbours, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 a = p.top + i / p.entries, b = i % p.entries;
  f32 sum = 0;
  for (u32 e = 0; e < p.d; e++) {
    const f32 apart = p.table[a * p.d + e] - p.table[b * p.d + e];
    sum += apart * apart;
  }
  p.far[i] = a == b ? -1.0f : sum;
}

/** The nearest of a row of distances, one after the other: the least that is larger than the last one. */
KERNEL(neighbours, Neighbours, 128) {
  const f32 *far = p.far + static_cast<size_t>(blockIdx.x) * p.entries;
  const auto next = [&](u64 after) {
    u64 mine = NOWHERE;
    for (u32 e = threadIdx.x; e < p.entries; e += LANES) {
      const u64 here = placed(far[e], e);
      if (here >= after && here < mine) mine = here;
    }
    return mine;
  };
  u64 mine = next(0);
  for (u32 c = 0; c < p.candidates; c++) {
    const u64 hit = over_block<LANES>(mine, Least());
    if (threadIdx.x == 0) p.out[(p.top + blockIdx.x) * p.candidates + c] = static_cast<u16>(hit);
    if (hit == mine) mine = next(hit + 1);
  }
}

struct ClusterSums {
  Sums sums;
  const u16 *codes;
  const f32 *x;
  /** [rows]: of each point. */
  const f32 *weights;
  u32 rows;
  u32 group_rows;
  u32 d;
};

/** Σ weight · (x, 1): d + 1 numbers a code. */
KERNEL(cluster_sums, ClusterSums, 256) {
  sum_by_code<17>(
      p.sums, p.d + 1, [&](u32 g) { return least(p.group_rows, p.rows - g * p.group_rows); },
      [&](u32 g, u32 i) { return static_cast<u32>(p.codes[g * p.group_rows + i]); },
      [&](u32 g, u32 i, u32 e) {
        const u32 row = g * p.group_rows + i;
        const f64 weight = p.weights ? p.weights[row] : 1.0f;
        return e == p.d ? weight : weight * p.x[row * p.d + e];
      });
}

struct AddStretches {
  const f64 *parts;
  f32 *out;
  u32 count;
  u32 stretches;
};

KERNEL(add_stretches, AddStretches, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  f64 sum = 0;
  for (u32 s = 0; s < p.stretches; s++) sum += p.parts[static_cast<size_t>(s) * p.count + i];
  p.out[i] = static_cast<f32>(sum);
}

struct Cloud {
  const f32 *x;
  /** Of each group: its mean, and the Cholesky factor of its covariance, [groups, d + d²]. */
  f64 *shape;
  u64 *pairs;
  u32 rows;
  u32 group_rows;
  u32 d;
  /** Pairs of a group. */
  u32 size;
  u32 count;
};

/** A floor for directions in which all points agree. */
KERNEL(cluster_shape, Cloud, 256) {
  constexpr u32 THREADS = 256;
  __shared__ f64 mean[16], covariance[256];
  const u32 top = blockIdx.x * p.group_rows, high = least(p.group_rows, p.rows - top);
  const f32 *x = p.x + top * p.d;
  for (u32 e = 0; e < p.d; e++) {
    f64 sum = 0;
    for (u32 i = threadIdx.x; i < high; i += THREADS) sum += x[i * p.d + e];
    sum = over_block<THREADS>(sum, Sum());
    if (threadIdx.x == 0) mean[e] = sum / high;
  }
  __syncthreads();
  for (u32 a = 0; a < p.d; a++) {
    for (u32 b = 0; b <= a; b++) {
      f64 sum = 0;
      for (u32 i = threadIdx.x; i < high; i += THREADS) sum += (x[i * p.d + a] - mean[a]) * (x[i * p.d + b] - mean[b]);
      sum = over_block<THREADS>(sum, Sum());
      if (threadIdx.x == 0) covariance[a * p.d + b] = sum / high;
    }
  }
  if (threadIdx.x > 0) return;
  f64 trace = 0;
  for (u32 a = 0; a < p.d; a++) trace += covariance[a * p.d + a];
  f64 *out = p.shape + blockIdx.x * (p.d + p.d * p.d);
  for (u32 a = 0; a < p.d; a++) {
    out[a] = mean[a];
    for (u32 b = 0; b <= a; b++) {
      f64 s = covariance[a * p.d + b];
      for (u32 m = 0; m < b; m++) s -= covariance[a * p.d + m] * covariance[b * p.d + m];
      s = a == b ? sqrt(fmax(s, 1e-6 * trace + 1e-30)) : s / covariance[b * p.d + b];
      covariance[a * p.d + b] = s;
      out[p.d + a * p.d + b] = s;
    }
  }
}

/** A point's Mahalanobis distance from the mean, and its place in the group. */
KERNEL(cluster_distances, Cloud, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 group = i / p.size, place = i % p.size, row = group * p.group_rows + place;
  if (place >= p.group_rows || row >= p.rows) {
    p.pairs[i] = NOWHERE;
    return;
  }
  const f64 *shape = p.shape + group * (p.d + p.d * p.d);
  f64 v[16], sum = 0;
  for (u32 a = 0; a < p.d; a++) {
    f64 s = p.x[row * p.d + a] - shape[a];
    for (u32 m = 0; m < a; m++) s -= shape[p.d + a * p.d + m] * v[m];
    v[a] = s / shape[p.d + a * p.d + a];
    sum += v[a] * v[a];
  }
  p.pairs[i] = placed(static_cast<f32>(sum), place);
}

struct Seeds {
  const f32 *x;
  const u64 *pairs;
  /** Places in a group's order. */
  const u32 *wanted;
  f32 *table;
  u32 count;
  u32 group_rows;
  u32 d;
  u32 size;
  u32 entries;
};

KERNEL(take_seeds, Seeds, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 entry = i / p.d, group = entry / p.entries;
  const u32 place = static_cast<u32>(p.pairs[group * p.size + p.wanted[entry]]);
  p.table[i] = p.x[(group * p.group_rows + place) * p.d + i % p.d];
}

/** Points that a block measures when k-means++ looks for the next seed. */
constexpr u32 STRETCH = 2048;

struct PlusPlus {
  const f32 *x;
  const f32 *weights;
  /** Of each point the distance to the nearest seed so far, and its sums over stretches of points. */
  f32 *far;
  f64 *sums;
  /** In [0, 1), for each seed. */
  const f32 *numbers;
  f32 *table;
  u32 rows;
  u32 group_rows;
  u32 d;
  u32 entries;
  u32 seeds;
  u32 stretches;
};

/** The last of the seeds is new. */
KERNEL(plus_measure, PlusPlus, 256) {
  constexpr u32 THREADS = 256;
  const u32 g = blockIdx.x / p.stretches, begin = g * p.group_rows + blockIdx.x % p.stretches * STRETCH;
  const u32 end = least(least(p.rows, (g + 1) * p.group_rows), begin + STRETCH);
  const f32 *seed = p.table + (g * p.entries + p.seeds - 1) * p.d;
  f64 sum = 0;
  for (u32 i = begin + threadIdx.x; i < end; i += THREADS) {
    f32 apart = 0;
    for (u32 e = 0; e < p.d; e++) apart += (p.x[i * p.d + e] - seed[e]) * (p.x[i * p.d + e] - seed[e]);
    if (p.weights) apart *= p.weights[i];
    if (p.seeds > 1) apart = fminf(apart, p.far[i]);
    p.far[i] = apart;
    sum += apart;
  }
  sum = over_block<THREADS>(sum, Sum());
  if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
}

/** The next seed of each group: the point in which a number drawn from the sum of all distances falls. */
KERNEL(plus_draw, PlusPlus, 32) {
  __shared__ u32 place;
  const u32 top = blockIdx.x * p.group_rows, high = least(p.group_rows, p.rows - top);
  if (threadIdx.x == 0) {
    const f32 number = p.numbers[blockIdx.x * p.entries + p.seeds];
    u32 chosen = static_cast<u32>(number * static_cast<f32>(high));
    if (p.seeds > 0) {
      const f64 *sums = p.sums + blockIdx.x * p.stretches;
      f64 left = 0;
      for (u32 s = 0; s < p.stretches; s++) left += sums[s];
      left *= number;
      u32 s = 0;
      for (; s + 1 < p.stretches && sums[s] <= left; s++) left -= sums[s];
      chosen = s * STRETCH;
      for (u32 i = chosen; i < least(high, (s + 1) * STRETCH); i++) {
        const f32 far = p.far[top + i];
        if (far > 0) chosen = i;
        left -= far;
        if (left < 0) break;
      }
    }
    place = least(chosen, high - 1);
  }
  __syncthreads();
  for (u32 e = threadIdx.x; e < p.d; e += WARP) {
    p.table[(blockIdx.x * p.entries + p.seeds) * p.d + e] = p.x[(top + place) * p.d + e];
  }
}

struct Means {
  const f32 *sums;
  f32 *table;
  u32 count;
  u32 d;
};

/** Entries without points stay where they are. */
KERNEL(cluster_means, Means, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const f32 *sums = p.sums + i / p.d * (p.d + 1);
  if (sums[p.d] > 0) p.table[i] = sums[i % p.d] / sums[p.d];
}

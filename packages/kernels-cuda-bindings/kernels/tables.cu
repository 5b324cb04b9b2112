// Tables of values for blocks of a weight: k-means in one dimension, found exactly by dynamic programming over the
// sorted weights (Wu, Optimal quantization by matrix searching, 1991; Grønlund et al., 1701.07204). Sums are f64, so that
// the loss of an interval may be a difference of sums.
#include "sums.cuh"

/** Which weights share a table. */
struct Blocks {
  u32 rows;
  u32 columns;
  u32 block_rows;
  u32 block_columns;
  u32 across;
};

struct Cell {
  u32 row;
  u32 column;
};

__device__ inline u32 wide_of(const Blocks &p, u32 block) {
  return least(p.block_columns, p.columns - block % p.across * p.block_columns);
}
__device__ inline u32 items_of(const Blocks &p, u32 block) {
  return least(p.block_rows, p.rows - block / p.across * p.block_rows) * wide_of(p, block);
}
__device__ inline Cell cell_of(const Blocks &p, u32 block, u32 i) {
  const u32 wide = wide_of(p, block);
  return {block / p.across * p.block_rows + i / wide, block % p.across * p.block_columns + i % wide};
}

struct Decode {
  const u8 *codes;
  const f32 *tables;
  const f32 *scales;
  f32 *out;
  u32 count;
  u32 columns;
  u32 block_rows;
  u32 block_columns;
  u32 across;
  u32 entries;
};

KERNEL(decode_codes, Decode, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.columns, block = row / p.block_rows * p.across + i % p.columns / p.block_columns;
  // A code beyond the table must not read beyond it.
  const f32 value = p.tables[block * p.entries + least(p.codes[i], p.entries - 1)];
  p.out[i] = p.scales ? value * p.scales[row] : value;
}

struct SumByCode {
  Sums sums;
  Blocks blocks;
  const u8 *codes;
  const f32 *x;
  const f32 *scales;
};

KERNEL(sum_by_code, SumByCode, 256) {
  const auto at = [&](u32 g, u32 i) {
    const Cell cell = cell_of(p.blocks, g, i);
    return cell.row * p.blocks.columns + cell.column;
  };
  sum_by_code<1>(
      p.sums, 1, [&](u32 g) { return items_of(p.blocks, g); },
      [&](u32 g, u32 i) { return static_cast<u32>(p.codes[at(g, i)]); },
      [&](u32 g, u32 i, u32) {
        const f64 value = p.x[at(g, i)];
        return p.scales ? value * p.scales[cell_of(p.blocks, g, i).row] : value;
      });
}

struct FitTables {
  Blocks blocks;
  const f32 *w;
  /** [rows]: tables are fitted to w / scale. */
  const f32 *scales;
  const f32 *importance;
  /** Of each block: whether any weight is important, and how many groups of weights it has. */
  u32 *important;
  u32 *groups;
  /** A weight's key and its place in the block, `size` for each block. */
  u64 *pairs;
  /** Where groups begin, [blocks, room + 1]. */
  u32 *begins;
  /** Σ h, Σ h·x, Σ h·x² of the groups before one, [blocks, 3, room + 1]. */
  f64 *sums;
  /** The least loss of the first groups in k and in k + 1 clusters, [blocks, 2, room + 1]. */
  f64 *losses;
  /** Where the last of k clusters begins, [blocks, entries, room + 1]. */
  u32 *starts;
  f32 *tables;
  u32 importance_row;
  /** The first block at hand. */
  u32 first;
  u32 size;
  u32 room;
  u32 entries;
  u32 count;
};

/** Places that no weight has taken, or one of no importance, come last. */
constexpr u32 EMPTY = 0xffffffffu;
constexpr u32 MOST_GROUPS = 65536;

__device__ inline f32 scale_of(const FitTables &p, u32 row) { return p.scales ? p.scales[row] : 1.0f; }
__device__ inline f32 weight_of(const FitTables &p, Cell c) {
  return p.w[c.row * p.blocks.columns + c.column] / scale_of(p, c.row);
}
/** Errors of w / scale count as those of the weight. */
__device__ inline f32 importance_of(const FitTables &p, Cell c) {
  const f32 scale = scale_of(p, c.row);
  return scale * scale * (p.importance ? p.importance[c.row * p.importance_row + c.column] : 1.0f);
}

KERNEL(fit_evenly, FitTables, 128) {
  const u32 block = blockIdx.x, items = items_of(p.blocks, block);
  f32 lowest = INFINITY, highest = -INFINITY;
  for (u32 i = threadIdx.x; i < items; i += LANES) {
    const f32 value = weight_of(p, cell_of(p.blocks, block, i));
    lowest = fminf(lowest, value);
    highest = fmaxf(highest, value);
  }
  const f32 low = -over_block<LANES>(-lowest, Most()), high = over_block<LANES>(highest, Most());
  for (u32 e = threadIdx.x; e < p.entries; e += LANES) {
    const f32 share = p.entries > 1 ? static_cast<f32>(e) / static_cast<f32>(p.entries - 1) : 0.5f;
    p.tables[block * p.entries + e] = low * (1.0f - share) + high * share;
  }
}

KERNEL(fit_important, FitTables, 128) {
  const u32 block = p.first + blockIdx.x, items = items_of(p.blocks, block);
  f32 most = 0;
  for (u32 i = threadIdx.x; i < items; i += LANES) {
    most = fmaxf(most, importance_of(p, cell_of(p.blocks, block, i)));
  }
  most = over_block<LANES>(most, Most());
  if (threadIdx.x == 0) p.important[blockIdx.x] = most > 0;
}

KERNEL(fit_keys, FitTables, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 mine = i / p.size, place = i % p.size, block = p.first + mine;
  u32 key = EMPTY;
  if (place < items_of(p.blocks, block)) {
    const Cell cell = cell_of(p.blocks, block, place);
    if (!p.important[mine] || importance_of(p, cell) > 0) key = key_of(weight_of(p, cell));
  }
  p.pairs[i] = static_cast<u64>(key) << 32 | place;
}

/**
 * Groups of weights that agree in sign, exponent and 10 bits, or in 7 bits where those are too many: where each
 * begins, and where the last one ends.
 */
KERNEL(fit_groups, FitTables, 256) {
  constexpr u32 THREADS = 256;
  __shared__ u32 counts[THREADS];
  const u64 *pairs = p.pairs + static_cast<size_t>(blockIdx.x) * p.size;
  const u32 share = (p.size + THREADS - 1) / THREADS;
  const u32 from = least(p.size, threadIdx.x * share), to = least(p.size, from + share);
  const auto key = [&](u32 i) { return static_cast<u32>(pairs[i] >> 32); };
  const auto begins = [&](u32 i, u32 shift) {
    return key(i) != EMPTY && (i == 0 || key(i - 1) >> shift != key(i) >> shift);
  };
  u32 fine = 0, coarse = 0, valid = 0;
  for (u32 i = from; i < to; i++) {
    fine += begins(i, 13);
    coarse += begins(i, 16);
    valid += key(i) != EMPTY;
  }
  const bool many = over_block<THREADS>(fine, Sum()) > MOST_GROUPS;
  const u32 all = over_block<THREADS>(valid, Sum()), shift = many ? 16 : 13;
  counts[threadIdx.x] = many ? coarse : fine;
  __syncthreads();
  u32 place = 0;
  for (u32 i = 0; i < threadIdx.x; i++) place += counts[i];
  u32 *out = p.begins + blockIdx.x * (p.room + 1);
  for (u32 i = from; i < to; i++) {
    if (begins(i, shift)) out[place++] = i;
  }
  if (threadIdx.x == THREADS - 1) {
    out[place] = all;
    p.groups[blockIdx.x] = place;
  }
}

/** Σ h, Σ h·x and Σ h·x² of each group, all its weights at their mean. */
KERNEL(fit_means, FitTables, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 mine = i / p.room, g = i % p.room, block = p.first + mine;
  if (g >= p.groups[mine]) return;
  const u32 *begins = p.begins + mine * (p.room + 1) + g;
  f64 mass = 0, moment = 0;
  for (u32 n = begins[0]; n < begins[1]; n++) {
    const u32 place = static_cast<u32>(p.pairs[static_cast<size_t>(mine) * p.size + n]);
    const Cell cell = cell_of(p.blocks, block, place);
    const f64 h = p.important[mine] ? importance_of(p, cell) : 1.0f;
    mass += h;
    moment += h * weight_of(p, cell);
  }
  f64 *sums = p.sums + static_cast<size_t>(mine) * 3 * (p.room + 1) + g + 1;
  sums[0] = mass;
  sums[p.room + 1] = moment;
  sums[2 * (p.room + 1)] = moment * moment / mass;
}

/** From sums of groups to those of all groups before. */
KERNEL(fit_prefix, FitTables, 256) {
  constexpr u32 THREADS = 256;
  __shared__ f64 shares[THREADS];
  const u32 n = p.groups[blockIdx.x], share = (n + THREADS - 1) / THREADS;
  const u32 from = least(n, threadIdx.x * share), to = least(n, from + share);
  for (u32 moment = 0; moment < 3; moment++) {
    f64 *sums = p.sums + (static_cast<size_t>(blockIdx.x) * 3 + moment) * (p.room + 1);
    f64 mine = 0;
    for (u32 i = from; i < to; i++) mine += sums[i + 1];
    shares[threadIdx.x] = mine;
    __syncthreads();
    f64 before = 0;
    for (u32 i = 0; i < threadIdx.x; i++) before += shares[i];
    for (u32 i = from; i < to; i++) {
      before += sums[i + 1];
      sums[i + 1] = before;
    }
    if (threadIdx.x == 0) sums[0] = 0;
    __syncthreads();
  }
}

/** The groups [from, to) as one cluster. */
struct Interval {
  f64 mean;
  f64 loss;
};
__device__ inline Interval interval(const f64 *sums, u32 wide, u32 from, u32 to) {
  const f64 mass = sums[to] - sums[from];
  const f64 moment = sums[wide + to] - sums[wide + from], square = sums[2 * wide + to] - sums[2 * wide + from];
  const f64 mean = moment / mass;
  return {mean, square - moment * mean};
}

template <u32 THREADS> __device__ void fit_clusters(const FitTables &p) {
  __shared__ f64 losses[THREADS];
  __shared__ u32 places[THREADS];
  const u32 lane = threadIdx.x, n = p.groups[blockIdx.x], wide = p.room + 1;
  const f64 *sums = p.sums + static_cast<size_t>(blockIdx.x) * 3 * wide;
  f64 *line = p.losses + static_cast<size_t>(blockIdx.x) * 2 * wide;
  u32 *book = p.starts + static_cast<size_t>(blockIdx.x) * p.entries * wide;
  f32 *out = p.tables + (p.first + blockIdx.x) * p.entries;
  if (n <= p.entries) {
    for (u32 e = lane; e < p.entries; e += THREADS) {
      const u32 g = least(e, n - 1);
      out[e] = static_cast<f32>(interval(sums, wide, g, g + 1).mean);
    }
    return;
  }
  for (u32 i = 1 + lane; i <= n; i += THREADS) line[i] = interval(sums, wide, 0, i).loss;
  __syncthreads();
  u32 widest = 1;
  while (widest * 2 <= n) widest *= 2;
  for (u32 k = 1; k < p.entries; k++) {
    const f64 *old = line + (k - 1) % 2 * wide;
    f64 *next = line + k % 2 * wide;
    u32 *record = book + k * wide;
    // The best start of the last cluster never falls as more groups come: neighbours already solved bound it.
    for (u32 stride = widest; stride > 0; stride /= 2) {
      const u32 count = (n + stride) / (2 * stride);
      u32 helpers = 1;
      while (helpers * count * 2 <= THREADS) helpers *= 2;
      for (u32 begin = 0; begin < count; begin += THREADS / helpers) {
        const u32 node = begin + lane / helpers, i = stride * (2 * node + 1);
        const bool live = node < count && i <= n && i > k;
        f64 best = INFINITY;
        u32 place = ~0u;
        if (live) {
          u32 low = k, high = i - 1;
          if (i >= stride + k + 1 && record[i - stride] > low) low = record[i - stride];
          if (i + stride <= n) high = least(high, record[i + stride]);
          for (u32 j = low + lane % helpers; j <= high; j += helpers) {
            const f64 loss = old[j] + interval(sums, wide, j, i).loss;
            if (loss < best) {
              best = loss;
              place = j;
            }
          }
        }
        losses[lane] = best;
        places[lane] = place;
        __syncthreads();
        if (live && lane % helpers == 0) {
          for (u32 h = 1; h < helpers; h++) {
            const f64 loss = losses[lane + h];
            if (loss < best || (loss == best && places[lane + h] < place)) {
              best = loss;
              place = places[lane + h];
            }
          }
          next[i] = best;
          record[i] = least(place, i - 1);
        }
        __syncthreads();
      }
    }
  }
  if (lane > 0) return;
  for (u32 k = p.entries, end = n; k-- > 0;) {
    const u32 start = k > 0 ? book[k * wide + end] : 0;
    out[k] = static_cast<f32>(interval(sums, wide, start, end).mean);
    end = start;
  }
}

/** Few groups, and many. */
KERNEL(fit_clusters_small, FitTables, 32) { fit_clusters<32>(p); }
KERNEL(fit_clusters_large, FitTables, 256) { fit_clusters<256>(p); }

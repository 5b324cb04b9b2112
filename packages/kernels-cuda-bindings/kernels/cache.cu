// Keys and values in few bits: coded, decoded, and attended over as they lie (core's cache-kernels.ts has the layout).
#include "attention.cuh"

/** f16, the largest at most. */
__device__ inline u32 stored_half(f32 x) { return float_to_half(fminf(fmaxf(x, -65504.0f), 65504.0f)); }

/** Of a codebook of coupled channels. */
constexpr u32 ENTRIES = 256;

struct Outliers {
  const f32 *x;
  /** Of each block of tokens and channels. */
  f64 *means;
  /** For each number whether it is kept beside the codes. */
  u8 *apart;
  /** Of each row the columns, ascending, then what codes lack there. */
  u16 *lists;
  u32 width;
  u32 tokens;
  u32 channels;
  u32 kept;
};

KERNEL(block_means, Outliers, 32) {
  const u32 blocks = p.width / p.channels, count = p.tokens * p.channels;
  const f32 *x = p.x + blockIdx.x / blocks * p.tokens * p.width + blockIdx.x % blocks * p.channels;
  f64 sum = 0;
  for (u32 i = threadIdx.x; i < count; i += WARP) sum += x[i / p.channels * p.width + i % p.channels];
  sum = over_warp(sum, Sum());
  if (threadIdx.x == 0) p.means[blockIdx.x] = sum / count;
}

/**
 * A warp a row: the `kept` numbers that are farthest from the mean of their block, of equally far ones the first. How
 * far the last of them is, is found bit by bit.
 */
KERNEL(pick_outliers, Outliers, 32) {
  const u32 row = blockIdx.x, lane = threadIdx.x;
  const f32 *x = p.x + static_cast<size_t>(row) * p.width;
  const f64 *means = p.means + row / p.tokens * (p.width / p.channels);
  const auto far = [&](u32 i) { return float_to_bits(static_cast<f32>(fabs(x[i] - means[i / p.channels]))); };
  u32 last = 0;
  for (u32 bit = 1u << 30; bit > 0; bit /= 2) {
    u32 count = 0;
    for (u32 i = lane; i < p.width; i += WARP) count += far(i) >= (last | bit);
    if (over_warp(count, Sum()) >= p.kept) last |= bit;
  }
  u32 more = 0;
  for (u32 i = lane; i < p.width; i += WARP) more += far(i) > last;
  const u32 room = p.kept - over_warp(more, Sum()), before = (1u << lane) - 1;
  u32 place = 0, taken = 0;
  for (u32 from = 0; from < p.width; from += WARP) {
    const u32 i = from + lane, here = i < p.width ? far(i) : 0;
    const u32 beyond = __ballot_sync(ALL, i < p.width && here > last);
    const u32 level = __ballot_sync(ALL, i < p.width && here == last);
    const u32 equal = taken + __popc(level & before);
    const bool picked = i < p.width && (here > last || (here == last && equal < room));
    if (picked) {
      const u32 at = place + __popc(beyond & before) + least(equal, room);
      p.lists[row * 2 * p.kept + at] = static_cast<u16>(i);
    }
    if (i < p.width) p.apart[static_cast<size_t>(row) * p.width + i] = picked;
    place += __popc(beyond);
    taken += __popc(level);
  }
}

struct CodeRows {
  const f32 *x;
  /** Numbers that the range need not reach. */
  const u8 *apart;
  /** The grid's values, where it is no even one. */
  const f32 *table;
  u16 *scales;
  u8 *codes;
  u32 width;
  u32 tokens;
  u32 channels;
  u32 levels;
  u32 symmetric;
  f32 reach;
  /** Share of a block's range that is cut off at either end. */
  f32 cut;
};

/** The scale of a block of tokens and channels, and a code for each number; a warp a block. */
KERNEL(code_rows, CodeRows, 32) {
  const u32 blocks = p.width / p.channels, group = blockIdx.x / blocks, place = blockIdx.x % blocks;
  const u32 top = group * p.tokens, left = place * p.channels, count = p.tokens * p.channels;
  f32 low = 3.4028235e38f, high = -3.4028235e38f;
  for (u32 i = threadIdx.x; i < count; i += WARP) {
    const u32 at = (top + i / p.channels) * p.width + left + i % p.channels;
    if (p.apart && p.apart[at]) continue;
    low = fminf(low, p.x[at]);
    high = fmaxf(high, p.x[at]);
  }
  f32 lowest = -over_warp(-low, Most()), highest = over_warp(high, Most());
  // Nothing but outliers.
  if (lowest > highest) lowest = highest = 0;
  const f32 less = p.cut * (highest - lowest), least = lowest + less, most = highest - less;
  // A table of an asymmetric grid reaches from 0 to 1.
  const f32 steps = p.table ? 1.0f : static_cast<f32>(p.levels);
  const f32 span = p.symmetric ? fmaxf(-least, most) / p.reach : (most - least) / steps;
  const f32 scale = half_to_float(stored_half(span));
  const f32 bias = p.symmetric ? 0.0f : half_to_float(stored_half(least));
  if (threadIdx.x == 0) {
    u16 *line = p.scales + group * blocks * (p.symmetric ? 1 : 2) + place;
    line[0] = static_cast<u16>(stored_half(span));
    if (!p.symmetric) line[blocks] = static_cast<u16>(stored_half(least));
  }
  for (u32 i = threadIdx.x; i < count; i += WARP) {
    const u32 at = (top + i / p.channels) * p.width + left + i % p.channels;
    const f32 value = fminf(fmaxf(p.x[at], least), most);
    u32 best = 0;
    if (scale > 0 && p.table) {
      f32 distance = 3.4028235e38f;
      for (u32 c = 0; c <= p.levels; c++) {
        const f32 away = fabsf(value - bias - scale * p.table[c]);
        if (away < distance) {
          distance = away;
          best = c;
        }
      }
    } else if (scale > 0) {
      const f32 aim = (value - bias) / scale + (p.symmetric ? static_cast<f32>(p.levels) * 0.5f : 0.0f);
      // Of two equally near codes the smaller.
      best = static_cast<u32>(fminf(fmaxf(ceilf(aim - 0.5f), 0.0f), static_cast<f32>(p.levels)));
    }
    p.codes[at] = static_cast<u8>(best);
  }
}

struct PackRows {
  const u8 *codes;
  /** Instead of codes: numbers that become halves. */
  const f32 *x;
  u32 *out;
  u32 count;
  u32 width;
  u32 bits;
  u32 line;
};

/** A word a thread, from the codes that lie in it. */
KERNEL(pack_rows, PackRows, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 row = i / p.line, first = i % p.line * 32;
  u32 word = 0;
  for (u32 column = first / p.bits; column < p.width && column * p.bits < first + 32; column++) {
    const u32 at = row * p.width + column, begin = column * p.bits;
    const u32 code = p.x ? stored_half(p.x[at]) : p.codes[at];
    word |= begin >= first ? code << (begin - first) : code >> (first - begin);
  }
  p.out[i] = word;
}

struct NearestEntries {
  const f32 *x;
  const f32 *codebooks;
  u8 *codes;
  /** Codes of a row, and the channels that each stands for. */
  u32 vectors;
  u32 coupled;
};

/** A warp a code: the entry of its codebook with the smallest squared distance, the first of equally near ones. */
KERNEL(nearest_entries, NearestEntries, 32) {
  const f32 *x = p.x + static_cast<size_t>(blockIdx.x) * p.coupled;
  const f32 *entries = p.codebooks + static_cast<size_t>(blockIdx.x % p.vectors) * ENTRIES * p.coupled;
  u64 best = NOWHERE;
  for (u32 entry = threadIdx.x; entry < ENTRIES; entry += WARP) {
    f32 distance = 0;
    for (u32 i = 0; i < p.coupled; i++) {
      const f32 apart = x[i] - entries[entry * p.coupled + i];
      distance += apart * apart;
    }
    best = Least()(best, placed(distance, entry));
  }
  best = over_warp(best, Least());
  if (threadIdx.x == 0) p.codes[blockIdx.x] = static_cast<u8>(best);
}

/** Rows in codes as they are read; 16 bits are halves without scales, and so are coupled channels without them. */
struct Coded {
  const u32 *codes;
  const u16 *scales;
  const f32 *table;
  u32 bits;
  u32 tokens;
  u32 channels;
  u32 symmetric;
  u32 line;
  u32 blocks;
  /** Columns that are kept beside the codes, ascending, and what to add there; null where there are none. */
  const u16 *outliers;
  u32 kept;
  /** The channels that a code stands for where that is more than one, which then means an entry of its codebook. */
  u32 coupled;
  const f32 *codebooks;
};

__device__ inline f32 lack_of(const Coded &p, u32 row, u32 column) {
  const u16 *columns = p.outliers + row * 2 * p.kept;
  u32 low = 0;
  for (u32 high = p.kept; low < high;) {
    const u32 middle = (low + high) / 2;
    if (columns[middle] < column) low = middle + 1;
    else high = middle;
  }
  return low < p.kept && columns[low] == column ? half_to_float(columns[p.kept + low]) : 0.0f;
}

__device__ inline f32 number(const Coded &p, u32 row, u32 column) {
  if (p.codebooks) {
    // Four codes a word.
    const u32 vector = column / p.coupled, code = p.codes[row * p.line + vector / 4] >> (vector % 4 * 8) & 255;
    return p.codebooks[(vector * ENTRIES + code) * p.coupled + column % p.coupled];
  }
  const u32 bit = column * p.bits, shift = bit % 32;
  const u32 *at = p.codes + row * p.line + bit / 32;
  u32 code = *at >> shift;
  if (shift + p.bits > 32) code |= at[1] << (32 - shift);
  code &= (1u << p.bits) - 1;
  if (p.bits == 16) return half_to_float(code);
  const u16 *scale = p.scales + row / p.tokens * p.blocks * (p.symmetric ? 1 : 2) + column / p.channels;
  const f32 centre = p.symmetric ? static_cast<f32>((1u << p.bits) - 1) * 0.5f : 0.0f;
  const f32 meaning = p.table ? p.table[code] : static_cast<f32>(code) - centre;
  const f32 value = half_to_float(scale[0]) * meaning + (p.symmetric ? 0.0f : half_to_float(scale[p.blocks]));
  return p.outliers ? value + lack_of(p, row, column) : value;
}

struct Lacks {
  Coded from;
  const f32 *x;
  u16 *lists;
  u32 count;
  u32 width;
};

/** What codes lack of outliers. Rows are counted from the first of x. */
KERNEL(find_lacks, Lacks, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 kept = p.from.kept, row = i / kept;
  u16 *list = p.lists + row * 2 * kept + i % kept;
  const u32 column = list[0];
  list[kept] = static_cast<u16>(stored_half(p.x[row * p.width + column] - number(p.from, row, column)));
}

struct DecodeRows {
  Coded from;
  f32 *out;
  u32 count;
  u32 width;
  u32 first;
};

KERNEL(decode_rows, DecodeRows, 128) {
  const u32 i = element();
  if (i < p.count) p.out[i] = number(p.from, p.first + i / p.width, i % p.width);
}

struct AttendCoded {
  /** Bits, tokens, … of the keys. */
  const u32 *key_codes;
  const u16 *key_scales;
  const f32 *key_table;
  u32 key_bits;
  u32 key_tokens;
  u32 key_channels;
  u32 key_symmetric;
  u32 key_line;
  u32 key_blocks;
  const u16 *key_outliers;
  u32 key_kept;
  u32 key_coupled;
  const f32 *key_codebooks;
  const u32 *value_codes;
  const u16 *value_scales;
  const f32 *value_table;
  u32 value_bits;
  u32 value_tokens;
  u32 value_channels;
  u32 value_symmetric;
  u32 value_line;
  u32 value_blocks;
  const u16 *value_outliers;
  u32 value_kept;
  u32 value_coupled;
  const f32 *value_codebooks;
  const f32 *q;
  const f32 *k;
  const f32 *v;
  f32 *out;
  u32 heads;
  u32 sharers;
  u32 size;
  u32 start;
  /** Positions in codes; those after them are in k and v. */
  u32 coded;
  f32 scale;
};

__device__ inline Coded keys_of(const AttendCoded &p) {
  return {p.key_codes, p.key_scales, p.key_table,    p.key_bits, p.key_tokens,  p.key_channels, p.key_symmetric,
          p.key_line,  p.key_blocks, p.key_outliers, p.key_kept, p.key_coupled, p.key_codebooks};
}
__device__ inline Coded values_of(const AttendCoded &p) {
  return {p.value_codes,  p.value_scales, p.value_table,    p.value_bits, p.value_tokens,  p.value_channels, p.value_symmetric,
          p.value_line,   p.value_blocks, p.value_outliers, p.value_kept, p.value_coupled, p.value_codebooks};
}

/** What a block of a row and a head has before it. */
struct Place {
  /** Of the head in a row of q, and of the one it shares in a row of keys. */
  u32 query;
  u32 shared;
  u32 width;
  /** Positions that the row sees. */
  u32 seen;
};
__device__ inline Place place_of(const AttendCoded &p) {
  const u32 row = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  return {blockIdx.x * p.size, head * p.sharers / p.heads * p.size, p.sharers * p.size, p.start + row + 1};
}

/** A block for each row and head. */
KERNEL(attend_coded, AttendCoded, 128) {
  const Coded keys = keys_of(p), values = values_of(p);
  const Place at = place_of(p);
  attend(
      p.q + at.query, p.out + at.query, p.size, at.seen, p.scale,
      [&](u32 position, u32 i) {
        return position < p.coded ? number(keys, position, at.shared + i)
                                  : p.k[(position - p.coded) * at.width + at.shared + i];
      },
      [&](u32 position, u32 i) {
        return position < p.coded ? number(values, position, at.shared + i)
                                  : p.v[(position - p.coded) * at.width + at.shared + i];
      });
}

/** Keys in codes that are not turned yet. */
struct AttendTurned {
  AttendCoded past;
  const f32 *cosines;
  const f32 *sines;
  /** The first row's position, and whether heads go through a Hadamard matrix first. */
  u32 from;
  u32 rotated;
};

/**
 * As attend_coded. A warp decodes a position's head into shared memory, turns it there and scores it; dense keys are
 * nowhere else.
 */
KERNEL(attend_turned, AttendTurned, 128) {
  __shared__ f32 query[HEAD];
  __shared__ f32 lines[LANES / WARP][HEAD];
  __shared__ f32 found[LANES];
  const AttendCoded &past = p.past;
  const Coded keys = keys_of(past), values = values_of(past);
  const Place at = place_of(past);
  const u32 size = past.size, half = size / 2, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const f32 root = p.rotated ? 1.0f / sqrtf(static_cast<f32>(size)) : 1.0f;
  f32 *line = lines[warp];
  for (u32 i = threadIdx.x; i < size; i += LANES) query[i] = past.q[at.query + i];
  __syncthreads();

  const auto turned = [&](u32 position) {
    for (u32 i = lane; i < size; i += WARP) line[i] = number(keys, position, at.shared + i);
    __syncwarp();
    for (u32 apart = 1; p.rotated && apart < size; apart *= 2) {
      for (u32 i = lane; i < half; i += WARP) {
        const u32 first = i / apart * 2 * apart + i % apart;
        const f32 a = line[first], b = line[first + apart];
        line[first] = a + b;
        line[first + apart] = a - b;
      }
      __syncwarp();
    }
    f32 sum = 0;
    for (u32 i = lane; i < half; i += WARP) {
      const u32 turn = (p.from + position) * half + i;
      const f32 c = p.cosines[turn], s = p.sines[turn], a = line[i], b = line[i + half];
      sum += query[i] * (a * c - b * s) + query[i + half] * (b * c + a * s);
    }
    __syncwarp();
    return sum * root;
  };
  const auto fresh = [&](u32 position) {
    const f32 *key = past.k + (position - past.coded) * at.width + at.shared;
    f32 sum = 0;
    for (u32 i = lane; i < size; i += WARP) sum += query[i] * key[i];
    return sum;
  };
  attend_scored(
      past.out + at.query, size, at.seen,
      [&](u32 from) {
        const u32 count = least(at.seen - from, LANES);
        for (u32 i = warp; i < count; i += LANES / WARP) {
          const f32 score = over_warp(from + i < past.coded ? turned(from + i) : fresh(from + i), Sum());
          if (lane == 0) found[i] = score * past.scale;
        }
        __syncthreads();
        return threadIdx.x < count ? found[threadIdx.x] : -INFINITY;
      },
      [&](u32 position, u32 i) {
        return position < past.coded ? number(values, position, at.shared + i)
                                     : past.v[(position - past.coded) * at.width + at.shared + i];
      });
}

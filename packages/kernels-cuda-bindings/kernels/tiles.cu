// Products on tensor cores with weights of integers in 4 or 8 bits, where x may be rounded: to f16, or to bytes. And with
// weights of E4M3 (FP8), where x is rounded to E4M3 too.
//
// Codes lie in tiles of 16 outputs × 64 inputs, in the order in which the lanes of a warp need them as the left side of
// mma (mma.cuh): a lane has rows g and g + 8. The sum over inputs does not depend on their order, so place t of a lane
// is given 8 inputs in a row, 32h + 8t …, and reads its x with one load. A weight is slope · (code − middle) + level, so
// that codes are exact in f16, and their products with x are scaled each 32 inputs, in f32.
//
//   4 bits: a word is a lane's 8 codes of one mma.m16n8k16, nibble i of row g + 8 · (i % 2), input (i & 2) + i / 4 of four:
//           pairs of one row come out with one mask. A lane's four words lie together.
//   8 bits: two words, one a row, byte i of input 2 · (i % 2) + i / 2 of four.
#include "mma.cuh"
#include "words.cuh"

constexpr u32 ROWS = 16;
constexpr u32 CHUNK = 64;
constexpr u32 GROUP = 32;
constexpr u32 COLUMNS = 8;

struct Tiles {
  u32 *tiles;
  /** Slope and level of each group of inputs and output: f32, or f16 where that is exact (`narrow`). */
  u32 *scales;
  u32 tile_count;
  u32 chunks;
  /** Groups of 32 inputs that share a scale. */
  u32 shared;
  u32 narrow;
  f32 middle;
};

/** Row and input of a place in the tiles: nibble or byte i of word w of a lane. */
struct Spot {
  u32 row;
  u32 input;
};
__device__ inline Spot spot_of(u32 bits, u32 lane, u32 part, u32 w, u32 i) {
  const u32 g = lane / 4, t = lane % 4;
  if (bits == 4) return {g + i % 2 * 8, w / 2 * GROUP + 8 * t + w % 2 * 4 + (i & 2) + i / 4};
  return {g + w % 2 * 8, part * GROUP + 8 * t + w / 2 * 4 + i % 2 * 2 + i / 2};
}

struct PackTiles {
  Words weight;
  Tiles to;
  u32 count;
};

/** A word of the tiles a thread. Places past the matrix have codes of 0. */
KERNEL(pack_tiles, PackTiles, 128) {
  const u32 at = element();
  if (at >= p.count) return;
  const u32 bits = p.weight.bits, parts = bits / 4, each = 32 / bits;
  const u32 w = at % 4, lane = at / 4 % WARP, part = at / (4 * WARP) % parts;
  const u32 chunk = at / (4 * WARP * parts) % p.to.chunks, tile = at / (4 * WARP * parts * p.to.chunks);
  u32 word = 0;
  for (u32 i = 0; i < each; i++) {
    const Spot spot = spot_of(bits, lane, part, w, i);
    const u32 n = tile * ROWS + spot.row, k = chunk * CHUNK + spot.input;
    if (n >= p.weight.rows || k >= p.weight.depth) continue;
    word |= (p.weight.w[n * p.weight.words + k / each] >> (k % each * bits) & ((1u << bits) - 1)) << (i * bits);
  }
  p.to.tiles[at] = word;
}

/** Slopes and levels, [groups, rows filled up to tiles]. */
KERNEL(pack_scales, PackTiles, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const Words &w = p.weight;
  const u32 rows = p.to.tile_count * ROWS, n = i % rows, k = i / rows * p.to.shared * GROUP;
  f32 scale = 0, offset = 0, bias = 0;
  if (n < w.rows && k < w.depth) {
    scale = scale_of(w, n, k);
    offset = w.lowest + w.step * p.to.middle - zero_of(w, n, k);
    bias = bias_of(w, n, k);
  }
  if (p.to.narrow) {
    p.to.scales[i] = float_to_half(scale) | float_to_half(offset) << 16;
    return;
  }
  const f32 row = n < w.rows ? row_scale_of(w, n) : 0.0f;
  p.to.scales[2 * i] = float_to_bits(row * (scale * w.step));
  p.to.scales[2 * i + 1] = float_to_bits(row * (scale * offset + bias));
}

struct Line {
  f32 slope;
  f32 level;
};
__device__ inline Line line_of(const u32 *scale, u32 narrow) {
  if (!narrow) return {bits_to_float(scale[0]), bits_to_float(scale[1])};
  const f32 slope = half_to_float(scale[0] & 0xffff);
  return {slope, slope * half_to_float(scale[0] >> 16)};
}

struct GatherTiles {
  Tiles from;
  const u32 *picked;
  const u32 *order;
  f32 *out;
  u32 count;
  u32 bits;
  /** Codes are E4M3. */
  u32 floats;
  u32 depth;
  u32 out_row;
  u32 begin;
  u32 keep;
};

/** As `gather` of weights.cu. */
KERNEL(gather_tiles, GatherTiles, 128) {
  const u32 i = element();
  if (i >= p.count) return;
  const u32 line = i / p.depth, k = i % p.depth, n = p.picked ? p.picked[line] : line;
  const u32 parts = p.bits / 4, input = k % CHUNK, row = n % ROWS;
  const u32 lane = row % 8 * 4 + input % GROUP / 8, quarter = input % 8 / 4, four = input % 4;
  const u32 part = p.bits == 4 ? 0 : input / GROUP;
  const u32 w = p.bits == 4 ? input / GROUP * 2 + quarter : quarter * 2 + row / 8;
  const u32 place = p.bits == 4 ? row / 8 + (four & 2) + four % 2 * 4 : four % 2 * 2 + four / 2;
  const size_t at = ((static_cast<size_t>(n / ROWS) * p.from.chunks + k / CHUNK) * parts + part) * WARP + lane;
  const u32 code = p.from.tiles[at * 4 + w] >> (place * p.bits) & ((1u << p.bits) - 1);
  const u32 scale = k / GROUP / p.from.shared * p.from.tile_count * ROWS + n;
  const Line means = line_of(p.from.scales + scale * (p.from.narrow ? 1 : 2), p.from.narrow);
  const f32 grid = p.floats ? e4m3_to_float(code) : static_cast<f32>(code) - p.from.middle;
  const f32 value = means.slope * grid + means.level;
  f32 *out = p.out + line * p.out_row + (p.order ? p.order[p.begin + k] : p.begin + k);
  *out = p.keep ? *out + value : value;
}

// ---- x, rounded

struct Rounded {
  const f32 *x;
  /** [tokens filled up, inputs filled up]: halves, or bytes. */
  u32 *q;
  /** Of each 32 inputs and token: Σ q, or f and f · Σ q of bytes. */
  f32 *sums;
  /** Of each token: what halves are multiplied by. */
  f32 *factors;
  u32 tokens;
  /** Filled up. */
  u32 lines;
  u32 chunks;
  u32 depth;
  u32 x_row;
  u32 x_from;
};

/** A block a token: its largest number comes to lie in [1, 2), so that halves hold it. What is no number stays none. */
KERNEL(round_f16, Rounded, 128) {
  const u32 token = blockIdx.x, lane = threadIdx.x % WARP;
  const f32 *x = p.x + token * p.x_row + p.x_from;
  const u32 inside = token < p.tokens ? p.depth : 0;
  f32 most = 0;
  for (u32 k = threadIdx.x; k < inside; k += LANES) most = fmaxf(most, fabsf(x[k]));
  most = over_block<LANES>(most, Most());
  // The power of two below, but for what has none; its inverse must be a normal number too.
  const bool usual = finite(most) && most >= 1.1754944e-38f;
  const f32 factor = usual ? fminf(bits_to_float(float_to_bits(most) & 0x7f800000u), 8.5070592e37f) : 1.0f;
  const f32 inverse = 1.0f / factor;
  for (u32 block = threadIdx.x / WARP; block < 2 * p.chunks; block += LANES / WARP) {
    const u32 k = block * GROUP + lane, half = float_to_half(k < inside ? x[k] * inverse : 0.0f);
    const u32 next = __shfl_down_sync(ALL, half, 1);
    if (lane % 2 == 0) p.q[(token * p.chunks * CHUNK + k) / 2] = half | next << 16;
    const f32 sum = over_warp(half_to_float(half), Sum());
    if (lane == 0) p.sums[block * p.lines + token] = sum;
  }
  if (threadIdx.x == 0) p.factors[token] = factor;
}

/** A warp 32 inputs of a token, which share a factor. */
KERNEL(round_bytes, Rounded, 128) {
  const u32 warp = (blockIdx.x * LANES + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
  const u32 token = warp / (2 * p.chunks), block = warp % (2 * p.chunks), k = block * GROUP + lane;
  if (token >= p.lines) return;
  const f32 x = token < p.tokens && k < p.depth ? p.x[token * p.x_row + p.x_from + k] : 0.0f;
  const f32 most = over_warp(fabsf(x), Most());
  // What is no number must not be rounded away: it becomes the factor.
  const bool odd = __ballot_sync(ALL, !finite(x)) != 0;
  const f32 q = odd || most == 0 ? 0.0f : fminf(fmaxf(rintf(x * (127.0f / most)), -127.0f), 127.0f);
  const f32 sum = over_warp(q, Sum());
  const u32 byte = static_cast<u32>(static_cast<int>(q)) & 255;
  // Of four inputs in the order 0, 2, 1, 3.
  const u32 first = lane / 4 * 4;
  u32 word = 0;
  for (u32 i = 0; i < 4; i++) word |= __shfl_sync(ALL, byte, first + i % 2 * 2 + i / 2) << (8 * i);
  if (lane % 4 == 0) p.q[(token * p.chunks * CHUNK + k) / 4] = word;
  if (lane > 0) return;
  const f32 factor = odd ? NAN : most / 127.0f;
  p.sums[2 * (block * p.lines + token)] = factor;
  p.sums[2 * (block * p.lines + token) + 1] = factor * sum;
}

/** Rounded half to even, at most 448; it must be a number. */
__device__ inline u32 float_to_e4m3(f32 x) {
  const u32 bits = float_to_bits(x), sign = bits >> 31 << 7;
  const f32 size = fminf(fabsf(x), 448.0f);
  // From 2⁻⁶ on numbers have three digits behind the first; below it steps are those of 2⁻⁶.
  const u32 exponent = size < 0.015625f ? 121 : float_to_bits(size) >> 23;
  const u32 steps = static_cast<u32>(rintf(size * bits_to_float((257 - exponent) << 23)));
  // Eight steps are the first digit, which stands in the exponent; sixteen are the next power of two.
  return sign | (((exponent - 121) << 3) + steps);
}

/** A block a token, whose largest number becomes 448; its bytes lie as those of round_bytes. */
KERNEL(round_fp8, Rounded, 128) {
  const u32 token = blockIdx.x, lane = threadIdx.x % WARP;
  const f32 *x = p.x + token * p.x_row + p.x_from;
  const u32 inside = token < p.tokens ? p.depth : 0;
  f32 most = 0;
  bool odd = false;
  for (u32 k = threadIdx.x; k < inside; k += LANES) {
    most = fmaxf(most, fabsf(x[k]));
    odd |= !finite(x[k]);
  }
  odd = over_block<LANES>(odd ? 1u : 0u, Sum()) > 0;
  most = over_block<LANES>(most, Most());
  // A factor whose inverse is a normal number.
  const bool usual = !odd && most >= 1e-35f;
  const f32 factor = odd ? NAN : usual ? most / 448.0f : 1.0f, inverse = usual ? 448.0f / most : 0.0f;
  for (u32 block = threadIdx.x / WARP; block < 2 * p.chunks; block += LANES / WARP) {
    const u32 k = block * GROUP + lane;
    const u32 byte = usual && k < inside ? float_to_e4m3(x[k] * inverse) : 0;
    const u32 first = lane / 4 * 4;
    u32 word = 0;
    for (u32 i = 0; i < 4; i++) word |= __shfl_sync(ALL, byte, first + i % 2 * 2 + i / 2) << (8 * i);
    if (lane % 4 == 0) p.q[(token * p.chunks * CHUNK + k) / 4] = word;
    const f32 sum = over_warp(e4m3_to_float(byte), Sum());
    if (lane > 0) continue;
    p.sums[2 * (block * p.lines + token)] = factor;
    p.sums[2 * (block * p.lines + token) + 1] = factor * sum;
  }
}

/** As round_f16, but the range of bf16 needs no factor, and what asks for it no sums. */
KERNEL(round_bf16, Rounded, 128) {
  const u32 token = blockIdx.x;
  const f32 *x = p.x + token * p.x_row + p.x_from;
  const u32 inside = token < p.tokens ? p.depth : 0, words = p.chunks * CHUNK / 2;
  for (u32 i = threadIdx.x; i < words; i += LANES) {
    const u32 low = 2 * i < inside ? float_to_brain(x[2 * i]) : 0;
    const u32 high = 2 * i + 1 < inside ? float_to_brain(x[2 * i + 1]) : 0;
    p.q[token * words + i] = low | high << 16;
  }
  if (threadIdx.x == 0) p.factors[token] = 1.0f;
}

// ---- products

struct TileProduct {
  Tiles weight;
  const u32 *q;
  const f32 *sums;
  const f32 *factors;
  f32 *out;
  u32 rows;
  u32 tokens;
  u32 lines;
  u32 keep;
};

struct alignas(16) Quad {
  u32 w[4];
};
struct alignas(8) Pair {
  u32 w[2];
};

/** What x is rounded to. */
enum class Seen { f16, bytes, fp8 };

/** What a tensor core's sum of 32 products of bytes is. */
template <Seen seen> struct SumOf {
  using Type = int;
};
template <> struct SumOf<Seen::fp8> {
  using Type = f32;
};

/** A lane's codes of one mma.m16n8k16, less the middle: 1024 + code, or 1024 + 16 · code, in the last bits of halves. */
template <u32 BITS> __device__ void codes_as_halves(u32 (&a)[4], const Quad *quads, u32 step) {
  constexpr u32 ONE = 0x3c003c00, SIXTEENTH = 0x2c002c00, MAGIC = 0x64006400;
  if constexpr (BITS == 4) {
    // −1032, and −64 − 8.
    constexpr u32 LOW = 0xe408e408, HIGH = 0xd480d480;
    const u32 word = quads[0].w[step], upper = word >> 8;
    a[0] = fma_halves((word & 0x000f000f) | MAGIC, ONE, LOW);
    a[1] = fma_halves((word & 0x00f000f0) | MAGIC, SIXTEENTH, HIGH);
    a[2] = fma_halves((upper & 0x000f000f) | MAGIC, ONE, LOW);
    a[3] = fma_halves((upper & 0x00f000f0) | MAGIC, SIXTEENTH, HIGH);
  } else {
    // −1024 − 128.
    constexpr u32 LOW = 0xe480e480;
    for (u32 row = 0; row < 2; row++) {
      const u32 word = quads[step / 2].w[step % 2 * 2 + row];
      a[row] = fma_halves((word & 0x00ff00ff) | MAGIC, ONE, LOW);
      a[2 + row] = fma_halves((word >> 8 & 0x00ff00ff) | MAGIC, ONE, LOW);
    }
  }
}

/**
 * A warp has R tiles of outputs and T eights of tokens; `across` warps of a block stand side by side over the outputs,
 * `down` over the tokens, and the others share out the inputs. Copies of codes and scales run STAGES − 1 chunks ahead.
 */
template <Seen seen, u32 BITS, u32 R, u32 T, u32 ACROSS, u32 DOWN, u32 SPLIT>
__device__ void tile_product(const TileProduct &p) {
  using Bytes = typename SumOf<seen>::Type;
  constexpr u32 STAGES = 4, PARTS = BITS / 4;
  struct Stage {
    Quad words[R][PARTS][WARP];
    u32 scales[R][WARP][2];
  };
  __shared__ Stage ring[ACROSS * DOWN * SPLIT][STAGES];
  const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
  const u32 split = warp % SPLIT, place = warp / SPLIT;
  const u32 wide = (p.weight.tile_count + R * ACROSS - 1) / (R * ACROSS);
  const u32 tile = (blockIdx.x % wide * ACROSS + place % ACROSS) * R;
  const u32 token = (blockIdx.x / wide * DOWN + place / ACROSS) * T * COLUMNS;
  const u32 last = p.weight.tile_count - 1, scale_words = p.weight.narrow ? 1 : 2;

  const auto fetch = [&](u32 chunk, u32 slot) {
    if (chunk < p.weight.chunks) {
      Stage &stage = ring[warp][slot];
#pragma unroll
      for (u32 r = 0; r < R; r++) {
        const u32 from = least(tile + r, last);
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
          const size_t at = ((static_cast<size_t>(from) * p.weight.chunks + chunk) * PARTS + part) * WARP + lane;
          copy_async<16>(&stage.words[r][part][lane], p.weight.tiles + at * 4);
        }
        // Lanes 0 … 15 have the rows of the first 32 inputs, the others those of the second.
        const u32 group = (2 * chunk + lane / ROWS) / p.weight.shared;
        const u32 *scale = p.weight.scales + ((group * p.weight.tile_count + from) * ROWS + lane % ROWS) * scale_words;
        if (p.weight.narrow) copy_async<4>(stage.scales[r][lane], scale);
        else copy_async<8>(stage.scales[r][lane], scale);
      }
    }
    copies_end();
  };

  f32 totals[R][T][4] = {};
  for (u32 ahead = 0; ahead < STAGES - 1; ahead++) fetch(split + ahead * SPLIT, ahead);
  u32 slot = 0;
  for (u32 chunk = split; chunk < p.weight.chunks; chunk += SPLIT, slot = (slot + 1) % STAGES) {
    copies_wait<STAGES - 2>();
    // What other lanes have copied is there, and what they have read may be written over.
    __syncwarp();
    fetch(chunk + (STAGES - 1) * SPLIT, (slot + STAGES - 1) % STAGES);
    const Stage &stage = ring[warp][slot];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const u32 block = 2 * chunk + half;
      Line lines[R][2];
#pragma unroll
      for (u32 r = 0; r < R; r++) {
        for (u32 i = 0; i < 2; i++) lines[r][i] = line_of(stage.scales[r][half * ROWS + g + 8 * i], p.weight.narrow);
      }
      if constexpr (seen != Seen::f16) {
        u32 a[R][4];
#pragma unroll
        for (u32 r = 0; r < R; r++) {
          if constexpr (BITS == 8) {
            for (u32 i = 0; i < 4; i++) a[r][i] = stage.words[r][half][lane].w[i];
          } else {
            for (u32 i = 0; i < 4; i++) {
              a[r][i] = stage.words[r][0][lane].w[2 * half + i / 2] >> (i % 2 * 4) & 0x0f0f0f0fu;
            }
          }
        }
#pragma unroll
        for (u32 column = 0; column < T; column++) {
          const u32 from = token + column * COLUMNS, mine = from + g;
          const u32 *x = p.q + (mine * p.weight.chunks * CHUNK + block * GROUP + 8 * t) / 4;
          Pair two = {};
          if (mine < p.tokens) two = *reinterpret_cast<const Pair *>(x);
          const u32 b[2] = {two.w[0], two.w[1]};
          // f and f · Σ q of two tokens.
          const f32x4 sums = *reinterpret_cast<const f32x4 *>(p.sums + 2 * (block * p.lines + from + 2 * t));
          const f32 factors[2] = {sums.x, sums.z}, products[2] = {sums.y, sums.w};
#pragma unroll
          for (u32 r = 0; r < R; r++) {
            Bytes c[4] = {};
            if constexpr (seen == Seen::fp8) mma_fp8(c, a[r], b);
            else mma_bytes(c, a[r], b);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
              const Line &line = lines[r][i / 2];
              const f32 product = factors[i % 2] * static_cast<f32>(c[i]) - p.weight.middle * products[i % 2];
              totals[r][column][i] += line.slope * product + line.level * products[i % 2];
            }
          }
        }
      } else {
        u32 a[R][2][4];
#pragma unroll
        for (u32 r = 0; r < R; r++) {
          Quad quads[PARTS];
#pragma unroll
          for (u32 part = 0; part < PARTS; part++) quads[part] = stage.words[r][part][lane];
          codes_as_halves<BITS>(a[r][0], quads, 2 * half);
          codes_as_halves<BITS>(a[r][1], quads, 2 * half + 1);
        }
#pragma unroll
        for (u32 column = 0; column < T; column++) {
          const u32 from = token + column * COLUMNS, mine = from + g;
          const u32 *x = p.q + (mine * p.weight.chunks * CHUNK + block * GROUP + 8 * t) / 2;
          Quad b = {};
          if (mine < p.tokens) b = *reinterpret_cast<const Quad *>(x);
          const f32 *sums = p.sums + block * p.lines + from + 2 * t;
#pragma unroll
          for (u32 r = 0; r < R; r++) {
            f32 c[4] = {};
            const u32 first[2] = {b.w[0], b.w[1]}, second[2] = {b.w[2], b.w[3]};
            mma_halves(c, a[r][0], first);
            mma_halves(c, a[r][1], second);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
              const Line &line = lines[r][i / 2];
              totals[r][column][i] += line.slope * c[i] + line.level * sums[i % 2];
            }
          }
        }
      }
    }
  }

  // The warps that share out the inputs add up, in their order.
  if constexpr (SPLIT > 1) {
    static_assert(sizeof(ring[0]) >= sizeof(totals) * WARP, "a warp's totals must fit where its codes were");
    __syncthreads();
    f32 *mine = reinterpret_cast<f32 *>(ring[warp]);
#pragma unroll
    for (u32 r = 0; r < R; r++) {
      for (u32 i = 0; i < T * 4; i++) mine[(r * T * 4 + i) * WARP + lane] = totals[r][i / 4][i % 4];
    }
    __syncthreads();
    if (split > 0) return;
#pragma unroll
    for (u32 r = 0; r < R; r++) {
      for (u32 i = 0; i < T * 4; i++) {
        for (u32 other = 1; other < SPLIT; other++) {
          const f32 *parts = reinterpret_cast<const f32 *>(ring[warp + other]);
          totals[r][i / 4][i % 4] += parts[(r * T * 4 + i) * WARP + lane];
        }
      }
    }
  }
#pragma unroll
  for (u32 r = 0; r < R; r++) {
    for (u32 column = 0; column < T; column++) {
      for (u32 i = 0; i < 4; i++) {
        const u32 n = (tile + r) * ROWS + g + i / 2 * 8, mine = token + column * COLUMNS + 2 * t + i % 2;
        if (n >= p.rows || mine >= p.tokens) continue;
        f32 *out = p.out + static_cast<size_t>(mine) * p.rows + n;
        const f32 value = seen != Seen::f16 ? totals[r][column][i] : totals[r][column][i] * p.factors[mine];
        *out = p.keep ? *out + value : value;
      }
    }
  }
}

// So many tokens at most; `many` goes on with the next 64.
KERNEL(tiles_f16_4_few8, TileProduct, 256) { tile_product<Seen::f16, 4, 1, 1, 1, 1, 8>(p); }
KERNEL(tiles_f16_4_few16, TileProduct, 256) { tile_product<Seen::f16, 4, 1, 2, 1, 1, 8>(p); }
KERNEL(tiles_f16_4_few32, TileProduct, 256) { tile_product<Seen::f16, 4, 1, 4, 1, 1, 8>(p); }
KERNEL(tiles_f16_4_many, TileProduct, 128) { tile_product<Seen::f16, 4, 2, 4, 2, 2, 1>(p); }
KERNEL(tiles_f16_8_few8, TileProduct, 256) { tile_product<Seen::f16, 8, 1, 1, 1, 1, 8>(p); }
KERNEL(tiles_f16_8_few16, TileProduct, 256) { tile_product<Seen::f16, 8, 1, 2, 1, 1, 8>(p); }
KERNEL(tiles_f16_8_few32, TileProduct, 256) { tile_product<Seen::f16, 8, 1, 4, 1, 1, 8>(p); }
KERNEL(tiles_f16_8_many, TileProduct, 128) { tile_product<Seen::f16, 8, 2, 4, 2, 2, 1>(p); }
KERNEL(tiles_bytes_4_few8, TileProduct, 256) { tile_product<Seen::bytes, 4, 1, 1, 1, 1, 8>(p); }
KERNEL(tiles_bytes_4_few16, TileProduct, 256) { tile_product<Seen::bytes, 4, 1, 2, 1, 1, 8>(p); }
KERNEL(tiles_bytes_4_few32, TileProduct, 256) { tile_product<Seen::bytes, 4, 1, 4, 1, 1, 8>(p); }
KERNEL(tiles_bytes_4_many, TileProduct, 128) { tile_product<Seen::bytes, 4, 2, 4, 2, 2, 1>(p); }
KERNEL(tiles_bytes_8_few8, TileProduct, 256) { tile_product<Seen::bytes, 8, 1, 1, 1, 1, 8>(p); }
KERNEL(tiles_bytes_8_few16, TileProduct, 256) { tile_product<Seen::bytes, 8, 1, 2, 1, 1, 8>(p); }
KERNEL(tiles_bytes_8_few32, TileProduct, 256) { tile_product<Seen::bytes, 8, 1, 4, 1, 1, 8>(p); }
KERNEL(tiles_bytes_8_many, TileProduct, 128) { tile_product<Seen::bytes, 8, 2, 4, 2, 2, 1>(p); }
KERNEL(tiles_fp8_8_few8, TileProduct, 256) { tile_product<Seen::fp8, 8, 1, 1, 1, 1, 8>(p); }
KERNEL(tiles_fp8_8_few16, TileProduct, 256) { tile_product<Seen::fp8, 8, 1, 2, 1, 1, 8>(p); }
KERNEL(tiles_fp8_8_few32, TileProduct, 256) { tile_product<Seen::fp8, 8, 1, 4, 1, 1, 8>(p); }
KERNEL(tiles_fp8_8_many, TileProduct, 128) { tile_product<Seen::fp8, 8, 2, 4, 2, 2, 1>(p); }

// ---- what tests give fragments to, as they lie

struct Fragments {
  /** Of each lane: four registers, two, and the four sums. */
  const u32 *a;
  const u32 *b;
  f32 *c;
};

template <class Multiply> __device__ void meet_fragments(const Fragments &p, Multiply multiply) {
  const u32 lane = threadIdx.x;
  u32 a[4], b[2];
  f32 c[4];
  for (u32 i = 0; i < 4; i++) {
    a[i] = p.a[4 * lane + i];
    c[i] = p.c[4 * lane + i];
  }
  for (u32 i = 0; i < 2; i++) b[i] = p.b[2 * lane + i];
  multiply(c, a, b);
  for (u32 i = 0; i < 4; i++) p.c[4 * lane + i] = c[i];
}

KERNEL(fragments_f16, Fragments, 32) { meet_fragments(p, [](auto &c, auto &a, auto &b) { mma_halves(c, a, b); }); }
KERNEL(fragments_bf16, Fragments, 32) { meet_fragments(p, [](auto &c, auto &a, auto &b) { mma_brains(c, a, b); }); }
KERNEL(fragments_fp8, Fragments, 32) { meet_fragments(p, [](auto &c, auto &a, auto &b) { mma_fp8(c, a, b); }); }
KERNEL(fragments_bytes, Fragments, 32) {
  meet_fragments(p, [](auto &c, auto &a, auto &b) {
    int sums[4];
    for (u32 i = 0; i < 4; i++) sums[i] = static_cast<int>(c[i]);
    mma_bytes(sums, a, b);
    for (u32 i = 0; i < 4; i++) c[i] = static_cast<f32>(sums[i]);
  });
}

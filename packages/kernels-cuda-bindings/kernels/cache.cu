// Keys and values in few bits: coded, decoded, and attended over as they lie (core's cache-kernels.ts has the layout).
#include "attention.cuh"

/** f16, the largest at most. */
__device__ inline u32 stored_half(f32 x) { return float_to_half(fminf(fmaxf(x, -65504.0f), 65504.0f)); }

struct CodeRows {
  const f32 *x;
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
    const f32 value = p.x[(top + i / p.channels) * p.width + left + i % p.channels];
    low = fminf(low, value);
    high = fmaxf(high, value);
  }
  const f32 lowest = -over_warp(-low, Most()), highest = over_warp(high, Most());
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

/** Rows in codes as they are read; 16 bits are halves without scales. */
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
};

__device__ inline f32 number(const Coded &p, u32 row, u32 column) {
  const u32 bit = column * p.bits, shift = bit % 32;
  const u32 *at = p.codes + row * p.line + bit / 32;
  u32 code = *at >> shift;
  if (shift + p.bits > 32) code |= at[1] << (32 - shift);
  code &= (1u << p.bits) - 1;
  if (p.bits == 16) return half_to_float(code);
  const u16 *scale = p.scales + row / p.tokens * p.blocks * (p.symmetric ? 1 : 2) + column / p.channels;
  const f32 centre = p.symmetric ? static_cast<f32>((1u << p.bits) - 1) * 0.5f : 0.0f;
  const f32 meaning = p.table ? p.table[code] : static_cast<f32>(code) - centre;
  return half_to_float(scale[0]) * meaning + (p.symmetric ? 0.0f : half_to_float(scale[p.blocks]));
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
  const u32 *value_codes;
  const u16 *value_scales;
  const f32 *value_table;
  u32 value_bits;
  u32 value_tokens;
  u32 value_channels;
  u32 value_symmetric;
  u32 value_line;
  u32 value_blocks;
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

/** A block for each row and head. */
KERNEL(attend_coded, AttendCoded, 128) {
  const Coded keys = {p.key_codes,    p.key_scales,    p.key_table, p.key_bits,  p.key_tokens,
                      p.key_channels, p.key_symmetric, p.key_line,  p.key_blocks};
  const Coded values = {p.value_codes,    p.value_scales,    p.value_table, p.value_bits,  p.value_tokens,
                        p.value_channels, p.value_symmetric, p.value_line,  p.value_blocks};
  const u32 row = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const u32 width = p.sharers * p.size, shared = head * p.sharers / p.heads * p.size;
  attend(
      p.q + blockIdx.x * p.size, p.out + blockIdx.x * p.size, p.size, p.start + row + 1, p.scale,
      [&](u32 position, u32 i) {
        return position < p.coded ? number(keys, position, shared + i)
                                  : p.k[(position - p.coded) * width + shared + i];
      },
      [&](u32 position, u32 i) {
        return position < p.coded ? number(values, position, shared + i)
                                  : p.v[(position - p.coded) * width + shared + i];
      });
}

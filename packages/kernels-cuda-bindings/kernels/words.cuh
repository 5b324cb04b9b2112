// Matrices in words (core/src/words), and what a weight there means.
//
// A row of codes begins at a word of its own; tables and scales are the bits of f32 further on in the same words.
// A weight is scale · (grid(code) − zero) + bias; the scale of a row is multiplied last.
#pragma once
#include "common.cuh"

struct Words {
  const u32 *w;
  u32 rows;
  u32 depth;
  u32 words;
  /** Bits of a code or a dense weight: 1, 2, 4, 8, 16 or 32. */
  u32 bits;
  /** Weights of a code's vector, which run along the outputs or the inputs. */
  u32 length;
  u32 along_out;
  /** A word's weights have their scales in common. */
  u32 even;
  u32 has_scale;
  u32 has_zero;
  u32 has_bias;
  u32 has_row_scale;
  f32 lowest;
  f32 step;
  u32 entries;
  u32 row_scale;
  u32 table;
  u32 table_rows;
  u32 table_columns;
  u32 table_across;
  u32 scale;
  u32 scale_rows;
  u32 scale_columns;
  u32 scale_across;
  u32 zero;
  u32 zero_rows;
  u32 zero_columns;
  u32 zero_across;
  u32 bias;
  u32 bias_rows;
  u32 bias_columns;
  u32 bias_across;
};

enum class Kind { f32, f16, bf16, integer, table };

__device__ inline f32 number(const Words &p, u32 at) { return bits_to_float(p.w[at]); }

/** The block of an index; most often there is one, and divisions are slow. */
__device__ inline u32 block_of(u32 i, u32 each, u32 across) { return across == 1 ? 0 : i / each; }

template <Kind kind>
__device__ f32 grid_value(const Words &p, u32 word, u32 place, u32 e, u32 n, u32 k) {
  if constexpr (kind == Kind::f32) return bits_to_float(word);
  const u32 code = word >> (place * p.bits) & ((1u << p.bits) - 1);
  if constexpr (kind == Kind::f16) return half_to_float(code);
  if constexpr (kind == Kind::bf16) return bits_to_float(code << 16);
  if constexpr (kind == Kind::integer) return p.lowest + p.step * static_cast<f32>(code);
  const u32 block = n / p.table_rows * p.table_across + block_of(k, p.table_columns, p.table_across);
  return number(p, p.table + (block * p.entries + code) * p.length + e);
}

__device__ inline f32 scale_of(const Words &p, u32 n, u32 k) {
  return p.has_scale ? number(p, p.scale + n / p.scale_rows * p.scale_across + block_of(k, p.scale_columns, p.scale_across)) : 1.0f;
}
__device__ inline f32 zero_of(const Words &p, u32 n, u32 k) {
  return p.has_zero ? number(p, p.zero + n / p.zero_rows * p.zero_across + block_of(k, p.zero_columns, p.zero_across)) : 0.0f;
}
__device__ inline f32 bias_of(const Words &p, u32 n, u32 k) {
  return p.has_bias ? number(p, p.bias + n / p.bias_rows * p.bias_across + block_of(k, p.bias_columns, p.bias_across)) : 0.0f;
}
__device__ inline f32 row_scale_of(const Words &p, u32 n) {
  return p.has_row_scale ? number(p, p.row_scale + n) : 1.0f;
}

template <Kind kind> __device__ f32 weight_of(const Words &p, u32 n, u32 k) {
  const u32 line = p.along_out ? n / p.length : n;
  const u32 column = p.along_out || p.length == 1 ? k : k / p.length;
  // Bits of a code are a power of two: no word's end cuts one.
  const u32 bit = column * p.bits;
  const u32 word = p.w[line * p.words + bit / 32];
  const f32 value = grid_value<kind>(p, word, bit % 32 / p.bits, (p.along_out ? n : k) % p.length, n, k);
  return (value - zero_of(p, n, k)) * scale_of(p, n, k) + bias_of(p, n, k);
}

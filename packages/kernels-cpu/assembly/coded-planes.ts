/**
 * Products with codes as they lie in memory, for one to three queries that share keys and values. 32 channels are
 * eight planes of four lanes, each a shift, an `and` and a conversion away:
 *
 *   codes: lane l of plane k is channel 8·l + k
 *   halves: lane l of plane k is channel 4·k + l, times 2^−112, since the exponent has the bias of halves
 *
 * What multiplies a plane is arranged alike, so that no code is ever moved between lanes, scaled or stored. Scales and
 * least values come in once for each group of channels.
 */

import { fma } from './simd'

/** Channels of eight planes. */
export const PIECE = 32
/** Queries that are multiplied with a plane at once. */
export const TOGETHER = 3
/** Positions whose sums wait to be added across their lanes. */
const FOUR = 4
/** 2^56: halves take it from both sides of a product, so that neither side leaves the range of f32. */
export const HALFWAY: f32 = reinterpret<f32>(0x5b800000)

/** Bits as a type, so that each width and number of queries is a function of its own: their size, 3 for one byte. */
type Bits2 = i16
type Bits3 = i8
type Bits4 = i32
type Bits8 = i64
type Halves = v128
/** Queries as a type: 1, 2, and 3 for four bytes. */
type One = i8
type Two = i16
type Three = i32

// @ts-ignore: decorator
@inline
function queriesOf<C>(): i32 {
  return sizeof<C>() == 4 ? 3 : <i32>sizeof<C>()
}

/** Bytes of a piece. */
// @ts-ignore: decorator
@inline
function bytesOf<B>(): usize {
  return sizeof<B>() == 1 ? 12 : sizeof<B>() << 2
}

/** The words of the first or second four planes. */
// @ts-ignore: decorator
@inline
function word<B>(p: usize, half: i32): v128 {
  if (sizeof<B>() == 2) return v128.load16x4_u(p)
  if (sizeof<B>() == 1) {
    const v = v128.load(p)
    return i8x16.swizzle(v, i8x16(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1))
  }
  if (sizeof<B>() == 8) {
    const a = v128.load(p)
    const b = v128.load(p, 16)
    if (half) return v128.shuffle<i32>(a, b, 1, 3, 5, 7)
    return v128.shuffle<i32>(a, b, 0, 2, 4, 6)
  }
  return v128.load(p)
}

/** `mask`: maskOf(bits), a variable, since the engine makes constants anew each time. */
// @ts-ignore: decorator
@inline
function plane<B>(v: v128, p: usize, k: i32, mask: v128): v128 {
  if (sizeof<B>() == 16) {
    return v128.and(i32x4.shl(v128.load16x4_s(p + (<usize>k << 3)), 13), mask)
  }
  if (sizeof<B>() == 8) {
    if ((k & 3) == 3) return f32x4.convert_i32x4_s(i32x4.shr_u(v, 24))
    return f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(v, (k & 3) << 3), mask))
  }
  if (sizeof<B>() == 4) {
    if (k == 7) return f32x4.convert_i32x4_s(i32x4.shr_u(v, 28))
    return f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(v, k << 2), mask))
  }
  if (sizeof<B>() == 2) return f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(v, k << 1), mask))
  return f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(v, 3 * k), mask))
}

// @ts-ignore: decorator
@inline
function maskOf(bits: i32): v128 {
  return i32x4.splat(bits == 16 ? <i32>0x8fffe000 : (1 << bits) - 1)
}

/** Stores the columns of four rows, `step` bytes apart. */
// @ts-ignore: decorator
@inline
function storeColumns(to: usize, step: usize, r0: v128, r1: v128, r2: v128, r3: v128): void {
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5)
  const b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5)
  const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7)
  const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7)
  v128.store(to, v128.shuffle<i64>(a, b, 0, 2))
  v128.store(to + step, v128.shuffle<i64>(a, b, 1, 3))
  v128.store(to + 2 * step, v128.shuffle<i64>(c, d, 0, 2))
  v128.store(to + 3 * step, v128.shuffle<i64>(c, d, 1, 3))
}

/** `size` numbers in the order of planes, ready to be multiplied with them. */
export function arrange(to: usize, from: usize, size: i32, bits: i32): void {
  if (bits == 16) {
    for (let i = 0; i < size; i += 4) {
      const at = <usize>i << 2
      v128.store(to + at, f32x4.mul(v128.load(from + at), f32x4.splat(HALFWAY)))
    }
    return
  }
  for (let i = 0; i < size; i += PIECE, from += PIECE << 2) {
    for (let half: usize = 0; half < 32; half += 16, to += 64) {
      const p = from + half
      storeColumns(to, 16, v128.load(p), v128.load(p, 32), v128.load(p, 64), v128.load(p, 96))
    }
  }
}

// @ts-ignore: decorator
@inline
function dotsOf<B, C>(
  mask: v128,
  sums: usize,
  q: usize,
  next: usize,
  codes: usize,
  pieces: i32,
  together: i32,
  scales: usize,
  step: usize,
): void {
  let x0 = f32x4.splat(0)
  let x1 = x0
  let x2 = x0
  for (let piece = 0; piece < pieces; scales += step) {
    let a0 = f32x4.splat(0)
    let a1 = a0
    let a2 = a0
    let b0 = a0
    let b1 = a0
    let b2 = a0
    const end = piece + together
    for (; piece < end; piece++, codes += bytesOf<B>(), q += 128) {
      let v = word<B>(codes, 0)
      let c = plane<B>(v, codes, 0, mask)
      a0 = fma(v128.load(q), c, a0)
      if (sizeof<C>() > 1) a1 = fma(v128.load(q + next), c, a1)
      if (sizeof<C>() > 2) a2 = fma(v128.load(q + 2 * next), c, a2)
      c = plane<B>(v, codes, 1, mask)
      b0 = fma(v128.load(q, 16), c, b0)
      if (sizeof<C>() > 1) b1 = fma(v128.load(q + next, 16), c, b1)
      if (sizeof<C>() > 2) b2 = fma(v128.load(q + 2 * next, 16), c, b2)
      c = plane<B>(v, codes, 2, mask)
      a0 = fma(v128.load(q, 32), c, a0)
      if (sizeof<C>() > 1) a1 = fma(v128.load(q + next, 32), c, a1)
      if (sizeof<C>() > 2) a2 = fma(v128.load(q + 2 * next, 32), c, a2)
      c = plane<B>(v, codes, 3, mask)
      b0 = fma(v128.load(q, 48), c, b0)
      if (sizeof<C>() > 1) b1 = fma(v128.load(q + next, 48), c, b1)
      if (sizeof<C>() > 2) b2 = fma(v128.load(q + 2 * next, 48), c, b2)
      if (sizeof<B>() == 8) v = word<B>(codes, 1)
      c = plane<B>(v, codes, 4, mask)
      a0 = fma(v128.load(q, 64), c, a0)
      if (sizeof<C>() > 1) a1 = fma(v128.load(q + next, 64), c, a1)
      if (sizeof<C>() > 2) a2 = fma(v128.load(q + 2 * next, 64), c, a2)
      c = plane<B>(v, codes, 5, mask)
      b0 = fma(v128.load(q, 80), c, b0)
      if (sizeof<C>() > 1) b1 = fma(v128.load(q + next, 80), c, b1)
      if (sizeof<C>() > 2) b2 = fma(v128.load(q + 2 * next, 80), c, b2)
      c = plane<B>(v, codes, 6, mask)
      a0 = fma(v128.load(q, 96), c, a0)
      if (sizeof<C>() > 1) a1 = fma(v128.load(q + next, 96), c, a1)
      if (sizeof<C>() > 2) a2 = fma(v128.load(q + 2 * next, 96), c, a2)
      c = plane<B>(v, codes, 7, mask)
      b0 = fma(v128.load(q, 112), c, b0)
      if (sizeof<C>() > 1) b1 = fma(v128.load(q + next, 112), c, b1)
      if (sizeof<C>() > 2) b2 = fma(v128.load(q + 2 * next, 112), c, b2)
    }
    const s = v128.load32_splat(scales)
    x0 = fma(s, f32x4.add(a0, b0), x0)
    if (sizeof<C>() > 1) x1 = fma(s, f32x4.add(a1, b1), x1)
    if (sizeof<C>() > 2) x2 = fma(s, f32x4.add(a2, b2), x2)
  }
  v128.store(sums, x0)
  if (sizeof<C>() > 1) v128.store(sums, x1, 64)
  if (sizeof<C>() > 2) v128.store(sums, x2, 128)
}

/** As planeKeys. */
function keysOf<B, C>(
  mask: v128,
  scores: usize,
  line: usize,
  q: usize,
  next: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
  pieces: i32,
  together: i32,
  scales: usize,
  step: usize,
  sums: usize,
): void {
  for (let t = 0; t < tokens; t += FOUR) {
    const some = min(FOUR, tokens - t)
    for (let i = 0; i < some; i++, codes += stride, scales += 4) {
      const to = sums + (<usize>i << 4)
      dotsOf<B, C>(mask, to, q, next, codes, pieces, together, scales, step)
    }
    for (let h = 0; h < queriesOf<C>(); h++) {
      const from = sums + (<usize>h << 6)
      const r0 = v128.load(from)
      const r1 = v128.load(from, 16)
      const r2 = v128.load(from, 32)
      const r3 = v128.load(from, 48)
      const a = f32x4.add(
        v128.shuffle<f32>(r0, r1, 0, 4, 1, 5),
        v128.shuffle<f32>(r0, r1, 2, 6, 3, 7),
      )
      const b = f32x4.add(
        v128.shuffle<f32>(r2, r3, 0, 4, 1, 5),
        v128.shuffle<f32>(r2, r3, 2, 6, 3, 7),
      )
      const total = f32x4.add(v128.shuffle<i64>(a, b, 0, 2), v128.shuffle<i64>(a, b, 1, 3))
      v128.store(scores + <usize>h * line + (<usize>t << 2), total)
    }
  }
}

function keysOfBits<B>(
  mask: v128,
  count: i32,
  scores: usize,
  line: usize,
  q: usize,
  next: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
  pieces: i32,
  together: i32,
  scales: usize,
  step: usize,
  sums: usize,
): void {
  if (count == 1) keysOf<B, One>(mask, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else if (count == 2) keysOf<B, Two>(mask, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else keysOf<B, Three>(mask, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
}

/**
 * scores[h][t] = Σ over groups of scales[group][t] · Σ q[h] · codes of the group, for `count` queries (`next` bytes
 * apart, arranged) and `tokens` positions (`stride` bytes apart). A group has `together` pieces; its scales are `step`
 * bytes behind the last one's. Up to three scores behind the last are overwritten. `sums`: 192 bytes.
 */
export function planeKeys(
  bits: i32,
  count: i32,
  scores: usize,
  line: usize,
  q: usize,
  next: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
  pieces: i32,
  together: i32,
  scales: usize,
  step: usize,
  sums: usize,
): void {
  const mask = maskOf(bits)
  if (bits == 4) keysOfBits<Bits4>(mask, count, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else if (bits == 8) keysOfBits<Bits8>(mask, count, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else if (bits == 16) keysOfBits<Halves>(mask, count, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else if (bits == 2) keysOfBits<Bits2>(mask, count, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
  else keysOfBits<Bits3>(mask, count, scores, line, q, next, codes, stride, tokens, pieces, together, scales, step, sums)
}

/** Four planes of one piece over all positions: three times four sums stay in registers. */
// @ts-ignore: decorator
@inline
function mixHalf<B, C>(
  mask: v128,
  half: i32,
  out: usize,
  next: usize,
  weights: usize,
  line: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
): void {
  const k = half << 2
  let a0 = f32x4.splat(0)
  let b0 = a0
  let c0 = a0
  let d0 = a0
  let a1 = a0
  let b1 = a0
  let c1 = a0
  let d1 = a0
  let a2 = a0
  let b2 = a0
  let c2 = a0
  let d2 = a0
  for (const end = weights + (<usize>tokens << 2); weights < end; weights += 4, codes += stride) {
    const v = word<B>(codes, half)
    const w0 = v128.load32_splat(weights)
    const w1 = sizeof<C>() > 1 ? v128.load32_splat(weights + line) : w0
    const w2 = sizeof<C>() > 2 ? v128.load32_splat(weights + 2 * line) : w0
    let x = plane<B>(v, codes, k, mask)
    a0 = fma(w0, x, a0)
    if (sizeof<C>() > 1) a1 = fma(w1, x, a1)
    if (sizeof<C>() > 2) a2 = fma(w2, x, a2)
    x = plane<B>(v, codes, k + 1, mask)
    b0 = fma(w0, x, b0)
    if (sizeof<C>() > 1) b1 = fma(w1, x, b1)
    if (sizeof<C>() > 2) b2 = fma(w2, x, b2)
    x = plane<B>(v, codes, k + 2, mask)
    c0 = fma(w0, x, c0)
    if (sizeof<C>() > 1) c1 = fma(w1, x, c1)
    if (sizeof<C>() > 2) c2 = fma(w2, x, c2)
    x = plane<B>(v, codes, k + 3, mask)
    d0 = fma(w0, x, d0)
    if (sizeof<C>() > 1) d1 = fma(w1, x, d1)
    if (sizeof<C>() > 2) d2 = fma(w2, x, d2)
  }
  putPlanes<B>(half, out, a0, b0, c0, d0)
  if (sizeof<C>() > 1) putPlanes<B>(half, out + next, a1, b1, c1, d1)
  if (sizeof<C>() > 2) putPlanes<B>(half, out + 2 * next, a2, b2, c2, d2)
}

// @ts-ignore: decorator
@inline
function putPlanes<B>(half: i32, out: usize, a: v128, b: v128, c: v128, d: v128): void {
  if (sizeof<B>() == 16) {
    const factor = f32x4.splat(HALFWAY)
    const to = out + (<usize>half << 6)
    v128.store(to, f32x4.mul(a, factor))
    v128.store(to, f32x4.mul(b, factor), 16)
    v128.store(to, f32x4.mul(c, factor), 32)
    v128.store(to, f32x4.mul(d, factor), 48)
  } else storeColumns(out + (<usize>half << 4), 32, a, b, c, d)
}

function mixOf<B, C>(
  mask: v128,
  out: usize,
  next: usize,
  weights: usize,
  line: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
): void {
  mixHalf<B, C>(mask, 0, out, next, weights, line, codes, stride, tokens)
  mixHalf<B, C>(mask, 1, out, next, weights, line, codes, stride, tokens)
}

function mixOfBits<B>(
  mask: v128,
  count: i32,
  out: usize,
  next: usize,
  weights: usize,
  line: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
): void {
  if (count == 1) mixOf<B, One>(mask, out, next, weights, line, codes, stride, tokens)
  else if (count == 2) mixOf<B, Two>(mask, out, next, weights, line, codes, stride, tokens)
  else mixOf<B, Three>(mask, out, next, weights, line, codes, stride, tokens)
}

/**
 * out[h][channel] = Σ over positions of weights[h][t] · code, for the 32 channels of a piece; out is `next` bytes from
 * query to query, weights are `line`.
 */
export function planeMix(
  bits: i32,
  count: i32,
  out: usize,
  next: usize,
  weights: usize,
  line: usize,
  codes: usize,
  stride: usize,
  tokens: i32,
): void {
  const mask = maskOf(bits)
  if (bits == 4) mixOfBits<Bits4>(mask, count, out, next, weights, line, codes, stride, tokens)
  else if (bits == 8) mixOfBits<Bits8>(mask, count, out, next, weights, line, codes, stride, tokens)
  else if (bits == 16) mixOfBits<Halves>(mask, count, out, next, weights, line, codes, stride, tokens)
  else if (bits == 2) mixOfBits<Bits2>(mask, count, out, next, weights, line, codes, stride, tokens)
  else mixOfBits<Bits3>(mask, count, out, next, weights, line, codes, stride, tokens)
}

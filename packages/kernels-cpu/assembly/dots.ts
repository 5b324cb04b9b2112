/**
 * Codes × 8-bit activations. Within a block of 32 columns the sum of code · x is exact in integers:
 * the strict and the relaxed build, and both of the ways below, get the same.
 *
 *   narrow  bytes × bytes: i16x8.relaxed_dot_i8x16_i7x16 (pmaddubsw) sums pairs of k into i16 lanes;
 *           codes of up to 4 bits: 8 · 2 · 15 · 127 < 2^15, so one block fits before widening
 *   wide    codes extended to i16 × i16 activations: i32x4.dot_i16x8 (pmaddwd); up to 8 bits
 *
 * With factor f of the block and s, o of the group: out += s · Σ f · (Σ c·x) + o · Σ f·x.
 */

import { quarter } from './codes'
import { fma, storeSome } from './simd'
import {
  dataOf,
  depthOf,
  groupOf,
  groupsOf,
  INTEGER2,
  INTEGER4,
  kindOf,
  offsetsOf,
  rowsOf,
  scalesOf,
  strideOf,
} from './source'
import { take, thread } from './threads'

/**
 * out[t, n] (+)= x · Wᵀ, x quantized in panels of `high` rows. A task is `some` strips. `scratch`: for
 * each thread a strip with a byte for each code.
 */
export function dots(
  out: usize,
  stride: usize,
  bytes: usize,
  factors: usize,
  sums: usize,
  rows: i32,
  source: usize,
  add: i32,
  some: i32,
  high: i32,
  wide: i32,
  scratch: usize,
  room: usize,
): void {
  const depth = depthOf(source)
  const strips = (rowsOf(source) + 7) >> 3
  const tasks = (strips + some - 1) / some
  const panels = (rows + high - 1) / high
  const kind = kindOf(source)
  const bits = kind == INTEGER2 ? 2 : kind == INTEGER4 ? 4 : 8
  const panelBytes = <usize>(depth * high) << wide
  const panelFactors = <usize>((depth >> 5) * high) << 2
  const panelSums = <usize>(groupsOf(source) * high) << 2
  const spread = scratch + thread * room
  for (let task = take(); task < tasks; task = take()) {
    const last = min((task + 1) * some, strips)
    for (let strip = task * some; strip < last; strip++) {
      let codes = dataOf(source) + <usize>strip * strideOf(source)
      const direct = bits == 8 || high == 1
      if (!direct) {
        if (bits == 4) unpack(4, spread, codes, depth)
        else unpack(2, spread, codes, depth)
        codes = spread
      }
      for (let panel = 0; panel < panels; panel++) {
        const p = <usize>panel
        const x = bytes + p * panelBytes
        const f = factors + p * panelFactors
        const s = sums + p * panelSums
        const to = out + p * <usize>high * stride
        const left = min(rows - panel * high, high)
        if (high == 1) {
          if (wide) {
            if (bits == 4) wideRow(4, codes, x, f, s, source, strip, to, add)
            else if (bits == 2) wideRow(2, codes, x, f, s, source, strip, to, add)
            else wideRow(8, codes, x, f, s, source, strip, to, add)
          } else if (bits == 4) narrowRow(4, codes, x, f, s, source, strip, to, add)
          else narrowRow(2, codes, x, f, s, source, strip, to, add)
        } else if (wide) wideRows(codes, x, f, s, source, strip, to, stride, left, add)
        else narrowRows(codes, x, f, s, source, strip, to, stride, left, add)
      }
    }
  }
}

/** A byte for each code: quarters of rows 0–3 and rows 4–7 for each 4 k, as 8-bit codes have them. */
// @ts-ignore: decorator
@inline
function unpack(bits: i32, to: usize, codes: usize, depth: i32): void {
  for (let k = 0; k < depth; k += 4, to += 32) {
    v128.store(to, quarter(bits, codes, k, 0))
    v128.store(to, quarter(bits, codes, k, 1), 16)
  }
}

// @ts-ignore: decorator
@inline
function dot(codes: v128, x: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.relaxed_dot_i8x16_i7x16_s(x, codes)
  return codes
}

// @ts-ignore: decorator
@inline
function put(out: usize, left: i32, low: v128, high: v128, add: i32): void {
  // The slack after every block makes the loads harmless.
  if (add) {
    low = f32x4.add(v128.load(out), low)
    high = f32x4.add(v128.load(out, 16), high)
  }
  storeSome(out, low, left)
  if (left > 4) storeSome(out + 16, high, left - 4)
}

/** Two i16 sums of each of four rows → floats. */
// @ts-ignore: decorator
@inline
function floats(pairs: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extadd_pairwise_i16x8_s(pairs))
}

/** Two i32 sums of each of four rows → floats. */
// @ts-ignore: decorator
@inline
function joined(low: v128, high: v128): v128 {
  const even = v128.shuffle<i32>(low, high, 0, 2, 4, 6)
  const odd = v128.shuffle<i32>(low, high, 1, 3, 5, 7)
  return f32x4.convert_i32x4_s(i32x4.add(even, odd))
}

// @ts-ignore: decorator
@inline
function narrowRow(
  bits: i32,
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  strip: i32,
  out: usize,
  add: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  let scales = scalesOf(source) + (<usize>(strip * groups) << 5)
  let shift = offsets + (<usize>(strip * groups) << 5)
  let low = f32x4.splat(0)
  let high = low
  let k = 0
  for (let g = 0; g < groups; g++, scales += 32, sums += 4) {
    let a = f32x4.splat(0)
    let b = a
    for (const end = k + group; k < end; k += 32, factors += 4) {
      let v = v128.load32_splat(x + <usize>k)
      let p = dot(quarter(bits, codes, k, 0), v)
      let q = dot(quarter(bits, codes, k, 1), v)
      v = v128.load32_splat(x + <usize>k, 4)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 4, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 4, 1), v))
      v = v128.load32_splat(x + <usize>k, 8)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 8, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 8, 1), v))
      v = v128.load32_splat(x + <usize>k, 12)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 12, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 12, 1), v))
      v = v128.load32_splat(x + <usize>k, 16)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 16, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 16, 1), v))
      v = v128.load32_splat(x + <usize>k, 20)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 20, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 20, 1), v))
      v = v128.load32_splat(x + <usize>k, 24)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 24, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 24, 1), v))
      v = v128.load32_splat(x + <usize>k, 28)
      p = i16x8.add(p, dot(quarter(bits, codes, k + 28, 0), v))
      q = i16x8.add(q, dot(quarter(bits, codes, k + 28, 1), v))
      const f = v128.load32_splat(factors)
      a = fma(floats(p), f, a)
      b = fma(floats(q), f, b)
    }
    low = fma(v128.load(scales), a, low)
    high = fma(v128.load(scales, 16), b, high)
    if (offsets) {
      const s = v128.load32_splat(sums)
      low = fma(v128.load(shift), s, low)
      high = fma(v128.load(shift, 16), s, high)
      shift += 32
    }
  }
  put(out + (<usize>strip << 5), rowsOf(source) - (strip << 3), low, high, add)
}

// @ts-ignore: decorator
@inline
function wideRow(
  bits: i32,
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  strip: i32,
  out: usize,
  add: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  let scales = scalesOf(source) + (<usize>(strip * groups) << 5)
  let shift = offsets + (<usize>(strip * groups) << 5)
  let low = f32x4.splat(0)
  let high = low
  let k = 0
  for (let g = 0; g < groups; g++, scales += 32, sums += 4) {
    let a = f32x4.splat(0)
    let b = a
    for (const end = k + group; k < end; factors += 4) {
      let p0 = i32x4.splat(0)
      let p1 = p0
      let q0 = p0
      let q1 = p0
      for (const stop = k + 32; k < stop; k += 4) {
        const v = v128.load64_splat(x + (<usize>k << 1))
        const c = quarter(bits, codes, k, 0)
        p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
        p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
        const d = quarter(bits, codes, k, 1)
        q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(d), v))
        q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(d), v))
      }
      const f = v128.load32_splat(factors)
      a = fma(joined(p0, p1), f, a)
      b = fma(joined(q0, q1), f, b)
    }
    low = fma(v128.load(scales), a, low)
    high = fma(v128.load(scales, 16), b, high)
    if (offsets) {
      const s = v128.load32_splat(sums)
      low = fma(v128.load(shift), s, low)
      high = fma(v128.load(shift, 16), s, high)
      shift += 32
    }
  }
  put(out + (<usize>strip << 5), rowsOf(source) - (strip << 3), low, high, add)
}

/** Four rows of x, of which `left` are wanted. */
function narrowRows(
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  strip: i32,
  out: usize,
  stride: usize,
  left: i32,
  add: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  let scales = scalesOf(source) + (<usize>(strip * groups) << 5)
  let shift = offsets + (<usize>(strip * groups) << 5)
  let s00 = f32x4.splat(0)
  let s01 = s00
  let s10 = s00
  let s11 = s00
  let s20 = s00
  let s21 = s00
  let s30 = s00
  let s31 = s00
  for (let g = 0; g < groups; g++, scales += 32, sums += 16) {
    let a00 = f32x4.splat(0)
    let a01 = a00
    let a10 = a00
    let a11 = a00
    let a20 = a00
    let a21 = a00
    let a30 = a00
    let a31 = a00
    for (let block = group >> 5; block > 0; block--, factors += 16) {
      let p00 = i16x8.splat(0)
      let p01 = p00
      let p10 = p00
      let p11 = p00
      let p20 = p00
      let p21 = p00
      let p30 = p00
      let p31 = p00
      for (let i = 0; i < 8; i++, codes += 32, x += 16) {
        const c = v128.load(codes)
        const d = v128.load(codes, 16)
        let v = v128.load32_splat(x)
        p00 = i16x8.add(p00, dot(c, v))
        p01 = i16x8.add(p01, dot(d, v))
        v = v128.load32_splat(x, 4)
        p10 = i16x8.add(p10, dot(c, v))
        p11 = i16x8.add(p11, dot(d, v))
        v = v128.load32_splat(x, 8)
        p20 = i16x8.add(p20, dot(c, v))
        p21 = i16x8.add(p21, dot(d, v))
        v = v128.load32_splat(x, 12)
        p30 = i16x8.add(p30, dot(c, v))
        p31 = i16x8.add(p31, dot(d, v))
      }
      let f = v128.load32_splat(factors)
      a00 = fma(floats(p00), f, a00)
      a01 = fma(floats(p01), f, a01)
      f = v128.load32_splat(factors, 4)
      a10 = fma(floats(p10), f, a10)
      a11 = fma(floats(p11), f, a11)
      f = v128.load32_splat(factors, 8)
      a20 = fma(floats(p20), f, a20)
      a21 = fma(floats(p21), f, a21)
      f = v128.load32_splat(factors, 12)
      a30 = fma(floats(p30), f, a30)
      a31 = fma(floats(p31), f, a31)
    }
    const low = v128.load(scales)
    const high = v128.load(scales, 16)
    s00 = fma(low, a00, s00)
    s01 = fma(high, a01, s01)
    s10 = fma(low, a10, s10)
    s11 = fma(high, a11, s11)
    s20 = fma(low, a20, s20)
    s21 = fma(high, a21, s21)
    s30 = fma(low, a30, s30)
    s31 = fma(high, a31, s31)
    if (offsets) {
      const o0 = v128.load(shift)
      const o1 = v128.load(shift, 16)
      shift += 32
      let s = v128.load32_splat(sums)
      s00 = fma(o0, s, s00)
      s01 = fma(o1, s, s01)
      s = v128.load32_splat(sums, 4)
      s10 = fma(o0, s, s10)
      s11 = fma(o1, s, s11)
      s = v128.load32_splat(sums, 8)
      s20 = fma(o0, s, s20)
      s21 = fma(o1, s, s21)
      s = v128.load32_splat(sums, 12)
      s30 = fma(o0, s, s30)
      s31 = fma(o1, s, s31)
    }
  }
  const wanted = rowsOf(source) - (strip << 3)
  let to = out + (<usize>strip << 5)
  put(to, wanted, s00, s01, add)
  if (left > 1) put((to += stride), wanted, s10, s11, add)
  if (left > 2) put((to += stride), wanted, s20, s21, add)
  if (left > 3) put(to + stride, wanted, s30, s31, add)
}

/** The same in two passes of two rows, since i32 sums take twice the registers. */
function wideRows(
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  strip: i32,
  out: usize,
  stride: usize,
  left: i32,
  add: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  const wanted = rowsOf(source) - (strip << 3)
  for (let pair = 0; pair < left; pair += 2, x += 16, factors += 8, sums += 8) {
    let scales = scalesOf(source) + (<usize>(strip * groups) << 5)
    let shift = offsets + (<usize>(strip * groups) << 5)
    let c = codes
    let v = x
    let f = factors
    let s = sums
    let s00 = f32x4.splat(0)
    let s01 = s00
    let s10 = s00
    let s11 = s00
    for (let g = 0; g < groups; g++, scales += 32, s += 16) {
      let a00 = f32x4.splat(0)
      let a01 = a00
      let a10 = a00
      let a11 = a00
      for (let block = group >> 5; block > 0; block--, f += 16) {
        let p0 = i32x4.splat(0)
        let p1 = p0
        let p2 = p0
        let p3 = p0
        let q0 = p0
        let q1 = p0
        let q2 = p0
        let q3 = p0
        for (let i = 0; i < 8; i++, c += 32, v += 32) {
          const first = v128.load64_splat(v)
          const second = v128.load64_splat(v, 8)
          const low = v128.load(c)
          const high = v128.load(c, 16)
          let w = i16x8.extend_low_i8x16_u(low)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(w, first))
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(w, second))
          w = i16x8.extend_high_i8x16_u(low)
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(w, first))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(w, second))
          w = i16x8.extend_low_i8x16_u(high)
          p2 = i32x4.add(p2, i32x4.dot_i16x8_s(w, first))
          q2 = i32x4.add(q2, i32x4.dot_i16x8_s(w, second))
          w = i16x8.extend_high_i8x16_u(high)
          p3 = i32x4.add(p3, i32x4.dot_i16x8_s(w, first))
          q3 = i32x4.add(q3, i32x4.dot_i16x8_s(w, second))
        }
        let factor = v128.load32_splat(f)
        a00 = fma(joined(p0, p1), factor, a00)
        a01 = fma(joined(p2, p3), factor, a01)
        factor = v128.load32_splat(f, 4)
        a10 = fma(joined(q0, q1), factor, a10)
        a11 = fma(joined(q2, q3), factor, a11)
      }
      const low = v128.load(scales)
      const high = v128.load(scales, 16)
      s00 = fma(low, a00, s00)
      s01 = fma(high, a01, s01)
      s10 = fma(low, a10, s10)
      s11 = fma(high, a11, s11)
      if (offsets) {
        const o0 = v128.load(shift)
        const o1 = v128.load(shift, 16)
        shift += 32
        let sum = v128.load32_splat(s)
        s00 = fma(o0, sum, s00)
        s01 = fma(o1, sum, s01)
        sum = v128.load32_splat(s, 4)
        s10 = fma(o0, sum, s10)
        s11 = fma(o1, sum, s11)
      }
    }
    const to = out + <usize>pair * stride + (<usize>strip << 5)
    put(to, wanted, s00, s01, add)
    if (pair + 1 < left) put(to + stride, wanted, s10, s11, add)
  }
}

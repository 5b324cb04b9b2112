/** 16-bit × 16-bit (dots.ts). */

import { quarter } from './codes'
import { put } from './put'
import { fma } from './simd'
import { centerOf, groupOf, groupsOf, offsetsOf, rowsOf, scalesOf } from './source'

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
export function wideRow(
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
  const center = centerOf(source)
  let scales = scalesOf(source) + (<usize>(strip * groups) << 5)
  let shift = offsets + (<usize>(strip * groups) << 5)
  let low = f32x4.splat(0)
  let high = low
  for (let g = 0; g < groups; g++, scales += 32, sums += 4) {
    let a = f32x4.splat(center * load<f32>(sums))
    let b = a
    for (let left = group; left > 0; left -= 32, factors += 4) {
      let p0 = i32x4.splat(0)
      let p1 = p0
      let q0 = p0
      let q1 = p0
      if (bits == 8) {
        for (let i = 0; i < 2; i++, x += 32, codes += 128) {
          let v = v128.load64_splat(x)
          let c = v128.load(codes)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          c = v128.load(codes, 16)
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          v = v128.load64_splat(x, 8)
          c = v128.load(codes, 32)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          c = v128.load(codes, 48)
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          v = v128.load64_splat(x, 16)
          c = v128.load(codes, 64)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          c = v128.load(codes, 80)
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          v = v128.load64_splat(x, 24)
          c = v128.load(codes, 96)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          c = v128.load(codes, 112)
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
        }
      } else {
        for (let k = 0; k < 32; k += 4, x += 8) {
          const v = v128.load64_splat(x)
          const c = quarter(bits, codes, k, 0)
          p0 = i32x4.add(p0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(c), v))
          p1 = i32x4.add(p1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(c), v))
          const d = quarter(bits, codes, k, 1)
          q0 = i32x4.add(q0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(d), v))
          q1 = i32x4.add(q1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(d), v))
        }
        codes += <usize>bits << 5
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
  put(out, strip << 3, rowsOf(source), low, high, add)
}

/**
 * Four rows of x, of which `left` are wanted, in two passes of two, since i32 sums take twice the
 * registers.
 */
export function wideRows(
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
  const center = centerOf(source)
  const rows = rowsOf(source)
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
      let a00 = f32x4.splat(center * load<f32>(s))
      let a01 = a00
      let a10 = f32x4.splat(center * load<f32>(s, 4))
      let a11 = a10
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
    const to = out + <usize>pair * stride
    put(to, strip << 3, rows, s00, s01, add)
    if (pair + 1 < left) put(to + stride, strip << 3, rows, s10, s11, add)
  }
}

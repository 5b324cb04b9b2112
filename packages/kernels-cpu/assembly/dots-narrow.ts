/**
 * Bytes × bytes (dots.ts). The strict build never calls it. `Sum` i32 sums four k at once, in one
 * instruction where the machine has it; i16 sums pairs of k, which are widened after each block.
 */

import { put } from './put'
import { fma } from './simd'
import { centerOf, groupOf, groupsOf, offsetsOf, rowsOf, scalesOf } from './source'

/**
 * Tells how the engine makes the long product: codes have 7 bits, and what 255 gives is left to it.
 * Four products of 255 and 127 are 65534 where pairs of them are first saturated to i16, as on x86
 * without VNNI: there it takes three instructions, and short sums are faster. Anything else (129540,
 * or −508 where 255 is −1) comes from one instruction, or from a machine where both take several.
 */
export function longProbe(code: i32, x: i32): i32 {
  const sums = dot<i32>(i32x4.splat(0), i8x16.splat(<i8>code), i8x16.splat(<i8>x))
  return i32x4.extract_lane(sums, 0)
}

// @ts-ignore: decorator
@inline
function dot<Sum>(sums: v128, codes: v128, x: v128): v128 {
  if (!ASC_FEATURE_RELAXED_SIMD) return codes
  if (sizeof<Sum>() == 4) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, codes, sums)
  return i16x8.add(sums, i16x8.relaxed_dot_i8x16_i7x16_s(x, codes))
}

/** The sums of each of four rows → floats. */
// @ts-ignore: decorator
@inline
function floats<Sum>(sums: v128): v128 {
  return f32x4.convert_i32x4_s(sizeof<Sum>() == 4 ? sums : i32x4.extadd_pairwise_i16x8_s(sums))
}

/** `Bits`: a type of as many bytes as a code has bits. */
export function narrowRow<Bits, Sum>(
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
  const mask = i8x16.splat(sizeof<Bits>() == 4 ? 15 : 3)
  let low = f32x4.splat(0)
  let high = low
  for (let g = 0; g < groups; g++, scales += 32, sums += 4) {
    let a = f32x4.splat(center * load<f32>(sums))
    let b = a
    for (let left = group; left > 0; left -= 32, factors += 4) {
      let p = i16x8.splat(0)
      let q = p
      // Two rounds of 64 bytes: addresses are constants, and unrolled further V8 spills.
      if (sizeof<Bits>() == 4) {
        for (let i = 0; i < 2; i++, codes += 64, x += 16) {
          let v = v128.load32_splat(x)
          let c = v128.load(codes)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 4), mask), v)
          v = v128.load32_splat(x, 4)
          c = v128.load(codes, 16)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 4), mask), v)
          v = v128.load32_splat(x, 8)
          c = v128.load(codes, 32)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 4), mask), v)
          v = v128.load32_splat(x, 12)
          c = v128.load(codes, 48)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 4), mask), v)
        }
      } else {
        for (let i = 0; i < 2; i++, codes += 32, x += 16) {
          let c = v128.load(codes)
          let v = v128.load32_splat(x)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 2), mask), v)
          v = v128.load32_splat(x, 4)
          p = dot<Sum>(p, v128.and(i16x8.shr_u(c, 4), mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 6), mask), v)
          c = v128.load(codes, 16)
          v = v128.load32_splat(x, 8)
          p = dot<Sum>(p, v128.and(c, mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 2), mask), v)
          v = v128.load32_splat(x, 12)
          p = dot<Sum>(p, v128.and(i16x8.shr_u(c, 4), mask), v)
          q = dot<Sum>(q, v128.and(i16x8.shr_u(c, 6), mask), v)
        }
      }
      const f = v128.load32_splat(factors)
      a = fma(floats<Sum>(p), f, a)
      b = fma(floats<Sum>(q), f, b)
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

/** Four rows of x, of which `left` are wanted. */
export function narrowRows<Sum>(
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
    let a00 = f32x4.splat(center * load<f32>(sums))
    let a01 = a00
    let a10 = f32x4.splat(center * load<f32>(sums, 4))
    let a11 = a10
    let a20 = f32x4.splat(center * load<f32>(sums, 8))
    let a21 = a20
    let a30 = f32x4.splat(center * load<f32>(sums, 12))
    let a31 = a30
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
        p00 = dot<Sum>(p00, c, v)
        p01 = dot<Sum>(p01, d, v)
        v = v128.load32_splat(x, 4)
        p10 = dot<Sum>(p10, c, v)
        p11 = dot<Sum>(p11, d, v)
        v = v128.load32_splat(x, 8)
        p20 = dot<Sum>(p20, c, v)
        p21 = dot<Sum>(p21, d, v)
        v = v128.load32_splat(x, 12)
        p30 = dot<Sum>(p30, c, v)
        p31 = dot<Sum>(p31, d, v)
      }
      let f = v128.load32_splat(factors)
      a00 = fma(floats<Sum>(p00), f, a00)
      a01 = fma(floats<Sum>(p01), f, a01)
      f = v128.load32_splat(factors, 4)
      a10 = fma(floats<Sum>(p10), f, a10)
      a11 = fma(floats<Sum>(p11), f, a11)
      f = v128.load32_splat(factors, 8)
      a20 = fma(floats<Sum>(p20), f, a20)
      a21 = fma(floats<Sum>(p21), f, a21)
      f = v128.load32_splat(factors, 12)
      a30 = fma(floats<Sum>(p30), f, a30)
      a31 = fma(floats<Sum>(p31), f, a31)
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
  const height = rowsOf(source)
  put(out, strip << 3, height, s00, s01, add)
  if (left > 1) put(out + stride, strip << 3, height, s10, s11, add)
  if (left > 2) put(out + stride * 2, strip << 3, height, s20, s21, add)
  if (left > 3) put(out + stride * 3, strip << 3, height, s30, s31, add)
}

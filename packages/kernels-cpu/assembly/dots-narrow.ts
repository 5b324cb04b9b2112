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

/**
 * Four rows of x and two strips of codes at once, for engines with vectors of 256 bits (threads.ts, `wide`): two
 * sums that lie side by side become one, and eight chains of them hide what one product waits for. The same sums
 * in the same order as narrowRows. The results go to `spare`, [4 rows][16] f32.
 */
export function narrowPair<Sum>(
  codes: usize,
  next: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  strip: i32,
  spare: usize,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  const center = centerOf(source)
  const across = <usize>groups << 5
  let scales = scalesOf(source) + <usize>strip * across
  let shift = offsets + <usize>strip * across
  const zero = f32x4.splat(0)
  let s00 = zero
  let s01 = zero
  let s02 = zero
  let s03 = zero
  let s10 = zero
  let s11 = zero
  let s12 = zero
  let s13 = zero
  let s20 = zero
  let s21 = zero
  let s22 = zero
  let s23 = zero
  let s30 = zero
  let s31 = zero
  let s32 = zero
  let s33 = zero
  for (let g = 0; g < groups; g++, scales += 32, sums += 16) {
    let a00 = f32x4.splat(center * load<f32>(sums))
    let a01 = a00
    let a02 = a00
    let a03 = a00
    let a10 = f32x4.splat(center * load<f32>(sums, 4))
    let a11 = a10
    let a12 = a10
    let a13 = a10
    let a20 = f32x4.splat(center * load<f32>(sums, 8))
    let a21 = a20
    let a22 = a20
    let a23 = a20
    let a30 = f32x4.splat(center * load<f32>(sums, 12))
    let a31 = a30
    let a32 = a30
    let a33 = a30
    for (let block = group >> 5; block > 0; block--, factors += 16) {
      let p00 = i16x8.splat(0)
      let p01 = i16x8.splat(0)
      let p02 = i16x8.splat(0)
      let p03 = i16x8.splat(0)
      let p10 = i16x8.splat(0)
      let p11 = i16x8.splat(0)
      let p12 = i16x8.splat(0)
      let p13 = i16x8.splat(0)
      let p20 = i16x8.splat(0)
      let p21 = i16x8.splat(0)
      let p22 = i16x8.splat(0)
      let p23 = i16x8.splat(0)
      let p30 = i16x8.splat(0)
      let p31 = i16x8.splat(0)
      let p32 = i16x8.splat(0)
      let p33 = i16x8.splat(0)
      for (let i = 0; i < 8; i++, codes += 32, next += 32, x += 16) {
        const c0 = v128.load(codes)
        const c1 = v128.load(codes, 16)
        const c2 = v128.load(next)
        const c3 = v128.load(next, 16)
        let v = v128.load32_splat(x)
        p00 = dot<Sum>(p00, c0, v)
        p01 = dot<Sum>(p01, c1, v)
        p02 = dot<Sum>(p02, c2, v)
        p03 = dot<Sum>(p03, c3, v)
        v = v128.load32_splat(x, 4)
        p10 = dot<Sum>(p10, c0, v)
        p11 = dot<Sum>(p11, c1, v)
        p12 = dot<Sum>(p12, c2, v)
        p13 = dot<Sum>(p13, c3, v)
        v = v128.load32_splat(x, 8)
        p20 = dot<Sum>(p20, c0, v)
        p21 = dot<Sum>(p21, c1, v)
        p22 = dot<Sum>(p22, c2, v)
        p23 = dot<Sum>(p23, c3, v)
        v = v128.load32_splat(x, 12)
        p30 = dot<Sum>(p30, c0, v)
        p31 = dot<Sum>(p31, c1, v)
        p32 = dot<Sum>(p32, c2, v)
        p33 = dot<Sum>(p33, c3, v)
      }
      let f = v128.load32_splat(factors)
      a00 = fma(floats<Sum>(p00), f, a00)
      a01 = fma(floats<Sum>(p01), f, a01)
      a02 = fma(floats<Sum>(p02), f, a02)
      a03 = fma(floats<Sum>(p03), f, a03)
      f = v128.load32_splat(factors, 4)
      a10 = fma(floats<Sum>(p10), f, a10)
      a11 = fma(floats<Sum>(p11), f, a11)
      a12 = fma(floats<Sum>(p12), f, a12)
      a13 = fma(floats<Sum>(p13), f, a13)
      f = v128.load32_splat(factors, 8)
      a20 = fma(floats<Sum>(p20), f, a20)
      a21 = fma(floats<Sum>(p21), f, a21)
      a22 = fma(floats<Sum>(p22), f, a22)
      a23 = fma(floats<Sum>(p23), f, a23)
      f = v128.load32_splat(factors, 12)
      a30 = fma(floats<Sum>(p30), f, a30)
      a31 = fma(floats<Sum>(p31), f, a31)
      a32 = fma(floats<Sum>(p32), f, a32)
      a33 = fma(floats<Sum>(p33), f, a33)
    }
    const w0 = v128.load(scales)
    const w1 = v128.load(scales, 16)
    const w2 = v128.load(scales + across)
    const w3 = v128.load(scales + across, 16)
    s00 = fma(w0, a00, s00)
    s01 = fma(w1, a01, s01)
    s02 = fma(w2, a02, s02)
    s03 = fma(w3, a03, s03)
    s10 = fma(w0, a10, s10)
    s11 = fma(w1, a11, s11)
    s12 = fma(w2, a12, s12)
    s13 = fma(w3, a13, s13)
    s20 = fma(w0, a20, s20)
    s21 = fma(w1, a21, s21)
    s22 = fma(w2, a22, s22)
    s23 = fma(w3, a23, s23)
    s30 = fma(w0, a30, s30)
    s31 = fma(w1, a31, s31)
    s32 = fma(w2, a32, s32)
    s33 = fma(w3, a33, s33)
    if (offsets) {
      const o0 = v128.load(shift)
      const o1 = v128.load(shift, 16)
      const o2 = v128.load(shift + across)
      const o3 = v128.load(shift + across, 16)
      shift += 32
      let s = v128.load32_splat(sums)
      s00 = fma(o0, s, s00)
      s01 = fma(o1, s, s01)
      s02 = fma(o2, s, s02)
      s03 = fma(o3, s, s03)
      s = v128.load32_splat(sums, 4)
      s10 = fma(o0, s, s10)
      s11 = fma(o1, s, s11)
      s12 = fma(o2, s, s12)
      s13 = fma(o3, s, s13)
      s = v128.load32_splat(sums, 8)
      s20 = fma(o0, s, s20)
      s21 = fma(o1, s, s21)
      s22 = fma(o2, s, s22)
      s23 = fma(o3, s, s23)
      s = v128.load32_splat(sums, 12)
      s30 = fma(o0, s, s30)
      s31 = fma(o1, s, s31)
      s32 = fma(o2, s, s32)
      s33 = fma(o3, s, s33)
    }
  }
  v128.store(spare, s00)
  v128.store(spare, s01, 16)
  v128.store(spare, s02, 32)
  v128.store(spare, s03, 48)
  v128.store(spare, s10, 64)
  v128.store(spare, s11, 80)
  v128.store(spare, s12, 96)
  v128.store(spare, s13, 112)
  v128.store(spare, s20, 128)
  v128.store(spare, s21, 144)
  v128.store(spare, s22, 160)
  v128.store(spare, s23, 176)
  v128.store(spare, s30, 192)
  v128.store(spare, s31, 208)
  v128.store(spare, s32, 224)
  v128.store(spare, s33, 240)
}

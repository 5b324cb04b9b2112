/**
 * Codes of tables of up to 16 values × activations in bytes (activations.ts): what dots.ts does for integers. A table
 * is rounded to 14 bits, value ≈ low + step · (128·h + l) with h and l of 7 bits, so that a code becomes two bytes
 * by two swizzles, and both meet the activations in i32x4.relaxed_dot_i8x16_i7x16_add. Pairs of products stay
 * below 2^15, so that it does not matter whether the engine saturates them. The strict build never calls it.
 *
 * A table in integers takes as many bytes as the same one in floats (64) and lies `offset` bytes from it:
 *
 *   h of 16 entries, l of 16 entries, step f32, low f32
 *
 * With factor f of a block of 32 columns, s and o of the group, m of the matrix and x' an outlier:
 *
 *   out += s · (step · (Σ f · (128·Σ h·x + Σ l·x) + Σ (128·h + l)·x') + (low + m) · Σ x) + o · Σ x
 */

import { quarter } from './codes'
import { columnBytes, outlierBytes } from './outliers'
import { put } from './put'
import { fma } from './simd'
import {
  centerOf,
  dataOf,
  depthOf,
  groupOf,
  groupsOf,
  kindOf,
  offsetsOf,
  rowsOf,
  scalesOf,
  strideOf,
  TABLE2,
  tableAt,
} from './source'
import { take, thread } from './threads'

const STEP: usize = 32
const LOW: usize = 36

/**
 * out[t, n] (+)= x · Wᵀ, x in panels of `high` rows, 1 or 4. A task is `some` strips. `scratch`: for each thread
 * two bytes for each code of a strip.
 */
export function tableDots(
  out: usize,
  stride: usize,
  numbers: usize,
  factors: usize,
  sums: usize,
  outliers: usize,
  rows: i32,
  source: usize,
  offset: usize,
  add: i32,
  some: i32,
  high: i32,
  scratch: usize,
  room: usize,
): void {
  const depth = depthOf(source)
  const strips = (rowsOf(source) + 7) >> 3
  const tasks = (strips + some - 1) / some
  const panels = (rows + high - 1) / high
  const two = kindOf(source) == TABLE2
  const listBytes = outlierBytes(depth)
  const spread = scratch + thread * room
  for (let task = take(); task < tasks; task = take()) {
    const last = min((task + 1) * some, strips)
    for (let strip = task * some; strip < last; strip++) {
      const codes = dataOf(source) + <usize>strip * strideOf(source)
      if (high > 1) {
        if (two) unpack(2, spread, codes, source, offset, strip)
        else unpack(4, spread, codes, source, offset, strip)
      }
      for (let panel = 0; panel < panels; panel++) {
        const p = <usize>panel
        const x = numbers + p * <usize>(depth * high)
        const f = factors + (p * <usize>((depth >> 5) * high) << 2)
        const s = sums + (p * <usize>(groupsOf(source) * high) << 2)
        const to = out + p * <usize>high * stride
        const list = outliers + p * <usize>high * listBytes
        const left = min(rows - panel * high, high)
        if (high > 1) fourRows(spread, x, f, s, source, offset, strip, to, stride, left, add)
        else if (two) oneRow(2, codes, x, f, s, source, offset, strip, to, add)
        else oneRow(4, codes, x, f, s, source, offset, strip, to, add)
        for (let r: usize = 0; r < <usize>left; r++) {
          if (two) addOutliers(2, codes, list + r * listBytes, source, offset, strip, to + r * stride)
          else addOutliers(4, codes, list + r * listBytes, source, offset, strip, to + r * stride)
        }
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function dot(sums: v128, codes: v128, x: v128): v128 {
  if (!ASC_FEATURE_RELAXED_SIMD) return codes
  return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, codes, sums)
}

/** Of indices below 16. */
// @ts-ignore: decorator
@inline
function swizzle(v: v128, indices: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(v, indices)
  return i8x16.swizzle(v, indices)
}

/** One row of x: high and low bytes are summed side by side. */
// @ts-ignore: decorator
@inline
function oneRow(
  bits: i32,
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  offset: usize,
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
    const table = tableAt(source, strip << 3, g) + offset
    const t = v128.load(table)
    const u = v128.load(table, 16)
    let a = f32x4.splat(0)
    let b = a
    for (let left = group; left > 0; left -= 32, factors += 4) {
      let p = i32x4.splat(0)
      let q = p
      let r = p
      let s = p
      for (let k = 0; k < 32; k += 8, x += 8) {
        let c = quarter(bits, codes, k, 0)
        let d = quarter(bits, codes, k, 1)
        let v = v128.load32_splat(x)
        p = dot(p, swizzle(t, c), v)
        r = dot(r, swizzle(u, c), v)
        q = dot(q, swizzle(t, d), v)
        s = dot(s, swizzle(u, d), v)
        c = quarter(bits, codes, k + 4, 0)
        d = quarter(bits, codes, k + 4, 1)
        v = v128.load32_splat(x, 4)
        p = dot(p, swizzle(t, c), v)
        r = dot(r, swizzle(u, c), v)
        q = dot(q, swizzle(t, d), v)
        s = dot(s, swizzle(u, d), v)
      }
      codes += bits << 5
      const f = v128.load32_splat(factors)
      a = fma(f32x4.convert_i32x4_s(i32x4.add(i32x4.shl(p, 7), r)), f, a)
      b = fma(f32x4.convert_i32x4_s(i32x4.add(i32x4.shl(q, 7), s)), f, b)
    }
    const sum = load<f32>(sums)
    const step = v128.load32_splat(table + STEP)
    const rest = f32x4.splat((load<f32>(table + LOW) + center) * sum)
    low = fma(v128.load(scales), fma(step, a, rest), low)
    high = fma(v128.load(scales, 16), fma(step, b, rest), high)
    if (offsets) {
      low = fma(v128.load(shift), f32x4.splat(sum), low)
      high = fma(v128.load(shift, 16), f32x4.splat(sum), high)
      shift += 32
    }
  }
  put(out, strip << 3, rowsOf(source), low, high, add)
}

/** Both bytes of a strip's codes: for each 32 columns the high bytes, rows 0–3 and 4–7 by turns, then the low ones. */
// @ts-ignore: decorator
@inline
function unpack(
  bits: i32,
  to: usize,
  codes: usize,
  source: usize,
  offset: usize,
  strip: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  for (let g = 0; g < groups; g++) {
    const table = tableAt(source, strip << 3, g) + offset
    const t = v128.load(table)
    const u = v128.load(table, 16)
    for (let left = group; left > 0; left -= 32, to += 256, codes += bits << 5) {
      for (let k = 0; k < 32; k += 4, to += 32) {
        const c = quarter(bits, codes, k, 0)
        const d = quarter(bits, codes, k, 1)
        v128.store(to, swizzle(t, c))
        v128.store(to, swizzle(t, d), 16)
        v128.store(to, swizzle(u, c), 256)
        v128.store(to, swizzle(u, d), 272)
      }
    }
  }
}

/** Four rows of x, of which `left` are wanted: high bytes first, then 128 times their sums and the low ones. */
function fourRows(
  codes: usize,
  x: usize,
  factors: usize,
  sums: usize,
  source: usize,
  offset: usize,
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
    const table = tableAt(source, strip << 3, g) + offset
    let a00 = f32x4.splat(0)
    let a01 = a00
    let a10 = a00
    let a11 = a00
    let a20 = a00
    let a21 = a00
    let a30 = a00
    let a31 = a00
    for (let block = group >> 5; block > 0; block--, factors += 16, x += 128) {
      let p00 = i32x4.splat(0)
      let p01 = p00
      let p10 = p00
      let p11 = p00
      let p20 = p00
      let p21 = p00
      let p30 = p00
      let p31 = p00
      for (let part = 0; part < 2; part++) {
        p00 = i32x4.shl(p00, 7)
        p01 = i32x4.shl(p01, 7)
        p10 = i32x4.shl(p10, 7)
        p11 = i32x4.shl(p11, 7)
        p20 = i32x4.shl(p20, 7)
        p21 = i32x4.shl(p21, 7)
        p30 = i32x4.shl(p30, 7)
        p31 = i32x4.shl(p31, 7)
        for (let q = x, end = x + 128; q < end; q += 16, codes += 32) {
          const c = v128.load(codes)
          const d = v128.load(codes, 16)
          let v = v128.load32_splat(q)
          p00 = dot(p00, c, v)
          p01 = dot(p01, d, v)
          v = v128.load32_splat(q, 4)
          p10 = dot(p10, c, v)
          p11 = dot(p11, d, v)
          v = v128.load32_splat(q, 8)
          p20 = dot(p20, c, v)
          p21 = dot(p21, d, v)
          v = v128.load32_splat(q, 12)
          p30 = dot(p30, c, v)
          p31 = dot(p31, d, v)
        }
      }
      let f = v128.load32_splat(factors)
      a00 = fma(f32x4.convert_i32x4_s(p00), f, a00)
      a01 = fma(f32x4.convert_i32x4_s(p01), f, a01)
      f = v128.load32_splat(factors, 4)
      a10 = fma(f32x4.convert_i32x4_s(p10), f, a10)
      a11 = fma(f32x4.convert_i32x4_s(p11), f, a11)
      f = v128.load32_splat(factors, 8)
      a20 = fma(f32x4.convert_i32x4_s(p20), f, a20)
      a21 = fma(f32x4.convert_i32x4_s(p21), f, a21)
      f = v128.load32_splat(factors, 12)
      a30 = fma(f32x4.convert_i32x4_s(p30), f, a30)
      a31 = fma(f32x4.convert_i32x4_s(p31), f, a31)
    }
    const step = v128.load32_splat(table + STEP)
    const base = load<f32>(table + LOW) + center
    const low = v128.load(scales)
    const high = v128.load(scales, 16)
    let rest = f32x4.splat(base * load<f32>(sums))
    s00 = fma(low, fma(step, a00, rest), s00)
    s01 = fma(high, fma(step, a01, rest), s01)
    rest = f32x4.splat(base * load<f32>(sums, 4))
    s10 = fma(low, fma(step, a10, rest), s10)
    s11 = fma(high, fma(step, a11, rest), s11)
    rest = f32x4.splat(base * load<f32>(sums, 8))
    s20 = fma(low, fma(step, a20, rest), s20)
    s21 = fma(high, fma(step, a21, rest), s21)
    rest = f32x4.splat(base * load<f32>(sums, 12))
    s30 = fma(low, fma(step, a30, rest), s30)
    s31 = fma(high, fma(step, a31, rest), s31)
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

/** Adds a row's outliers to the sums of a strip: `sums` have them already, so low and offsets are done. */
// @ts-ignore: decorator
@inline
function addOutliers(
  bits: i32,
  codes: usize,
  list: usize,
  source: usize,
  offset: usize,
  strip: i32,
  out: usize,
): void {
  const count = load<i32>(list)
  if (count == 0) return
  const scales = scalesOf(source) + (<usize>(strip * groupsOf(source)) << 5)
  let low = f32x4.splat(0)
  let high = low
  for (let p = list, end = list + <usize>count * 12; p < end; p += 12) {
    const k = load<i32>(p, 4)
    const g = load<i32>(p, 8)
    const scale = scales + (<usize>g << 5)
    const table = tableAt(source, strip << 3, g) + offset
    const value = f32x4.mul(v128.load32_splat(p, 12), v128.load32_splat(table + STEP))
    const c = entries(table, columnBytes(quarter(bits, codes, k & ~3, 0), k & 3))
    const d = entries(table, columnBytes(quarter(bits, codes, k & ~3, 1), k & 3))
    low = fma(v128.load(scale), f32x4.mul(c, value), low)
    high = fma(v128.load(scale, 16), f32x4.mul(d, value), high)
  }
  put(out, strip << 3, rowsOf(source), low, high, 1)
}

/** 128·h + l of four codes, an i32 each. */
// @ts-ignore: decorator
@inline
function entries(table: usize, indices: v128): v128 {
  const byte = i32x4.splat(255)
  const h = v128.and(swizzle(v128.load(table), indices), byte)
  const l = v128.and(swizzle(v128.load(table, 16), indices), byte)
  return f32x4.convert_i32x4_s(i32x4.add(i32x4.shl(h, 7), l))
}

/**
 * Activations that stand far out of their block (activations.ts), as they are: for each row of x how
 * many there are, and 12 bytes for each: column i32, group i32, value f32. `sums` has them already,
 * so what is missing is scale · code · value.
 */

import { quarter } from './codes'
import { put } from './put'
import { fma } from './simd'
import { depthOf, groupsOf, rowsOf, scalesOf } from './source'

/** Byte j of each of four lanes, as an integer: indices for a swizzle, of which 128 and more give 0. */
const COLUMNS = memory.data<u8>([
  0, 128, 128, 128, 4, 128, 128, 128, 8, 128, 128, 128, 12, 128, 128, 128, 1, 128, 128, 128, 5, 128,
  128, 128, 9, 128, 128, 128, 13, 128, 128, 128, 2, 128, 128, 128, 6, 128, 128, 128, 10, 128, 128,
  128, 14, 128, 128, 128, 3, 128, 128, 128, 7, 128, 128, 128, 11, 128, 128, 128, 15, 128, 128, 128,
])

/** Of a row's list: at most one outlier for each block of 32. */
// @ts-ignore: decorator
@inline
export function outlierBytes(depth: i32): usize {
  return 4 + <usize>(depth >> 5) * 12
}

// @ts-ignore: decorator
@inline
export function putOutlier(list: usize, index: i32, column: i32, group: i32, value: f32): void {
  const p = list + <usize>index * 12
  store<i32>(p, column, 4)
  store<i32>(p, group, 8)
  store<f32>(p, value, 12)
}

/** Adds a row's outliers to the sums of a strip whose codes are at `codes`. */
// @ts-ignore: decorator
@inline
export function addOutliers(
  bits: i32,
  codes: usize,
  list: usize,
  source: usize,
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
    const scale = scales + (<usize>load<i32>(p, 8) << 5)
    const value = v128.load32_splat(p, 12)
    const column = v128.load(COLUMNS + (<usize>(k & 3) << 4))
    low = fma(v128.load(scale), product(bits, codes, k, 0, column, value), low)
    high = fma(v128.load(scale, 16), product(bits, codes, k, 1, column, value), high)
  }
  put(out, strip << 3, rowsOf(source), low, high, 1)
}

/** Byte j of each of four lanes, as an i32. */
// @ts-ignore: decorator
@inline
export function columnBytes(v: v128, j: i32): v128 {
  return swizzle(v, v128.load(COLUMNS + (<usize>j << 4)))
}

/**
 * The same for two strips, with a byte for each code and the codes of the second behind those of the
 * first. Rows differ in how many outliers they have, which branch prediction cannot know: done once
 * for twice the sums it costs half.
 */
export function addOutliersPair(
  codes: usize,
  list: usize,
  source: usize,
  strip: i32,
  out: usize,
): void {
  const count = load<i32>(list)
  if (count == 0) return
  const next = codes + (<usize>depthOf(source) << 3)
  const scales = scalesOf(source) + (<usize>(strip * groupsOf(source)) << 5)
  const across = <usize>groupsOf(source) << 5
  let low = f32x4.splat(0)
  let high = low
  let nextLow = low
  let nextHigh = low
  for (let p = list, end = list + <usize>count * 12; p < end; p += 12) {
    const k = load<i32>(p, 4)
    const scale = scales + (<usize>load<i32>(p, 8) << 5)
    const value = v128.load32_splat(p, 12)
    const column = v128.load(COLUMNS + (<usize>(k & 3) << 4))
    low = fma(v128.load(scale), product(8, codes, k, 0, column, value), low)
    high = fma(v128.load(scale, 16), product(8, codes, k, 1, column, value), high)
    const other = scale + across
    nextLow = fma(v128.load(other), product(8, next, k, 0, column, value), nextLow)
    nextHigh = fma(v128.load(other, 16), product(8, next, k, 1, column, value), nextHigh)
  }
  put(out, strip << 3, rowsOf(source), low, high, 1)
  put(out, (strip + 1) << 3, rowsOf(source), nextLow, nextHigh, 1)
}

/** Four rows' codes at column k, times an outlier. */
// @ts-ignore: decorator
@inline
function product(bits: i32, codes: usize, k: i32, half: i32, column: v128, value: v128): v128 {
  const bytes = swizzle(quarter(bits, codes, k & ~3, half), column)
  return f32x4.mul(f32x4.convert_i32x4_s(bytes), value)
}

// @ts-ignore: decorator
@inline
function swizzle(v: v128, indices: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(v, indices)
  return i8x16.swizzle(v, indices)
}

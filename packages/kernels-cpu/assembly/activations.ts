/**
 * x in whole numbers: blocks of 32 columns of a row share a factor, the largest magnitude divided by
 * the largest number: 127, or 32767 where `wide`. Rows lie in panels of `high` (1 to 4), with 4
 * neighbouring k of a row together, as the dot products take them:
 *
 *   numbers   [panel][k / 4][high][4], i8, or i16 where `wide`
 *   factors   [panel][k / 32][high] f32
 *   sums      [panel][group][high] f32: Σ x over each group, as it was rounded, for offsets
 *   outliers  [row] lists, see outliers.ts; where `wide` they are empty
 *
 * One activation far out of its block makes the factor of the 31 others coarse. In 8 bits such a one
 * is left out (a 0 in `numbers`) and stays f32 in the row's list. The squared error of a block goes
 * with its largest magnitude, first², and would go with the second largest, second²: an outlier is
 * what lowers that by more than OUTLIER times the row's mean of second².
 */

import { outlierBytes, putOutlier } from './outliers'
import { largest, whole } from './simd'
import { take } from './threads'

/** The README has what other numbers give. */
const OUTLIER: f32 = 2

export function quantizeRows(
  numbers: usize,
  factors: usize,
  sums: usize,
  outliers: usize,
  x: usize,
  rows: i32,
  depth: i32,
  group: i32,
  high: i32,
  wide: i32,
): void {
  const panels = (rows + high - 1) / high
  const size: usize = wide ? 8 : 4
  const limit: f32 = wide ? 32767 : 127
  const blocks = depth >> 5
  const groups = depth / group
  for (let panel = take(); panel < panels; panel = take()) {
    for (let r = 0; r < high; r++) {
      const row = panel * high + r
      const from = x + <usize>row * (<usize>depth << 2)
      const list = outliers + <usize>row * outlierBytes(depth)
      let to = numbers + (<usize>panel * <usize>(depth >> 2) * <usize>high + <usize>r) * size
      const least = row < rows ? measure(list, from, blocks) * OUTLIER : 0
      let found = 0
      let sum: f32 = 0
      for (let block = 0; block < blocks; block++) {
        const p = from + (<usize>block << 7)
        const g = (block << 5) / group
        let magnitude = row < rows ? firstOf(list, block) : 0
        let bound = f32x4.splat(Infinity)
        if (!wide && row < rows) {
          const second = secondOf(list, block)
          if (magnitude * magnitude - second * second > least) {
            const i = positionOf(p, magnitude)
            const value = load<f32>(p + (<usize>i << 2))
            putOutlier(list, found, (block << 5) + i, g, value)
            found++
            sum += value
            bound = f32x4.splat(magnitude)
            magnitude = second
          }
        }
        const factor = magnitude / limit
        const inverse: f32 = magnitude > 0 ? limit / magnitude : 0
        store<f32>(factors + (<usize>((panel * blocks + block) * high + r) << 2), factor)
        let total = i32x4.splat(0)
        for (let i: usize = 0; i < 128; i += 16) {
          let v = row < rows ? v128.load(p + i) : f32x4.splat(0)
          v = v128.and(v, f32x4.lt(f32x4.abs(v), bound))
          const q = whole(f32x4.nearest(f32x4.mul(v, f32x4.splat(inverse))))
          total = i32x4.add(total, q)
          const narrow = i16x8.narrow_i32x4_s(q, q)
          if (wide) v128.store64_lane(to, narrow, 0)
          else v128.store32_lane(to, i8x16.narrow_i16x8_s(narrow, narrow), 0)
          to += <usize>high * size
        }
        total = i32x4.add(total, v128.shuffle<i32>(total, total, 2, 3, 0, 1))
        sum += factor * <f32>(i32x4.extract_lane(total, 0) + i32x4.extract_lane(total, 1))
        if (((block + 1) << 5) % group == 0) {
          store<f32>(sums + (<usize>((panel * groups + g) * high + r) << 2), sum)
          sum = 0
        }
      }
      store<i32>(list, found)
    }
  }
}

/**
 * The two largest magnitudes of each block of a row (the first NaN where the block has one), and the
 * mean of second². They stay where the block's outlier would be: when that is written, those up to
 * its block have been read.
 */
function measure(list: usize, p: usize, blocks: i32): f32 {
  let mean: f32 = 0
  for (let block = 0; block < blocks; block++) {
    let most = f32x4.splat(0)
    let next = most
    let odd = i32x4.splat(0)
    for (const end = p + 128; p < end; p += 16) {
      const v = v128.load(p)
      const magnitude = f32x4.abs(v)
      // pmax, one instruction where max takes eight, passes over NaN.
      next = f32x4.pmax(next, f32x4.pmin(most, magnitude))
      most = f32x4.pmax(most, magnitude)
      odd = v128.or(odd, f32x4.ne(v, v))
    }
    const first = v128.any_true(odd) ? <f32>NaN : largest(most)
    const second = secondLargest(most, next)
    mean += second * second
    store<f32>(list + <usize>block * 12, first, 4)
    store<f32>(list + <usize>block * 12, second, 8)
  }
  return mean / <f32>blocks
}

// @ts-ignore: decorator
@inline
function firstOf(list: usize, block: i32): f32 {
  return load<f32>(list + <usize>block * 12, 4)
}

// @ts-ignore: decorator
@inline
function secondOf(list: usize, block: i32): f32 {
  return load<f32>(list + <usize>block * 12, 8)
}

/** Of four lanes with their largest and second largest each. */
// @ts-ignore: decorator
@inline
function secondLargest(most: v128, next: v128): f32 {
  let other = v128.shuffle<f32>(most, most, 2, 3, 0, 1)
  next = f32x4.pmax(next, v128.shuffle<f32>(next, next, 2, 3, 0, 1))
  next = f32x4.pmax(next, f32x4.pmin(most, other))
  most = f32x4.pmax(most, other)
  other = v128.shuffle<f32>(most, most, 1, 0, 3, 2)
  next = f32x4.pmax(next, v128.shuffle<f32>(next, next, 1, 0, 3, 2))
  next = f32x4.pmax(next, f32x4.pmin(most, other))
  return f32x4.extract_lane(next, 0)
}

/** Which of the 32 floats at p has this magnitude. */
function positionOf(p: usize, magnitude: f32): i32 {
  let i = 0
  while (i < 31 && abs(load<f32>(p + (<usize>i << 2))) != magnitude) i++
  return i
}

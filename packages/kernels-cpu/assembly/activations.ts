/**
 * x in 8 bits: blocks of 32 columns of a row share a factor, the largest magnitude / 127. Rows lie
 * in panels of `high` (1 to 4), with 4 neighbouring k of a row together, as the dot products take
 * them:
 *
 *   bytes   [panel][k / 4][high][4], i8, or i16 where `wide`
 *   factors [panel][k / 32][high] f32
 *   sums    [panel][group][high] f32: Σ factor · x over each group, for offsets
 */

import { largest, whole } from './simd'
import { take } from './threads'

export function quantizeRows(
  bytes: usize,
  factors: usize,
  sums: usize,
  x: usize,
  rows: i32,
  depth: i32,
  group: i32,
  high: i32,
  wide: i32,
): void {
  const panels = (rows + high - 1) / high
  const size: usize = wide ? 8 : 4
  const blocks = depth >> 5
  const groups = depth / group
  for (let panel = take(); panel < panels; panel = take()) {
    for (let r = 0; r < high; r++) {
      const row = panel * high + r
      const from = x + <usize>row * (<usize>depth << 2)
      let to = bytes + (<usize>panel * <usize>(depth >> 2) * <usize>high + <usize>r) * size
      let sum: f32 = 0
      for (let block = 0; block < blocks; block++) {
        const p = from + (<usize>block << 7)
        let most = f32x4.splat(0)
        let odd = i32x4.splat(0)
        if (row < rows) {
          for (let i: usize = 0; i < 128; i += 16) {
            const v = v128.load(p + i)
            most = f32x4.pmax(most, f32x4.abs(v))
            odd = v128.or(odd, f32x4.ne(v, v))
          }
        }
        const magnitude = largest(most)
        // pmax, one instruction where max takes eight, passes over NaN.
        const factor = v128.any_true(odd) ? <f32>NaN : magnitude / 127
        const inverse: f32 = magnitude > 0 ? <f32>127 / magnitude : 0
        store<f32>(factors + (<usize>((panel * blocks + block) * high + r) << 2), factor)
        let total = i32x4.splat(0)
        for (let i: usize = 0; i < 128; i += 16) {
          const v = row < rows ? v128.load(p + i) : f32x4.splat(0)
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
          const g = ((block + 1) << 5) / group - 1
          store<f32>(sums + (<usize>((panel * groups + g) * high + r) << 2), sum)
          sum = 0
        }
      }
    }
  }
}

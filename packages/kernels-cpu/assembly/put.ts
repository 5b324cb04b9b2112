/** The end of a strip: its eight sums go to memory. */

import { storeSome } from './simd'

/** Writes (or adds) the sums of 8 rows from n on, as many as there are. */
// @ts-ignore: decorator
@inline
export function put(out: usize, n: i32, rows: i32, low: v128, high: v128, add: i32): void {
  const left = rows - n
  const p = out + (<usize>n << 2)
  if (left >= 8) {
    v128.store(p, add ? f32x4.add(v128.load(p), low) : low)
    v128.store(p, add ? f32x4.add(v128.load(p, 16), high) : high, 16)
    return
  }
  // The slack after every block makes the loads harmless.
  if (add) {
    low = f32x4.add(v128.load(p), low)
    high = f32x4.add(v128.load(p, 16), high)
  }
  storeSome(p, low, left)
  if (left > 4) storeSome(p + 16, high, left - 4)
}

/** The GEMV of anything that a panel can be filled from: a block of a strip is decoded, then multiplied. */

import { BLOCK, fill, PANEL } from './panel'
import { put } from './put'
import { fma } from './simd'
import { depthOf, rowsOf } from './source'

/** One to four rows of x, `next` bytes apart; `panel`: a panel, and room for another. */
export function rowsOfPanels(
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  rows: i32,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
  panel: usize,
): void {
  const depth = depthOf(source)
  const n = rowsOf(source)
  for (let strip = from; strip < to; strip++) {
    let a0 = f32x4.splat(0)
    let a1 = a0
    let b0 = a0
    let b1 = a0
    let c0 = a0
    let c1 = a0
    let d0 = a0
    let d1 = a0
    let q = x
    for (let k = 0; k < depth; k += BLOCK) {
      const some = min(BLOCK, depth - k)
      fill(panel, source, strip, k, k + some, panel + PANEL)
      let p = panel
      const last = panel + (<usize>some << 5)
      if (rows == 1) {
        // Four chains of sums, so that their latency is hidden.
        for (; p + 128 <= last; p += 128, q += 16) {
          let v = v128.load32_splat(q)
          a0 = fma(v, v128.load(p), a0)
          a1 = fma(v, v128.load(p, 16), a1)
          v = v128.load32_splat(q, 4)
          b0 = fma(v, v128.load(p, 32), b0)
          b1 = fma(v, v128.load(p, 48), b1)
          v = v128.load32_splat(q, 8)
          c0 = fma(v, v128.load(p, 64), c0)
          c1 = fma(v, v128.load(p, 80), c1)
          v = v128.load32_splat(q, 12)
          d0 = fma(v, v128.load(p, 96), d0)
          d1 = fma(v, v128.load(p, 112), d1)
        }
        for (; p < last; p += 32, q += 4) {
          const v = v128.load32_splat(q)
          a0 = fma(v, v128.load(p), a0)
          a1 = fma(v, v128.load(p, 16), a1)
        }
        continue
      }
      // Of fewer than four rows the last is read again, and not stored.
      const next1 = next
      const next2 = rows > 2 ? next * 2 : next1
      const next3 = rows > 3 ? next * 3 : next2
      for (; p < last; p += 32, q += 4) {
        const low = v128.load(p)
        const high = v128.load(p, 16)
        let v = v128.load32_splat(q)
        a0 = fma(v, low, a0)
        a1 = fma(v, high, a1)
        v = v128.load32_splat(q + next1)
        b0 = fma(v, low, b0)
        b1 = fma(v, high, b1)
        v = v128.load32_splat(q + next2)
        c0 = fma(v, low, c0)
        c1 = fma(v, high, c1)
        v = v128.load32_splat(q + next3)
        d0 = fma(v, low, d0)
        d1 = fma(v, high, d1)
      }
    }
    if (rows == 1) {
      a0 = f32x4.add(f32x4.add(a0, b0), f32x4.add(c0, d0))
      a1 = f32x4.add(f32x4.add(a1, b1), f32x4.add(c1, d1))
    }
    put(out, strip << 3, n, a0, a1, add)
    if (rows > 1) put(out + stride, strip << 3, n, b0, b1, add)
    if (rows > 2) put(out + stride * 2, strip << 3, n, c0, c1, add)
    if (rows > 3) put(out + stride * 3, strip << 3, n, d0, d1, add)
  }
}

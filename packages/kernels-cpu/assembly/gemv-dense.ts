/** The GEMV of dense strips (gemv.ts). */

import { put } from './put'
import { fma, loadBfloats, loadHalves } from './simd'
import { BF16, dataOf, depthOf, F16, F32, rowsOf, strideOf } from './source'

// @ts-ignore: decorator
@inline
export function rowsOfDense(
  kind: i32,
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  rows: i32,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  if (rows == 1) denseOne(kind, out, x, source, add, from, to)
  else if (rows == 2) denseSome(kind, 2, out, stride, x, next, source, add, from, to)
  else if (rows == 3) denseSome(kind, 3, out, stride, x, next, source, add, from, to)
  else denseSome(kind, 4, out, stride, x, next, source, add, from, to)
}

/** Four rows of a dense strip at k; f32 strips have 32 bytes for each k, the others 16. */
// @ts-ignore: decorator
@inline
function four(kind: i32, p: usize, half: i32): v128 {
  if (kind == F16) return loadHalves(p + <usize>(half << 3))
  if (kind == BF16) return loadBfloats(p + <usize>(half << 3))
  return v128.load(p + <usize>(half << 4))
}

// @ts-ignore: decorator
@inline
function denseOne(
  kind: i32,
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const depth = depthOf(source)
  const step: usize = kind == F32 ? 32 : 16
  for (let strip = from; strip < to; strip++) {
    let p = dataOf(source) + <usize>strip * strideOf(source)
    let q = x
    let a0 = f32x4.splat(0)
    let a1 = a0
    let b0 = a0
    let b1 = a0
    let c0 = a0
    let c1 = a0
    let d0 = a0
    let d1 = a0
    let k = 0
    for (; k + 4 <= depth; k += 4, q += 16, p += step * 4) {
      let v = v128.load32_splat(q)
      a0 = fma(v, four(kind, p, 0), a0)
      a1 = fma(v, four(kind, p, 1), a1)
      v = v128.load32_splat(q, 4)
      b0 = fma(v, four(kind, p + step, 0), b0)
      b1 = fma(v, four(kind, p + step, 1), b1)
      v = v128.load32_splat(q, 8)
      c0 = fma(v, four(kind, p + step * 2, 0), c0)
      c1 = fma(v, four(kind, p + step * 2, 1), c1)
      v = v128.load32_splat(q, 12)
      d0 = fma(v, four(kind, p + step * 3, 0), d0)
      d1 = fma(v, four(kind, p + step * 3, 1), d1)
    }
    for (; k < depth; k++, q += 4, p += step) {
      const v = v128.load32_splat(q)
      a0 = fma(v, four(kind, p, 0), a0)
      a1 = fma(v, four(kind, p, 1), a1)
    }
    const low = f32x4.add(f32x4.add(a0, b0), f32x4.add(c0, d0))
    const high = f32x4.add(f32x4.add(a1, b1), f32x4.add(c1, d1))
    put(out, strip << 3, rowsOf(source), low, high, add)
  }
}

// @ts-ignore: decorator
@inline
function denseSome(
  kind: i32,
  count: i32,
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const depth = depthOf(source)
  const step: usize = kind == F32 ? 32 : 16
  const rows = rowsOf(source)
  for (let strip = from; strip < to; strip++) {
    let p = dataOf(source) + <usize>strip * strideOf(source)
    let q = x
    let a0 = f32x4.splat(0)
    let a1 = a0
    let b0 = a0
    let b1 = a0
    let c0 = a0
    let c1 = a0
    let d0 = a0
    let d1 = a0
    for (let k = 0; k < depth; k++, q += 4, p += step) {
      const low = four(kind, p, 0)
      const high = four(kind, p, 1)
      let v = v128.load32_splat(q)
      a0 = fma(v, low, a0)
      a1 = fma(v, high, a1)
      v = v128.load32_splat(q + next)
      b0 = fma(v, low, b0)
      b1 = fma(v, high, b1)
      if (count > 2) {
        v = v128.load32_splat(q + next * 2)
        c0 = fma(v, low, c0)
        c1 = fma(v, high, c1)
      }
      if (count > 3) {
        v = v128.load32_splat(q + next * 3)
        d0 = fma(v, low, d0)
        d1 = fma(v, high, d1)
      }
    }
    put(out, strip << 3, rows, a0, a1, add)
    put(out + stride, strip << 3, rows, b0, b1, add)
    if (count > 2) put(out + stride * 2, strip << 3, rows, c0, c1, add)
    if (count > 3) put(out + stride * 3, strip << 3, rows, d0, d1, add)
  }
}

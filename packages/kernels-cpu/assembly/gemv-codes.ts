/** The GEMV of strips of codes (gemv.ts). */

import { entries16, entries256, integers, quarter } from './codes'
import { put } from './put'
import { fma } from './simd'
import {
  centerOf,
  dataOf,
  groupOf,
  groupsOf,
  offsetsOf,
  rowsOf,
  scalesOf,
  strideOf,
  tableAt,
} from './source'

// @ts-ignore: decorator
@inline
export function rowsOfCodes(
  bits: i32,
  table: i32,
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  rows: i32,
  source: usize,
  sums: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  if (rows == 1 || table) codesOne(bits, table, out, x, source, sums, add, from, to)
  else if (rows == 2) codesSome(bits, 2, out, stride, x, next, source, sums, add, from, to)
  else if (rows == 3) codesSome(bits, 3, out, stride, x, next, source, sums, add, from, to)
  else codesSome(bits, 4, out, stride, x, next, source, sums, add, from, to)
}

/** Column j of a quarter, whose bytes are `v` and whose address, for 256 entries, is `p`. */
// @ts-ignore: decorator
@inline
function column(
  table: i32,
  v: v128,
  p: usize,
  j: i32,
  entries: usize,
  t0: v128,
  t1: v128,
  t2: v128,
  t3: v128,
): v128 {
  if (table == 256) return entries256(p, j, entries)
  if (table == 16) return entries16(v, j, t0, t1, t2, t3)
  return integers(v, j)
}

/** One row of x: eight chains of sums, so that their latency is hidden. */
// @ts-ignore: decorator
@inline
function codesOne(
  bits: i32,
  table: i32,
  out: usize,
  x: usize,
  source: usize,
  sums: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  const center = centerOf(source)
  let entries: usize = 0
  let t0 = i32x4.splat(0)
  let t1 = t0
  let t2 = t0
  let t3 = t0
  for (let strip = from; strip < to; strip++) {
    const data = dataOf(source) + <usize>strip * strideOf(source)
    let low = f32x4.splat(0)
    let high = low
    let k = 0
    for (let g = 0; g < groups; g++) {
      if (table) entries = tableAt(source, strip << 3, g)
      if (table == 16) {
        t0 = v128.load(entries)
        t1 = v128.load(entries, 16)
        t2 = v128.load(entries, 32)
        t3 = v128.load(entries, 48)
      }
      let a0 = f32x4.splat(0)
      let a1 = a0
      let b0 = a0
      let b1 = a0
      let c0 = a0
      let c1 = a0
      let d0 = a0
      let d1 = a0
      const end = k + group
      for (; k < end; k += 4) {
        const v0 = quarter(bits, data, k, 0)
        const v1 = quarter(bits, data, k, 1)
        const p = data + <usize>(k << 3)
        const q = x + <usize>(k << 2)
        let v = v128.load32_splat(q)
        a0 = fma(v, column(table, v0, p, 0, entries, t0, t1, t2, t3), a0)
        a1 = fma(v, column(table, v1, p + 16, 0, entries, t0, t1, t2, t3), a1)
        v = v128.load32_splat(q, 4)
        b0 = fma(v, column(table, v0, p, 1, entries, t0, t1, t2, t3), b0)
        b1 = fma(v, column(table, v1, p + 16, 1, entries, t0, t1, t2, t3), b1)
        v = v128.load32_splat(q, 8)
        c0 = fma(v, column(table, v0, p, 2, entries, t0, t1, t2, t3), c0)
        c1 = fma(v, column(table, v1, p + 16, 2, entries, t0, t1, t2, t3), c1)
        v = v128.load32_splat(q, 12)
        d0 = fma(v, column(table, v0, p, 3, entries, t0, t1, t2, t3), d0)
        d1 = fma(v, column(table, v1, p + 16, 3, entries, t0, t1, t2, t3), d1)
      }
      const at = <usize>(strip * groups + g) << 5
      a0 = f32x4.add(f32x4.add(a0, b0), f32x4.add(c0, d0))
      a1 = f32x4.add(f32x4.add(a1, b1), f32x4.add(c1, d1))
      if (center != 0) {
        const shift = f32x4.splat(center * load<f32>(sums + (<usize>g << 2)))
        a0 = f32x4.add(a0, shift)
        a1 = f32x4.add(a1, shift)
      }
      low = fma(v128.load(scalesOf(source) + at), a0, low)
      high = fma(v128.load(scalesOf(source) + at, 16), a1, high)
      if (offsets) {
        const sum = v128.load32_splat(sums + (<usize>g << 2))
        low = fma(v128.load(offsets + at), sum, low)
        high = fma(v128.load(offsets + at, 16), sum, high)
      }
    }
    put(out, strip << 3, rowsOf(source), low, high, add)
  }
}

/**
 * Two to four rows of x, integers only: with a table in registers there is no room for the sums,
 * and the GEMM is faster.
 */
// @ts-ignore: decorator
@inline
function codesSome(
  bits: i32,
  count: i32,
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  source: usize,
  sums: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const group = groupOf(source)
  const groups = groupsOf(source)
  const offsets = offsetsOf(source)
  const center = centerOf(source)
  const nextSums = <usize>groups << 2
  const rows = rowsOf(source)
  for (let strip = from; strip < to; strip++) {
    const data = dataOf(source) + <usize>strip * strideOf(source)
    let low0 = f32x4.splat(0)
    let high0 = low0
    let low1 = low0
    let high1 = low0
    let low2 = low0
    let high2 = low0
    let low3 = low0
    let high3 = low0
    let k = 0
    for (let g = 0; g < groups; g++) {
      let a0 = f32x4.splat(0)
      let a1 = a0
      let b0 = a0
      let b1 = a0
      let c0 = a0
      let c1 = a0
      let d0 = a0
      let d1 = a0
      const end = k + group
      for (; k < end; k += 4) {
        const v0 = quarter(bits, data, k, 0)
        const v1 = quarter(bits, data, k, 1)
        const q = x + <usize>(k << 2)
        let w0 = integers(v0, 0)
        let w1 = integers(v1, 0)
        let v = v128.load32_splat(q)
        a0 = fma(v, w0, a0)
        a1 = fma(v, w1, a1)
        v = v128.load32_splat(q + next)
        b0 = fma(v, w0, b0)
        b1 = fma(v, w1, b1)
        if (count > 2) {
          v = v128.load32_splat(q + next * 2)
          c0 = fma(v, w0, c0)
          c1 = fma(v, w1, c1)
        }
        if (count > 3) {
          v = v128.load32_splat(q + next * 3)
          d0 = fma(v, w0, d0)
          d1 = fma(v, w1, d1)
        }
        w0 = integers(v0, 1)
        w1 = integers(v1, 1)
        v = v128.load32_splat(q, 4)
        a0 = fma(v, w0, a0)
        a1 = fma(v, w1, a1)
        v = v128.load32_splat(q + next, 4)
        b0 = fma(v, w0, b0)
        b1 = fma(v, w1, b1)
        if (count > 2) {
          v = v128.load32_splat(q + next * 2, 4)
          c0 = fma(v, w0, c0)
          c1 = fma(v, w1, c1)
        }
        if (count > 3) {
          v = v128.load32_splat(q + next * 3, 4)
          d0 = fma(v, w0, d0)
          d1 = fma(v, w1, d1)
        }
        w0 = integers(v0, 2)
        w1 = integers(v1, 2)
        v = v128.load32_splat(q, 8)
        a0 = fma(v, w0, a0)
        a1 = fma(v, w1, a1)
        v = v128.load32_splat(q + next, 8)
        b0 = fma(v, w0, b0)
        b1 = fma(v, w1, b1)
        if (count > 2) {
          v = v128.load32_splat(q + next * 2, 8)
          c0 = fma(v, w0, c0)
          c1 = fma(v, w1, c1)
        }
        if (count > 3) {
          v = v128.load32_splat(q + next * 3, 8)
          d0 = fma(v, w0, d0)
          d1 = fma(v, w1, d1)
        }
        w0 = integers(v0, 3)
        w1 = integers(v1, 3)
        v = v128.load32_splat(q, 12)
        a0 = fma(v, w0, a0)
        a1 = fma(v, w1, a1)
        v = v128.load32_splat(q + next, 12)
        b0 = fma(v, w0, b0)
        b1 = fma(v, w1, b1)
        if (count > 2) {
          v = v128.load32_splat(q + next * 2, 12)
          c0 = fma(v, w0, c0)
          c1 = fma(v, w1, c1)
        }
        if (count > 3) {
          v = v128.load32_splat(q + next * 3, 12)
          d0 = fma(v, w0, d0)
          d1 = fma(v, w1, d1)
        }
      }
      if (center != 0) {
        const p = sums + (<usize>g << 2)
        let shift = f32x4.splat(center * load<f32>(p))
        a0 = f32x4.add(a0, shift)
        a1 = f32x4.add(a1, shift)
        shift = f32x4.splat(center * load<f32>(p + nextSums))
        b0 = f32x4.add(b0, shift)
        b1 = f32x4.add(b1, shift)
        if (count > 2) {
          shift = f32x4.splat(center * load<f32>(p + nextSums * 2))
          c0 = f32x4.add(c0, shift)
          c1 = f32x4.add(c1, shift)
        }
        if (count > 3) {
          shift = f32x4.splat(center * load<f32>(p + nextSums * 3))
          d0 = f32x4.add(d0, shift)
          d1 = f32x4.add(d1, shift)
        }
      }
      const at = <usize>(strip * groups + g) << 5
      const s0 = v128.load(scalesOf(source) + at)
      const s1 = v128.load(scalesOf(source) + at, 16)
      low0 = fma(s0, a0, low0)
      high0 = fma(s1, a1, high0)
      low1 = fma(s0, b0, low1)
      high1 = fma(s1, b1, high1)
      low2 = fma(s0, c0, low2)
      high2 = fma(s1, c1, high2)
      low3 = fma(s0, d0, low3)
      high3 = fma(s1, d1, high3)
      if (offsets) {
        const o0 = v128.load(offsets + at)
        const o1 = v128.load(offsets + at, 16)
        const p = sums + (<usize>g << 2)
        let sum = v128.load32_splat(p)
        low0 = fma(o0, sum, low0)
        high0 = fma(o1, sum, high0)
        sum = v128.load32_splat(p + nextSums)
        low1 = fma(o0, sum, low1)
        high1 = fma(o1, sum, high1)
        if (count > 2) {
          sum = v128.load32_splat(p + nextSums * 2)
          low2 = fma(o0, sum, low2)
          high2 = fma(o1, sum, high2)
        }
        if (count > 3) {
          sum = v128.load32_splat(p + nextSums * 3)
          low3 = fma(o0, sum, low3)
          high3 = fma(o1, sum, high3)
        }
      }
    }
    put(out, strip << 3, rows, low0, high0, add)
    put(out + stride, strip << 3, rows, low1, high1, add)
    if (count > 2) put(out + stride * 2, strip << 3, rows, low2, high2, add)
    if (count > 3) put(out + stride * 3, strip << 3, rows, low3, high3, add)
  }
}

/**
 * out[t, n] (+)= Σ_k x[t, k] · W[n, k] for one to four rows of x, straight from the strips of a
 * weight: no packing, each weight decoded once. Within a group the sum runs over plain codes (or
 * table entries); scale and offset are applied once for each group:
 *
 *   Σ x·(s·c + o) = s·Σ x·c + o·Σ x,   Σ x over the group from `sums` [t][group]
 */

import { entries16, entries256, integers, quarter } from './codes'
import { fma, loadBfloats, loadHalves, storeSome } from './simd'
import {
  BF16,
  dataOf,
  depthOf,
  F16,
  F32,
  groupOf,
  groupsOf,
  INTEGER2,
  INTEGER4,
  INTEGER8,
  kindOf,
  offsetsOf,
  rowsOf,
  scalesOf,
  strideOf,
  TABLE2,
  TABLE4,
  tableOf,
} from './source'
import { take } from './threads'

/** x and out are rows × depth and rows × stride (bytes); a task is `some` strips. */
export function gemv(
  out: usize,
  stride: usize,
  x: usize,
  rows: i32,
  source: usize,
  sums: usize,
  add: i32,
  some: i32,
): void {
  const strips = (rowsOf(source) + 7) >> 3
  const tasks = (strips + some - 1) / some
  const kind = kindOf(source)
  for (let task = take(); task < tasks; task = take()) {
    const from = task * some
    const to = min(from + some, strips)
    if (kind == INTEGER4) rowsOfCodes(4, 0, out, stride, x, rows, source, sums, add, from, to)
    else if (kind == INTEGER8) rowsOfCodes(8, 0, out, stride, x, rows, source, sums, add, from, to)
    else if (kind == INTEGER2) rowsOfCodes(2, 0, out, stride, x, rows, source, sums, add, from, to)
    else if (kind == TABLE4) rowsOfCodes(4, 16, out, stride, x, rows, source, sums, add, from, to)
    else if (kind == TABLE2) rowsOfCodes(2, 16, out, stride, x, rows, source, sums, add, from, to)
    else if (kind == F32) rowsOfDense(F32, out, stride, x, rows, source, add, from, to)
    else if (kind == F16) rowsOfDense(F16, out, stride, x, rows, source, add, from, to)
    else if (kind == BF16) rowsOfDense(BF16, out, stride, x, rows, source, add, from, to)
    else rowsOfCodes(8, 256, out, stride, x, rows, source, sums, add, from, to)
  }
}

// @ts-ignore: decorator
@inline
function put(out: usize, n: i32, rows: i32, low: v128, high: v128, add: i32): void {
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

// @ts-ignore: decorator
@inline
function rowsOfDense(
  kind: i32,
  out: usize,
  stride: usize,
  x: usize,
  rows: i32,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  if (rows == 1) denseOne(kind, out, x, source, add, from, to)
  else if (rows == 2) denseSome(kind, 2, out, stride, x, source, add, from, to)
  else if (rows == 3) denseSome(kind, 3, out, stride, x, source, add, from, to)
  else denseSome(kind, 4, out, stride, x, source, add, from, to)
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
function denseOne(kind: i32, out: usize, x: usize, source: usize, add: i32, from: i32, to: i32): void {
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
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const depth = depthOf(source)
  const step: usize = kind == F32 ? 32 : 16
  const next = <usize>depth << 2
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

// @ts-ignore: decorator
@inline
function rowsOfCodes(
  bits: i32,
  table: i32,
  out: usize,
  stride: usize,
  x: usize,
  rows: i32,
  source: usize,
  sums: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  if (rows == 1) codesOne(bits, table, out, x, source, sums, add, from, to)
  else if (rows == 2) codesSome(bits, table, 2, out, stride, x, source, sums, add, from, to)
  else if (rows == 3) codesSome(bits, table, 3, out, stride, x, source, sums, add, from, to)
  else codesSome(bits, table, 4, out, stride, x, source, sums, add, from, to)
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
  const entries = tableOf(source)
  let t0 = i32x4.splat(0)
  let t1 = t0
  let t2 = t0
  let t3 = t0
  if (table == 16) {
    t0 = v128.load(entries)
    t1 = v128.load(entries, 16)
    t2 = v128.load(entries, 32)
    t3 = v128.load(entries, 48)
  }
  for (let strip = from; strip < to; strip++) {
    const data = dataOf(source) + <usize>strip * strideOf(source)
    let low = f32x4.splat(0)
    let high = low
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

// @ts-ignore: decorator
@inline
function codesSome(
  bits: i32,
  table: i32,
  count: i32,
  out: usize,
  stride: usize,
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
  const entries = tableOf(source)
  const next = <usize>depthOf(source) << 2
  const nextSums = <usize>groups << 2
  const rows = rowsOf(source)
  let t0 = i32x4.splat(0)
  let t1 = t0
  let t2 = t0
  let t3 = t0
  if (table == 16) {
    t0 = v128.load(entries)
    t1 = v128.load(entries, 16)
    t2 = v128.load(entries, 32)
    t3 = v128.load(entries, 48)
  }
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
        const p = data + <usize>(k << 3)
        const q = x + <usize>(k << 2)
        let w0 = column(table, v0, p, 0, entries, t0, t1, t2, t3)
        let w1 = column(table, v1, p + 16, 0, entries, t0, t1, t2, t3)
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
        w0 = column(table, v0, p, 1, entries, t0, t1, t2, t3)
        w1 = column(table, v1, p + 16, 1, entries, t0, t1, t2, t3)
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
        w0 = column(table, v0, p, 2, entries, t0, t1, t2, t3)
        w1 = column(table, v1, p + 16, 2, entries, t0, t1, t2, t3)
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
        w0 = column(table, v0, p, 3, entries, t0, t1, t2, t3)
        w1 = column(table, v1, p + 16, 3, entries, t0, t1, t2, t3)
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

/** sums[t, g] = Σ of x[t, k] over the k of group g. */
export function groupSums(sums: usize, x: usize, rows: i32, group: i32, groups: i32): void {
  for (let row = take(); row < rows; row = take()) {
    let p = x + <usize>row * (<usize>(group * groups) << 2)
    for (let g = 0; g < groups; g++) {
      // Groups are whole steps of four.
      let a = f32x4.splat(0)
      for (let k = 0; k < group; k += 4, p += 16) a = f32x4.add(a, v128.load(p))
      const pair = f32x4.add(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1))
      const total = f32x4.extract_lane(pair, 0) + f32x4.extract_lane(pair, 1)
      store<f32>(sums + (<usize>(row * groups + g) << 2), total)
    }
  }
}

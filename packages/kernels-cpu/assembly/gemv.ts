/**
 * out[t, n] (+)= Σ_k x[t, k] · W[n, k] for one to four rows of x, straight from a weight: no packing,
 * each weight decoded once; several rows of codes that go through a table by way of panels.
 * Within a group the sum runs over plain codes or table entries; scale and offset come in once for
 * each group:
 *
 *   Σ x·(s·(c + m) + o) = s·(Σ x·c + m·Σ x) + o·Σ x,   Σ x over the group from `sums` [t][group]
 */

import { rowsOfCodes } from './gemv-codes'
import { vectorsIn, vectorsOut } from './gemv-codebook'
import { rowsOfDense } from './gemv-dense'
import { rowsOfPanels } from './gemv-panel'
import {
  BF16,
  F16,
  F32,
  INTEGER2,
  INTEGER4,
  IN,
  INTEGER8,
  kindOf,
  lengthOf,
  OUT,
  rowsOf,
  TABLE2,
  TABLE4,
  TABLE8,
} from './source'
import { sum } from './simd'
import { take, thread } from './threads'

/**
 * x and out are rows `next` and `stride` bytes apart; a task is `some` strips, or about as many rows in
 * vectors. `direct`: whether vectors can be walked (weights/few.ts), `scratch`: two panels for each thread.
 */
export function gemv(
  out: usize,
  stride: usize,
  x: usize,
  next: usize,
  rows: i32,
  source: usize,
  sums: usize,
  add: i32,
  some: i32,
  direct: i32,
  scratch: usize,
  room: usize,
): void {
  const kind = kindOf(source)
  let high = 8
  if (kind == OUT && direct) {
    high = lengthOf(source)
    some = max(1, (some << 3) / high)
  }
  const strips = (rowsOf(source) + high - 1) / high
  const tasks = (strips + some - 1) / some
  const table = kind == TABLE2 || kind == TABLE4 || kind == TABLE8
  const panels = scratch + thread * room
  for (let task = take(); task < tasks; task = take()) {
    const from = task * some
    const to = min(from + some, strips)
    if (direct) {
      if (kind == OUT) vectorsOut(out, x, source, add, from, to)
      else vectorsIn(out, x, source, add, from, to)
    } else if (kind == OUT || kind == IN || (table && rows > 1)) {
      rowsOfPanels(out, stride, x, next, rows, source, add, from, to, panels)
    } else rowsOfStrips(kind, out, stride, x, next, rows, source, sums, add, from, to)
  }
}

// @ts-ignore: decorator
@inline
function rowsOfStrips(
  kind: i32,
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
  if (kind == INTEGER4) rowsOfCodes(4, 0, out, stride, x, next, rows, source, sums, add, from, to)
  else if (kind == INTEGER8)
    rowsOfCodes(8, 0, out, stride, x, next, rows, source, sums, add, from, to)
  else if (kind == INTEGER2)
    rowsOfCodes(2, 0, out, stride, x, next, rows, source, sums, add, from, to)
  else if (kind == TABLE4)
    rowsOfCodes(4, 16, out, stride, x, next, rows, source, sums, add, from, to)
  else if (kind == TABLE2)
    rowsOfCodes(2, 16, out, stride, x, next, rows, source, sums, add, from, to)
  else if (kind == F32) rowsOfDense(F32, out, stride, x, next, rows, source, add, from, to)
  else if (kind == F16) rowsOfDense(F16, out, stride, x, next, rows, source, add, from, to)
  else if (kind == BF16) rowsOfDense(BF16, out, stride, x, next, rows, source, add, from, to)
  else rowsOfCodes(8, 256, out, stride, x, next, rows, source, sums, add, from, to)
}

/** sums[t, g] = Σ of x[t, k] over the k of group g; rows of x are `next` bytes apart. */
export function groupSums(
  sums: usize,
  x: usize,
  next: usize,
  rows: i32,
  group: i32,
  groups: i32,
): void {
  for (let row = take(); row < rows; row = take()) {
    let p = x + <usize>row * next
    for (let g = 0; g < groups; g++) {
      // Groups are whole steps of four.
      let a = f32x4.splat(0)
      for (let k = 0; k < group; k += 4, p += 16) a = f32x4.add(a, v128.load(p))
      store<f32>(sums + (<usize>(row * groups + g) << 2), sum(a))
    }
  }
}

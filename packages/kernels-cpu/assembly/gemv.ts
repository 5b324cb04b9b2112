/**
 * out[t, n] (+)= Σ_k x[t, k] · W[n, k] for one to four rows of x (a single one where codes go
 * through a table), straight from the strips of a weight: no packing, each weight decoded once.
 * Within a group the sum runs over plain codes or table entries; scale and offset come in once for
 * each group:
 *
 *   Σ x·(s·(c + m) + o) = s·(Σ x·c + m·Σ x) + o·Σ x,   Σ x over the group from `sums` [t][group]
 */

import { rowsOfCodes } from './gemv-codes'
import { rowsOfDense } from './gemv-dense'
import {
  BF16,
  F16,
  F32,
  INTEGER2,
  INTEGER4,
  INTEGER8,
  kindOf,
  rowsOf,
  TABLE2,
  TABLE4,
} from './source'
import { sum } from './simd'
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

/** sums[t, g] = Σ of x[t, k] over the k of group g. */
export function groupSums(sums: usize, x: usize, rows: i32, group: i32, groups: i32): void {
  for (let row = take(); row < rows; row = take()) {
    let p = x + <usize>row * (<usize>(group * groups) << 2)
    for (let g = 0; g < groups; g++) {
      // Groups are whole steps of four.
      let a = f32x4.splat(0)
      for (let k = 0; k < group; k += 4, p += 16) a = f32x4.add(a, v128.load(p))
      store<f32>(sums + (<usize>(row * groups + g) << 2), sum(a))
    }
  }
}

/**
 * The feedback pass (GPTQ). Rows are independent, so a task is 96 of them. In blocks of 128
 * columns: 16 rows at a time are turned on their side ([column][16 rows], four vectors a column),
 * rounded column by column with each error subtracted from the block's later columns; then all
 * later columns of the 96 rows take the block's errors (later.ts).
 */

import {
  codesAt,
  codesAtRows,
  place,
  placeRows,
  tableAt,
  valuesAt,
  valuesAtRows,
} from './grid'
import { BLOCK, feedLater, ROWS } from './later'
import { fnma } from './simd'
import { take, thread } from './threads'

/** Bytes of scratch for each thread, before what feedLater takes; the host allocates as much. */
const SIDE: usize = BLOCK * 16 * 4
const CODES: usize = BLOCK * 16

/**
 * `blocks`: for each column the column of its scale. `tableRows` rows share a table, of which there are
 * `tablesAcross` for the columns; `tableBlocks`: for each column which of them.
 */
export function feedback(
  codes: usize,
  weight: usize,
  rows: i32,
  columns: i32,
  factor: usize,
  scale: usize,
  zero: usize,
  across: i32,
  blockRows: i32,
  blocks: usize,
  grid: usize,
  tableRows: i32,
  tablesAcross: i32,
  tableBlocks: usize,
  from: i32,
  to: i32,
  scratch: usize,
  room: usize,
): void {
  const side = scratch + thread * room
  const bytes = side + SIDE
  const errors = bytes + CODES
  const stride = <usize>columns << 2
  const tasks = (rows + ROWS - 1) / ROWS
  for (let task = take(); task < tasks; task = take()) {
    const first = task * ROWS
    const count = min(ROWS, rows - first)
    for (let column = from; column < to; column += BLOCK) {
      const some = min(BLOCK, to - column)
      for (let r = 0; r < count; r += 16) {
        const row = first + r
        const high = min(16, rows - row)
        const at = weight + <usize>row * stride + (<usize>column << 2)
        turn(side, at, stride, high, some)
        roundBlock(side, bytes, errors + <usize>(r << 2), factor, stride, column, some,
          scale, zero, across, blockRows, row, high, blocks, grid,
          tableRows, tablesAcross, tableBlocks)
        turnBack(at, side, stride, high, some)
        for (let i = 0; i < high; i++) {
          const out = codes + <usize>(row + i) * <usize>columns + <usize>column
          for (let j = 0; j < some; j++) store<u8>(out + j, load<u8>(bytes + (<usize>j << 4) + i))
        }
      }
      feedLater(errors, weight, columns, factor, column, some, first, count)
    }
  }
}

/** side[j][i] = w[i][j]; rows past the last repeat it. */
export function turn(side: usize, w: usize, stride: usize, rows: i32, columns: i32): void {
  for (let i = 0; i < 16; i++) {
    const p = w + <usize>min(i, rows - 1) * stride
    let out = side + <usize>(i << 2)
    for (let j = 0; j < columns; j++, out += 64) store<f32>(out, load<f32>(p + (<usize>j << 2)))
  }
}

export function turnBack(w: usize, side: usize, stride: usize, rows: i32, columns: i32): void {
  for (let i = 0; i < rows; i++) {
    const p = w + <usize>i * stride
    let from = side + <usize>(i << 2)
    for (let j = 0; j < columns; j++, from += 64) store<f32>(p + (<usize>j << 2), load<f32>(from))
  }
}

/** The scales (or zeros) of four rows from `row` on, in column `block` of the scales. */
// @ts-ignore: decorator
@inline
export function four(p: usize, across: i32, blockRows: i32, row: i32, last: i32, block: i32): v128 {
  let v = v128.load32_splat(p + (<usize>((min(row, last) / blockRows) * across + block) << 2))
  v = v128.load32_lane(p + (<usize>((min(row + 1, last) / blockRows) * across + block) << 2), v, 1)
  v = v128.load32_lane(p + (<usize>((min(row + 2, last) / blockRows) * across + block) << 2), v, 2)
  return v128.load32_lane(
    p + (<usize>((min(row + 3, last) / blockRows) * across + block) << 2),
    v,
    3,
  )
}

function roundBlock(
  side: usize,
  bytes: usize,
  errors: usize,
  factor: usize,
  stride: usize,
  column: i32,
  columns: i32,
  scale: usize,
  zero: usize,
  across: i32,
  blockRows: i32,
  row: i32,
  rows: i32,
  blocks: usize,
  grid: usize,
  tableRows: i32,
  tablesAcross: i32,
  tableBlocks: usize,
): void {
  const last = row + rows - 1
  let block = -1
  let s0 = f32x4.splat(0)
  let s1 = s0
  let s2 = s0
  let s3 = s0
  let z0 = s0
  let z1 = s0
  let z2 = s0
  let z3 = s0
  for (let j = 0; j < columns; j++) {
    const now = load<i32>(blocks + (<usize>(column + j) << 2))
    if (now != block) {
      block = now
      s0 = four(scale, across, blockRows, row, last, block)
      s1 = four(scale, across, blockRows, row + 4, last, block)
      s2 = four(scale, across, blockRows, row + 8, last, block)
      s3 = four(scale, across, blockRows, row + 12, last, block)
      if (zero) {
        z0 = four(zero, across, blockRows, row, last, block)
        z1 = four(zero, across, blockRows, row + 4, last, block)
        z2 = four(zero, across, blockRows, row + 8, last, block)
        z3 = four(zero, across, blockRows, row + 12, last, block)
      }
    }
    // Row column + j of U, from its diagonal on.
    const u = factor + <usize>(column + j) * stride + (<usize>(column + j) << 2)
    const d = v128.load32_splat(u)
    const w = side + (<usize>j << 6)
    const e = errors + <usize>j * (ROWS * 4)
    const c = bytes + (<usize>j << 4)
    const t = load<i32>(tableBlocks + (<usize>(column + j) << 2))
    const e0 = roundFour(grid, tableRows, tablesAcross, row, last, t, w, c, e, s0, z0, d)
    const e1 = roundFour(grid, tableRows, tablesAcross, row + 4, last, t,
      w + 16, c + 4, e + 16, s1, z1, d)
    const e2 = roundFour(grid, tableRows, tablesAcross, row + 8, last, t,
      w + 32, c + 8, e + 32, s2, z2, d)
    const e3 = roundFour(grid, tableRows, tablesAcross, row + 12, last, t,
      w + 48, c + 12, e + 48, s3, z3, d)
    let p = w + 64
    const end = columns - j
    for (let k = 1; k < end; k++, p += 64) {
      const f = v128.load32_splat(u + (<usize>k << 2))
      v128.store(p, fnma(e0, f, v128.load(p)))
      v128.store(p, fnma(e1, f, v128.load(p, 16)), 16)
      v128.store(p, fnma(e2, f, v128.load(p, 32)), 32)
      v128.store(p, fnma(e3, f, v128.load(p, 48)), 48)
    }
  }
}

/** Rounds four rows of one column; returns e = (w − q) / U_jj. */
// @ts-ignore: decorator
@inline
function roundFour(
  grid: usize,
  tableRows: i32,
  tablesAcross: i32,
  row: i32,
  last: i32,
  block: i32,
  p: usize,
  codes: usize,
  errors: usize,
  s: v128,
  z: v128,
  d: v128,
): v128 {
  const w = v128.load(p)
  const q = nearest(grid, tableRows, tablesAcross, row, last, block, w, s, z, codes)
  const e = f32x4.div(f32x4.sub(w, q), d)
  v128.store(p, q)
  v128.store(errors, e)
  return e
}

/** The values nearest to w for four rows of one column, from `row` on; their codes go to `codes`. */
// @ts-ignore: decorator
@inline
export function nearest(
  grid: usize,
  tableRows: i32,
  tablesAcross: i32,
  row: i32,
  last: i32,
  block: i32,
  w: v128,
  s: v128,
  z: v128,
  codes: usize,
): v128 {
  const first = tableAt(grid, tableRows, tablesAcross, min(row, last), block)
  const fourth = tableAt(grid, tableRows, tablesAcross, min(row + 3, last), block)
  if (first == fourth) {
    const at = place(first, w, s, z)
    store<u32>(codes, codesAt(first, at))
    return valuesAt(first, at, s, z)
  }
  const second = tableAt(grid, tableRows, tablesAcross, min(row + 1, last), block)
  const third = tableAt(grid, tableRows, tablesAcross, min(row + 2, last), block)
  const at = placeRows(first, second, third, fourth, w, s, z)
  store<u32>(codes, codesAtRows(first, second, third, fourth, at))
  return valuesAtRows(first, second, third, fourth, at, s, z)
}

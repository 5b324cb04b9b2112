/**
 * One sweep of coordinate descent on (w − q)(H + λ1)(w − q)ᵀ over the columns [from, to): each code in turn
 * becomes the nearest to q_j + g_j / (H_jj + λ), where g = (w − q)(H + λ1) with all other codes held.
 * The host computes g of the block before the call; inside the block it is kept up to date. Rows
 * are independent: a task is 16 of them, turned on their side ([column][16 rows]).
 */

import { four, nearest, turn, turnBack } from './feedback'
import { fnma } from './simd'
import { take, thread } from './threads'

const BLOCK = 128
const SIDE: usize = BLOCK * 16 * 4

export function descend(
  codes: usize,
  weight: usize,
  decoded: usize,
  gradient: usize,
  rows: i32,
  columns: i32,
  hessian: usize,
  damping: f32,
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
  const w = scratch + thread * room
  const q = w + SIDE
  const g = q + SIDE
  const bytes = g + SIDE
  const stride = <usize>columns << 2
  const some = to - from
  const across4 = <usize>some << 2
  const tasks = (rows + 15) >> 4
  for (let task = take(); task < tasks; task = take()) {
    const row = task << 4
    const high = min(16, rows - row)
    const start = <usize>row * stride + (<usize>from << 2)
    turn(w, weight + start, stride, high, some)
    turn(q, decoded + start, stride, high, some)
    turn(g, gradient + <usize>row * across4, across4, high, some)
    descendBlock(w, q, g, bytes, hessian, stride, damping, from, some,
      scale, zero, across, blockRows, row, high, blocks, grid,
      tableRows, tablesAcross, tableBlocks)
    turnBack(decoded + start, q, stride, high, some)
    for (let i = 0; i < high; i++) {
      const out = codes + <usize>(row + i) * <usize>columns + <usize>from
      for (let j = 0; j < some; j++) store<u8>(out + j, load<u8>(bytes + (<usize>j << 4) + i))
    }
  }
}

function descendBlock(
  w: usize,
  q: usize,
  g: usize,
  bytes: usize,
  hessian: usize,
  stride: usize,
  damping: f32,
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
  const lambda = f32x4.splat(damping)
  for (let j = 0; j < columns; j++) {
    const block = load<i32>(blocks + (<usize>(column + j) << 2))
    const table = load<i32>(tableBlocks + (<usize>(column + j) << 2))
    const h = hessian + <usize>(column + j) * stride + (<usize>column << 2)
    const power = load<f32>(h + (<usize>j << 2)) + damping
    const at = <usize>j << 6
    for (let r = 0; r < 4; r++) {
      const lane = at + (<usize>r << 4)
      const s = four(scale, across, blockRows, row + (r << 2), last, block)
      const z = zero ? four(zero, across, blockRows, row + (r << 2), last, block) : f32x4.splat(0)
      const old = v128.load(q + lane)
      // The damping's own part of the gradient changes with each step, so it is added here.
      const slope = fnma(lambda, f32x4.sub(old, v128.load(w + lane)), v128.load(g + lane))
      const target = power > 0 ? f32x4.add(old, f32x4.div(slope, f32x4.splat(power))) : old
      const value = nearest(grid, tableRows, tablesAcross, row + (r << 2), last, table,
        target, s, z, bytes + (<usize>j << 4) + (<usize>r << 2))
      v128.store(q + lane, value)
      const step = f32x4.sub(value, old)
      if (!v128.any_true(f32x4.ne(step, f32x4.splat(0)))) continue
      for (let k = j + 1; k < columns; k++) {
        const p = g + (<usize>k << 6) + (<usize>r << 4)
        v128.store(p, fnma(step, v128.load32_splat(h + (<usize>k << 2)), v128.load(p)))
      }
    }
  }
}

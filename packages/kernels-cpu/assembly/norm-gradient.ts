/**
 * Norms backward. With u = (x − μ) · f, f = 1 / √(mean((x − μ)²) + ε), μ = 0 in an RMS norm, and d = dy ∘ gain:
 *
 *   dx = f · (d − mean(d) − u · mean(d ∘ u)),  dgain = Σ dy ∘ u,  dbias = Σ dy
 *
 * without mean(d) in an RMS norm.
 */

import { fma, loadSome, storeSome, sum } from './simd'
import { take, thread } from './threads'

/** dx += …; `stats` [rows][2] takes μ and f of each row. A task is a row. */
export function normGradient(
  dx: usize,
  out: usize,
  x: usize,
  gain: usize,
  rows: i32,
  columns: i32,
  epsilon: f32,
  centered: i32,
  stats: usize,
): void {
  const stride = <usize>columns << 2
  for (let row = take(); row < rows; row = take()) {
    const p = x + <usize>row * stride
    const dy = out + <usize>row * stride
    const to = dx + <usize>row * stride
    let center: f32 = 0
    if (centered) {
      let total = f32x4.splat(0)
      for (let i = 0; i < columns; i += 4) {
        total = f32x4.add(total, loadSome(p + (<usize>i << 2), columns - i))
      }
      center = sum(total) / <f32>columns
    }
    const middle = f32x4.splat(center)
    let squares = f32x4.splat(0)
    let level = f32x4.splat(0)
    let along = f32x4.splat(0)
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const d = f32x4.mul(loadSome(dy + at, columns - i), loadSome(gain + at, columns - i))
      let u = f32x4.sub(loadSome(p + at, columns - i), middle)
      if (i + 4 > columns) u = v128.and(u, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(columns - i)))
      squares = fma(u, u, squares)
      level = f32x4.add(level, d)
      along = fma(d, u, along)
    }
    const count = <f32>columns
    const factor: f32 = <f32>1 / sqrt<f32>(sum(squares) / count + epsilon)
    const f = f32x4.splat(factor)
    const low = f32x4.splat(centered ? sum(level) / count : 0)
    const slope = f32x4.splat((sum(along) * factor * factor) / count)
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const d = f32x4.mul(v128.load(dy + at), v128.load(gain + at))
      const u = f32x4.sub(v128.load(p + at), middle)
      const change = f32x4.sub(f32x4.sub(d, low), f32x4.mul(u, slope))
      storeSome(to + at, fma(change, f, v128.load(to + at)), columns - i)
    }
    store<f32>(stats + (<usize>row << 3), center)
    store<f32>(stats + (<usize>row << 3), factor, 4)
  }
}

/** Columns of a task. */
const SOME = 256

/**
 * gain += Σ dy ∘ u, bias += Σ dy over the rows, summed in f64 in the order of the rows; either may be 0. `scratch`:
 * for each thread 2 × 256 f64.
 */
export function normSums(
  gain: usize,
  bias: usize,
  out: usize,
  x: usize,
  stats: usize,
  rows: i32,
  columns: i32,
  scratch: usize,
  room: usize,
): void {
  const sums = scratch + thread * room
  const levels = sums + SOME * 8
  const tasks = (columns + SOME - 1) / SOME
  for (let task = take(); task < tasks; task = take()) {
    const first = task * SOME
    const count = min(SOME, columns - first)
    memory.fill(sums, 0, SOME * 16)
    for (let row = 0; row < rows; row++) {
      const at = (<usize>row * <usize>columns + <usize>first) << 2
      const center = f32x4.splat(load<f32>(stats + (<usize>row << 3)))
      const factor = f32x4.splat(load<f32>(stats + (<usize>row << 3), 4))
      for (let i = 0; i < count; i += 4) {
        const o = <usize>i << 2
        const dy = v128.load(out + at + o)
        const u = f32x4.mul(f32x4.sub(v128.load(x + at + o), center), factor)
        addWide(sums + (o << 1), f32x4.mul(dy, u))
        addWide(levels + (o << 1), dy)
      }
    }
    if (gain) addNarrow(gain + (<usize>first << 2), sums, count)
    if (bias) addNarrow(bias + (<usize>first << 2), levels, count)
  }
}

// @ts-ignore: decorator
@inline
function addWide(to: usize, v: v128): void {
  const high = v128.shuffle<i64>(v, v, 1, 0)
  v128.store(to, f64x2.add(v128.load(to), f64x2.promote_low_f32x4(v)))
  v128.store(to, f64x2.add(v128.load(to, 16), f64x2.promote_low_f32x4(high)), 16)
}

function addNarrow(to: usize, sums: usize, count: i32): void {
  for (let i = 0; i < count; i++, to += 4, sums += 8) {
    store<f32>(to, <f32>(<f64>load<f32>(to) + load<f64>(sums)))
  }
}

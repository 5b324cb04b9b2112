/** What a weight is besides its codes: a bias of columns, single entries, rotations. */

import { take, thread } from './threads'

/** dots[t] = Σ_k x[t, k] · bias[k]. */
export function rowDots(dots: usize, x: usize, rows: i32, columns: i32, bias: usize): void {
  for (let row = take(); row < rows; row = take()) {
    const p = x + (<usize>row * <usize>columns << 2)
    let sum: f64 = 0
    for (let k: usize = 0; k < <usize>columns << 2; k += 4) {
      sum += <f64>load<f32>(p + k) * <f64>load<f32>(bias + k)
    }
    store<f32>(dots + (<usize>row << 2), <f32>sum)
  }
}

/** Outputs of a task. */
const SOME = 256

/**
 * out[t, n] += dots[t] + Σ of the entries of row n · x[t, their column]. `dots` 0: none; `starts` [n + 1], `at`
 * (columns) and `values` are the entries row by row, or 0.
 */
export function addTerms(
  out: usize,
  x: usize,
  rows: i32,
  columns: i32,
  n: i32,
  dots: usize,
  starts: usize,
  at: usize,
  values: usize,
): void {
  const parts = (n + SOME - 1) / SOME
  for (let task = take(); task < rows * parts; task = take()) {
    const row = task / parts
    const first = (task % parts) * SOME
    const from = x + (<usize>row * <usize>columns << 2)
    const to = out + (<usize>row * <usize>n << 2)
    const plus: f32 = dots ? load<f32>(dots + (<usize>row << 2)) : 0
    for (let i = first; i < min(n, first + SOME); i++) {
      let sum = plus
      if (starts) {
        const end = load<u32>(starts + (<usize>i << 2), 4)
        for (let j = load<u32>(starts + (<usize>i << 2)); j < end; j++) {
          const k = load<u32>(at + (<usize>j << 2))
          sum += load<f32>(values + (<usize>j << 2)) * load<f32>(from + (<usize>k << 2))
        }
      }
      const p = to + (<usize>i << 2)
      store<f32>(p, load<f32>(p) + sum)
    }
  }
}

/** The same added to rows of the weight itself: out[i] += bias + entries of row indices[i] (or i). */
export function addRows(
  out: usize,
  count: i32,
  columns: i32,
  indices: usize,
  bias: usize,
  starts: usize,
  at: usize,
  values: usize,
): void {
  for (let task = take(); task < count; task = take()) {
    const row = indices ? load<i32>(indices + (<usize>task << 2)) : task
    const to = out + (<usize>task * <usize>columns << 2)
    if (bias) {
      for (let k: usize = 0; k < <usize>columns << 2; k += 4) {
        store<f32>(to + k, load<f32>(to + k) + load<f32>(bias + k))
      }
    }
    if (!starts) continue
    const end = load<u32>(starts + (<usize>row << 2), 4)
    for (let j = load<u32>(starts + (<usize>row << 2)); j < end; j++) {
      const p = to + (<usize>load<u32>(at + (<usize>j << 2)) << 2)
      store<f32>(p, load<f32>(p) + load<f32>(values + (<usize>j << 2)))
    }
  }
}

// @ts-ignore: decorator
@inline
function sign(signs: usize, i: i32): f32 {
  return (load<u8>(signs + <usize>(i >> 3)) >> <u8>(i & 7)) & 1 ? -1 : 1
}

/**
 * out[t] (+)= R·x[t] with R = H·diag(signs) in blocks, or Rᵀ·x[t] (`back`); H orthonormal. A task is a row; out and x
 * may be the same without `add`. `scratch`: a block of floats for each thread.
 */
export function rotate(
  out: usize,
  x: usize,
  rows: i32,
  columns: i32,
  block: i32,
  signs: usize,
  back: i32,
  add: i32,
  scratch: usize,
  room: usize,
): void {
  const side = scratch + thread * room
  const norm = <f32>(1 / Math.sqrt(<f64>block))
  for (let row = take(); row < rows; row = take()) {
    const base = <usize>row * <usize>columns << 2
    for (let from = 0; from < columns; from += block) {
      const p = x + base + (<usize>from << 2)
      for (let i = 0; i < block; i++) {
        const factor = back ? norm : norm * sign(signs, from + i)
        store<f32>(side + (<usize>i << 2), load<f32>(p + (<usize>i << 2)) * factor)
      }
      hadamard(side, block)
      const q = out + base + (<usize>from << 2)
      for (let i = 0; i < block; i++) {
        let value = load<f32>(side + (<usize>i << 2))
        if (back) value *= sign(signs, from + i)
        const at = q + (<usize>i << 2)
        store<f32>(at, add ? load<f32>(at) + value : value)
      }
    }
  }
}

export function hadamard(p: usize, size: i32): void {
  for (let half = 1; half < size; half <<= 1) {
    const step = <usize>half << 2
    for (let start = p; start < p + (<usize>size << 2); start += step * 2) {
      const end = start + step
      if (half >= 4) {
        for (let q = start; q < end; q += 16) {
          const a = v128.load(q)
          const b = v128.load(q + step)
          v128.store(q, f32x4.add(a, b))
          v128.store(q + step, f32x4.sub(a, b))
        }
        continue
      }
      for (let q = start; q < end; q += 4) {
        const a = load<f32>(q)
        const b = load<f32>(q + step)
        store<f32>(q, a + b)
        store<f32>(q + step, a - b)
      }
    }
  }
}

/**
 * Rows of a rotated weight: out[i] = row `row` of Rᵀ·W is ± Σ_j ± W[j] / √block over its block, which
 * x [block][columns] holds from row `first` on; the sign of j is that of H at (j, row).
 */
export function rotatedRow(
  out: usize,
  x: usize,
  columns: i32,
  block: i32,
  signs: usize,
  first: i32,
  row: i32,
): void {
  const own = <f32>(1 / Math.sqrt(<f64>block)) * sign(signs, row)
  for (let k: usize = 0; k < <usize>columns << 2; k += 4) {
    let sum: f32 = 0
    let p = x + k
    for (let j = 0; j < block; j++, p += <usize>columns << 2) {
      const odd = popcnt<i32>(j & (row - first)) & 1
      sum += odd ? -load<f32>(p) : load<f32>(p)
    }
    store<f32>(out + k, sum * own)
  }
}

/**
 * The small steps of factorInverse (the host's src/algebra/factor.ts strings them together with
 * GEMMs): the permuted and reversed copy, the factor of a diagonal block, the way back.
 */

import { take } from './threads'

/**
 * out[i][j] = H[o(i)][o(j)] + damping·1, where o(i) = order[n − 1 − i]: the last becomes first.
 * Upper triangle only.
 */
export function reverse(out: usize, h: usize, n: i32, order: usize, damping: f32): void {
  for (let row = take(); row < n; row = take()) {
    const from = h + ((<usize>original(order, n - 1 - row) * <usize>n) << 2)
    const to = out + ((<usize>row * <usize>n) << 2)
    for (let column = row; column < n; column++) {
      let value = load<f32>(from + (<usize>original(order, n - 1 - column) << 2))
      if (column == row) value += damping
      store<f32>(to + (<usize>column << 2), value)
    }
  }
}

// @ts-ignore: decorator
@inline
function original(order: usize, i: i32): i32 {
  return order ? load<i32>(order + (<usize>i << 2)) : i
}

/**
 * In place: the upper R of an upper block, A = RᵀR; and its inverse's transpose, D = R⁻ᵀ, lower,
 * [size][size] with zeros above. Sums are in f64. Returns 0 where a pivot is not positive.
 * `room`: size² doubles.
 */
export function factorBlock(a: usize, stride: usize, size: i32, d: usize, room: usize): i32 {
  // L = Rᵀ in f64, row-major: rows are read together.
  for (let i = 0; i < size; i++) {
    const li = room + (<usize>(i * size) << 3)
    for (let j = 0; j <= i; j++) {
      const lj = room + (<usize>(j * size) << 3)
      let value = <f64>load<f32>(a + <usize>j * stride + (<usize>i << 2))
      value -= dot(li, lj, j)
      if (i == j) {
        if (!(value > 0) || value == Infinity) return 0
        store<f64>(li + (<usize>i << 3), sqrt(value))
      } else store<f64>(li + (<usize>j << 3), value / load<f64>(lj + (<usize>j << 3)))
    }
  }
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      store<f32>(
        a + <usize>j * stride + (<usize>i << 2),
        <f32>load<f64>(room + (<usize>(i * size + j) << 3)),
      )
    }
  }
  // D = L⁻¹ by columns, over L's upper half: D[i][j] kept at [j][i], except the diagonal.
  for (let j = 0; j < size; j++) {
    const dj = room + (<usize>(j * size) << 3)
    const diagonal = 1 / load<f64>(dj + (<usize>j << 3))
    for (let i = j + 1; i < size; i++) {
      const li = room + (<usize>(i * size) << 3)
      let value = load<f64>(li + (<usize>j << 3)) * diagonal
      for (let k = j + 1; k < i; k++) {
        value += load<f64>(li + (<usize>k << 3)) * load<f64>(dj + (<usize>k << 3))
      }
      store<f64>(dj + (<usize>i << 3), -value / load<f64>(li + (<usize>i << 3)))
    }
  }
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) {
      let value: f64 = 0
      if (j < i) value = load<f64>(room + (<usize>(j * size + i) << 3))
      else if (j == i) value = 1 / load<f64>(room + (<usize>(i * size + i) << 3))
      store<f32>(d + (<usize>(i * size + j) << 2), <f32>value)
    }
  }
  return 1
}

/** Σ of the first `count` products, in two chains. */
// @ts-ignore: decorator
@inline
function dot(a: usize, b: usize, count: i32): f64 {
  let total = f64x2.splat(0)
  let i = 0
  for (; i + 2 <= count; i += 2) {
    const at = <usize>i << 3
    total = f64x2.add(total, f64x2.mul(v128.load(a + at), v128.load(b + at)))
  }
  let value = f64x2.extract_lane(total, 0) + f64x2.extract_lane(total, 1)
  if (i < count) value += load<f64>(a + (<usize>i << 3)) * load<f64>(b + (<usize>i << 3))
  return value
}

/** out[i][j] = d[j][i]: the diagonal block of the inverse. */
export function transposeBlock(out: usize, stride: usize, d: usize, size: i32): void {
  for (let i = take(); i < size; i = take()) {
    for (let j = 0; j < size; j++) {
      store<f32>(
        out + <usize>i * stride + (<usize>j << 2),
        load<f32>(d + (<usize>(j * size + i) << 2)),
      )
    }
  }
}

/** out[i][j] = v[n − 1 − j][n − 1 − i] for j ≥ i, 0 below: mirrored at the other diagonal. */
export function antiTranspose(out: usize, v: usize, n: i32): void {
  const tasks = (n + 15) >> 4
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) << 4, n)
    for (let j = 0; j < n; j++) {
      const from = v + ((<usize>(n - 1 - j) * <usize>n) << 2)
      for (let i = task << 4; i < end; i++) {
        const value: f32 = j < i ? 0 : load<f32>(from + (<usize>(n - 1 - i) << 2))
        store<f32>(out + ((<usize>i * <usize>n + <usize>j) << 2), value)
      }
    }
  }
}

export function diagonal(out: usize, matrix: usize, n: i32): void {
  for (let task = take(); task < 1; task = take()) {
    for (let i = 0; i < n; i++) {
      store<f32>(out + (<usize>i << 2), load<f32>(matrix + ((<usize>i * <usize>n + <usize>i) << 2)))
    }
  }
}

/** out[r, i] = x[r, order[i]]. */
export function permuteColumns(
  out: usize,
  x: usize,
  rows: i32,
  columns: i32,
  xColumns: i32,
  order: usize,
): void {
  for (let row = take(); row < rows; row = take()) {
    const to = out + ((<usize>row * <usize>columns) << 2)
    const source = x + ((<usize>row * <usize>xColumns) << 2)
    for (let i = 0; i < columns; i++) {
      const from = load<u32>(order + (<usize>i << 2))
      store<f32>(to + (<usize>i << 2), load<f32>(source + (<usize>from << 2)))
    }
  }
}

/** out = a − b; b 0: a copy. A task is a row. */
export function difference(out: usize, a: usize, b: usize, rows: i32, columns: i32): void {
  for (let row = take(); row < rows; row = take()) {
    const start = (<usize>row * <usize>columns) << 2
    for (let i = 0; i < columns; i++) {
      const at = start + (<usize>i << 2)
      store<f32>(out + at, b ? load<f32>(a + at) - load<f32>(b + at) : load<f32>(a + at))
    }
  }
}

/** out[r] (f64) = Σ a[r, i] · b[r, i], products and sums in f64. */
export function rowProducts(out: usize, a: usize, b: usize, rows: i32, columns: i32): void {
  for (let row = take(); row < rows; row = take()) {
    const start = (<usize>row * <usize>columns) << 2
    let total: f64 = 0
    for (let i = 0; i < columns; i++) {
      const at = start + (<usize>i << 2)
      total += <f64>load<f32>(a + at) * <f64>load<f32>(b + at)
    }
    store<f64>(out + (<usize>row << 3), total)
  }
}

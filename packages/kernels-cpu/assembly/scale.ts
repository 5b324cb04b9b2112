/** Moments of columns, and scaling by rows and columns: a task is 16 columns, or 16 rows. */

import { take } from './threads'

/** out [4][columns]: mean, mean of squares, least, largest. Sums in f64, in the order of the rows. */
export function columnMoments(out: usize, x: usize, rows: i32, columns: i32): void {
  const tasks = (columns + 15) >> 4
  const stride = <usize>columns << 2
  for (let task = take(); task < tasks; task = take()) {
    const to = min(columns, (task + 1) << 4)
    for (let column = task << 4; column < to; column++) {
      let p = x + (<usize>column << 2)
      let sum: f64 = 0
      let squares: f64 = 0
      let least: f32 = Infinity
      let largest: f32 = -Infinity
      for (let row = 0; row < rows; row++, p += stride) {
        const value = load<f32>(p)
        sum += <f64>value
        squares += <f64>value * <f64>value
        least = min(least, value)
        largest = max(largest, value)
      }
      const q = out + (<usize>column << 2)
      store<f32>(q, <f32>(sum / <f64>rows))
      store<f32>(q + stride, <f32>(squares / <f64>rows))
      store<f32>(q + stride * 2, least)
      store<f32>(q + stride * 3, largest)
    }
  }
}

export function scale(
  out: usize,
  x: usize,
  rows: i32,
  columns: i32,
  row: usize,
  column: usize,
  bias: usize,
): void {
  const tasks = (rows + 15) >> 4
  const stride = <usize>columns << 2
  for (let task = take(); task < tasks; task = take()) {
    const to = min(rows, (task + 1) << 4)
    for (let r = task << 4; r < to; r++) {
      const p = x + <usize>r * stride
      const q = out + <usize>r * stride
      const factor = row ? load<f32>(row + (<usize>r << 2)) : <f32>1
      const factors = f32x4.splat(factor)
      let k: usize = 0
      for (; k + 16 <= stride; k += 16) {
        let v = v128.load(p + k)
        if (bias) v = f32x4.sub(v, v128.load(bias + k))
        v = f32x4.mul(v, factors)
        if (column) v = f32x4.mul(v, v128.load(column + k))
        v128.store(q + k, v)
      }
      for (; k < stride; k += 4) {
        let v = load<f32>(p + k)
        if (bias) v -= load<f32>(bias + k)
        v *= factor
        if (column) v *= load<f32>(column + k)
        store<f32>(q + k, v)
      }
    }
  }
}

export function times(x: usize, y: usize, rows: i32, columns: i32): void {
  const tasks = (rows + 15) >> 4
  const stride = <usize>columns << 2
  for (let task = take(); task < tasks; task = take()) {
    const from = <usize>(task << 4) * stride
    const to = <usize>min(rows, (task + 1) << 4) * stride
    let k = from
    for (; k + 16 <= to; k += 16) {
      v128.store(x + k, f32x4.mul(v128.load(x + k), v128.load(y + k)))
    }
    for (; k < to; k += 4) store<f32>(x + k, load<f32>(x + k) * load<f32>(y + k))
  }
}

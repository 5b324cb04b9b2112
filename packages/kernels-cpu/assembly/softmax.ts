/** Softmax and what is measured with it. A task is a row. */

import { exp4 } from './exp'
import { largest, loadSome, storeSome, sum } from './simd'
import { take } from './threads'

/** The largest of a row, NaN aside. */
export function peak(p: usize, count: i32): f32 {
  let most = f32x4.splat(-Infinity)
  let other = most
  let i = 0
  for (; i + 8 <= count; i += 8) {
    most = f32x4.pmax(most, v128.load(p + (<usize>i << 2)))
    other = f32x4.pmax(other, v128.load(p + (<usize>i << 2), 16))
  }
  let value = largest(f32x4.pmax(most, other))
  for (; i < count; i++) value = max(value, load<f32>(p + (<usize>i << 2)))
  return value
}

/** In place: e^(x·scale − peak·scale), and the reciprocal of its sum as the result. */
export function exponentials(p: usize, count: i32, scale: f32): f32 {
  return 1 / weigh(p, count, scale, peak(p, count) * scale)
}

/** In place: e^(x·scale − most), and its sum as the result. */
export function weigh(p: usize, count: i32, scale: f32, most: f32): f32 {
  const shift = f32x4.splat(most)
  const factor = f32x4.splat(scale)
  let total = f32x4.splat(0)
  const whole = count & ~3
  for (const end = p + (<usize>whole << 2); p < end; p += 16) {
    const e = exp4(f32x4.sub(f32x4.mul(v128.load(p), factor), shift))
    total = f32x4.add(total, e)
    v128.store(p, e)
  }
  if (whole < count) {
    let e = exp4(f32x4.sub(f32x4.mul(v128.load(p), factor), shift))
    e = v128.and(e, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(count - whole)))
    total = f32x4.add(total, e)
    storeSome(p, e, count - whole)
  }
  return sum(total)
}

/** In place: the softmax of `count` scores times `scale`. Up to three numbers behind them are overwritten. */
export function probabilities(p: usize, count: i32, scale: f32): void {
  const factor = f32x4.splat(exponentials(p, count, scale))
  for (let i = 0; i < count; i += 4) {
    const at = p + (<usize>i << 2)
    v128.store(at, f32x4.mul(v128.load(at), factor))
  }
}

export function softmax(x: usize, rows: i32, columns: i32): void {
  for (let row = take(); row < rows; row = take()) {
    const p = x + ((<usize>row * <usize>columns) << 2)
    const factor = f32x4.splat(exponentials(p, columns, 1))
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      storeSome(p + at, f32x4.mul(v128.load(p + at), factor), columns - i)
    }
  }
}

/** Σ e^(x − peak) in f64. */
export function partition(p: usize, count: i32, most: f32): f64 {
  const shift = f32x4.splat(most)
  let total = f64x2.splat(0)
  for (let i = 0; i < count; i += 4) {
    let e = exp4(f32x4.sub(loadSome(p + (<usize>i << 2), count - i), shift))
    if (i + 4 > count) e = v128.and(e, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(count - i)))
    total = f64x2.add(total, f64x2.promote_low_f32x4(e))
    total = f64x2.add(total, f64x2.promote_low_f32x4(v128.shuffle<i64>(e, e, 1, 0)))
  }
  return f64x2.extract_lane(total, 0) + f64x2.extract_lane(total, 1)
}

/**
 * parts[row] = (Σ e^(x − peak), peak − x[target]), f64: the host takes the logarithm of the sum,
 * since there is none in WebAssembly.
 */
export function entropyParts(
  parts: usize,
  logits: usize,
  rows: i32,
  columns: i32,
  targets: usize,
): void {
  for (let row = take(); row < rows; row = take()) {
    const p = logits + ((<usize>row * <usize>columns) << 2)
    const most = peak(p, columns)
    const target = load<u32>(targets + (<usize>row << 2))
    const out = parts + (<usize>row << 4)
    store<f64>(out, partition(p, columns, most))
    store<f64>(out, <f64>most - <f64>load<f32>(p + (<usize>target << 2)), 8)
  }
}

/**
 * KL = Σ p·(r − x) / Σ p − (peak_r + ln Z_r) + (peak_x + ln Z_x), p = e^(r − peak_r).
 * parts[row] = (Z_r, Z_x, the terms without logarithms), f64.
 */
export function divergenceParts(
  parts: usize,
  reference: usize,
  logits: usize,
  rows: i32,
  columns: i32,
): void {
  for (let row = take(); row < rows; row = take()) {
    const start = (<usize>row * <usize>columns) << 2
    const r = reference + start
    const x = logits + start
    const mostR = peak(r, columns)
    const mostX = peak(x, columns)
    const shiftR = f32x4.splat(mostR)
    const shiftX = f32x4.splat(mostX)
    let total = f64x2.splat(0)
    let weighted = f64x2.splat(0)
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const a = f32x4.sub(loadSome(r + at, columns - i), shiftR)
      const b = f32x4.sub(loadSome(x + at, columns - i), shiftX)
      let e = exp4(a)
      if (i + 4 > columns) e = v128.and(e, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(columns - i)))
      const e0 = f64x2.promote_low_f32x4(e)
      const e1 = f64x2.promote_low_f32x4(v128.shuffle<i64>(e, e, 1, 0))
      const d0 = f64x2.sub(f64x2.promote_low_f32x4(a), f64x2.promote_low_f32x4(b))
      const d1 = f64x2.sub(
        f64x2.promote_low_f32x4(v128.shuffle<i64>(a, a, 1, 0)),
        f64x2.promote_low_f32x4(v128.shuffle<i64>(b, b, 1, 0)),
      )
      total = f64x2.add(f64x2.add(total, e0), e1)
      weighted = f64x2.add(f64x2.add(weighted, f64x2.mul(e0, d0)), f64x2.mul(e1, d1))
    }
    const z = f64x2.extract_lane(total, 0) + f64x2.extract_lane(total, 1)
    const w = f64x2.extract_lane(weighted, 0) + f64x2.extract_lane(weighted, 1)
    const out = parts + <usize>row * 24
    store<f64>(out, z)
    store<f64>(out, partition(x, columns, mostX), 8)
    store<f64>(out, w / z, 16)
  }
}

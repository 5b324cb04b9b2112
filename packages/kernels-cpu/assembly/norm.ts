/** Norms, addition, rotary positions and activations. A task is a row. */

import { exp4 } from './exp'
import { fma, loadSome, storeSome, sum } from './simd'
import { take } from './threads'

export function rmsNorm(
  out: usize,
  x: usize,
  gain: usize,
  rows: i32,
  columns: i32,
  epsilon: f32,
): void {
  const stride = <usize>columns << 2
  for (let row = take(); row < rows; row = take()) {
    const p = x + <usize>row * stride
    let squares = f32x4.splat(0)
    for (let i = 0; i < columns; i += 4) {
      const v = loadSome(p + (<usize>i << 2), columns - i)
      squares = fma(v, v, squares)
    }
    const factor = f32x4.splat(<f32>1 / sqrt<f32>(sum(squares) / <f32>columns + epsilon))
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const v = f32x4.mul(f32x4.mul(v128.load(p + at), factor), v128.load(gain + at))
      storeSome(out + <usize>row * stride + at, v, columns - i)
    }
  }
}

export function layerNorm(
  out: usize,
  x: usize,
  gain: usize,
  bias: usize,
  rows: i32,
  columns: i32,
  epsilon: f32,
): void {
  const stride = <usize>columns << 2
  for (let row = take(); row < rows; row = take()) {
    const p = x + <usize>row * stride
    let total = f32x4.splat(0)
    for (let i = 0; i < columns; i += 4) {
      total = f32x4.add(total, loadSome(p + (<usize>i << 2), columns - i))
    }
    const mean = sum(total) / <f32>columns
    let squares = f32x4.splat(0)
    for (let i = 0; i < columns; i += 4) {
      let d = f32x4.sub(v128.load(p + (<usize>i << 2)), f32x4.splat(mean))
      if (i + 4 > columns) d = v128.and(d, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(columns - i)))
      squares = fma(d, d, squares)
    }
    const factor: f32 = <f32>1 / sqrt<f32>(sum(squares) / <f32>columns + epsilon)
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const d = f32x4.mul(f32x4.sub(v128.load(p + at), f32x4.splat(mean)), f32x4.splat(factor))
      let v = f32x4.mul(d, v128.load(gain + at))
      if (bias) v = f32x4.add(v, v128.load(bias + at))
      storeSome(out + <usize>row * stride + at, v, columns - i)
    }
  }
}

/** x += y; `next`: bytes from row to row of y, 0 where all take the same. */
export function add(x: usize, y: usize, rows: i32, columns: i32, next: usize): void {
  for (let row = take(); row < rows; row = take()) {
    const p = x + <usize>row * (<usize>columns << 2)
    const q = y + <usize>row * next
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      storeSome(p + at, f32x4.add(v128.load(p + at), v128.load(q + at)), columns - i)
    }
  }
}

export function rope(
  x: usize,
  cos: usize,
  sin: usize,
  rows: i32,
  columns: i32,
  size: i32,
  start: i32,
): void {
  const half = size >> 1
  const heads = columns / size
  for (let row = take(); row < rows; row = take()) {
    const at = (<usize>(start + row) * <usize>half) << 2
    for (let head = 0; head < heads; head++) {
      const p = x + ((<usize>row * <usize>columns + <usize>(head * size)) << 2)
      const q = p + (<usize>half << 2)
      for (let i = 0; i < half; i += 4) {
        const o = <usize>i << 2
        const c = v128.load(cos + at + o)
        const s = v128.load(sin + at + o)
        const a = v128.load(p + o)
        const b = v128.load(q + o)
        storeSome(p + o, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)), half - i)
        storeSome(q + o, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)), half - i)
      }
    }
  }
}

export const SILU = 0
export const GELU = 1
export const GELU_ERF = 2

/** 1 / (1 + e^−x). */
// @ts-ignore: decorator
@inline
export function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1)
  return f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(x))))
}

/** erfc(|x|) by Chebyshev fitting (Press et al., erfcc): relative error below 1.2e-7. */
// @ts-ignore: decorator
@inline
export function erfc4(z: v128): v128 {
  const one = f32x4.splat(1)
  const t = f32x4.div(one, fma(z, f32x4.splat(0.5), one))
  let p = f32x4.splat(0.17087277)
  p = fma(p, t, f32x4.splat(-0.82215223))
  p = fma(p, t, f32x4.splat(1.48851587))
  p = fma(p, t, f32x4.splat(-1.13520398))
  p = fma(p, t, f32x4.splat(0.27886807))
  p = fma(p, t, f32x4.splat(-0.18628806))
  p = fma(p, t, f32x4.splat(0.09678418))
  p = fma(p, t, f32x4.splat(0.37409196))
  p = fma(p, t, f32x4.splat(1.00002368))
  p = fma(p, t, f32x4.splat(-1.26551223))
  return f32x4.mul(t, exp4(f32x4.sub(p, f32x4.mul(z, z))))
}

// @ts-ignore: decorator
@inline
function act(kind: i32, x: v128): v128 {
  if (kind == SILU) return f32x4.mul(x, sigmoid(x))
  if (kind == GELU) {
    // ½x(1 + tanh u) = x·sigmoid(2u), u = √(2/π)·(x + 0.044715 x³)
    const cube = f32x4.mul(f32x4.mul(x, x), x)
    const u = fma(cube, f32x4.splat(0.044715), x)
    return f32x4.mul(x, sigmoid(f32x4.mul(u, f32x4.splat(1.5957691216057308))))
  }
  if (kind == GELU_ERF) {
    // x·½·erfc(−x/√2); erfc(−z) = 2 − erfc(z)
    const e = erfc4(f32x4.mul(f32x4.abs(x), f32x4.splat(0.70710678118654752)))
    const positive = f32x4.ge(x, f32x4.splat(0))
    const tail = v128.bitselect(f32x4.sub(f32x4.splat(2), e), e, positive)
    return f32x4.mul(f32x4.mul(x, f32x4.splat(0.5)), tail)
  }
  return f32x4.max(x, f32x4.splat(0))
}

/** out = act(gate) · up, `up` 0: without. A task is 1024 numbers. */
export function activate(out: usize, gate: usize, up: usize, count: i32, kind: i32): void {
  const tasks = (count + 1023) >> 10
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) << 10, count)
    for (let i = task << 10; i < end; i += 4) {
      const at = <usize>i << 2
      let v = act(kind, v128.load(gate + at))
      if (up) v = f32x4.mul(v, v128.load(up + at))
      storeSome(out + at, v, end - i)
    }
  }
}

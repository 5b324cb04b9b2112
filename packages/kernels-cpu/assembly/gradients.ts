/** Activations and losses backward. */

import { exp4 } from './exp'
import { erfc4, GELU, GELU_ERF, SILU, sigmoid } from './norm'
import { fma, storeSome } from './simd'
import { exponentials, partition, peak } from './softmax'
import { take } from './threads'

/** Past this the slopes are 0 or 1 in f32, and powers of x would overflow. NaN stays. */
// @ts-ignore: decorator
@inline
function bounded(x: v128): v128 {
  return f32x4.pmin(f32x4.pmax(x, f32x4.splat(-90)), f32x4.splat(90))
}

/**
 * dgate = dy · up · act′(gate), dup = dy · act(gate); `up` and `dup` 0: without. A task is 1024 numbers. Everything
 * of a group of four is read before it is written.
 */
export function activateGradient(
  dgate: usize,
  dup: usize,
  out: usize,
  gate: usize,
  up: usize,
  count: i32,
  kind: i32,
): void {
  const tasks = (count + 1023) >> 10
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) << 10, count)
    for (let i = task << 10; i < end; i += 4) {
      const at = <usize>i << 2
      const g = v128.load(gate + at)
      const x = bounded(g)
      const dy = v128.load(out + at)
      const d = up ? f32x4.mul(dy, v128.load(up + at)) : dy
      const zero = f32x4.splat(0)
      const one = f32x4.splat(1)
      // share: act(x) / x
      let share: v128
      let slope: v128
      if (kind == SILU) {
        share = sigmoid(x)
        slope = fma(f32x4.mul(x, share), f32x4.sub(one, share), share)
      } else if (kind == GELU) {
        // x·σ(2u), u = √(2/π)·(x + 0.044715 x³)
        const square = f32x4.mul(x, x)
        const cubic = fma(square, f32x4.splat(0.044715), one)
        const root = f32x4.splat(1.5957691216057308)
        share = sigmoid(f32x4.mul(f32x4.mul(x, cubic), root))
        const inner = f32x4.mul(fma(square, f32x4.splat(0.134145), one), root)
        const bend = f32x4.mul(share, f32x4.sub(one, share))
        slope = fma(f32x4.mul(x, inner), bend, share)
      } else if (kind == GELU_ERF) {
        // x·Φ(x); Φ′ is the normal density
        const e = erfc4(f32x4.mul(f32x4.abs(x), f32x4.splat(0.70710678118654752)))
        const tail = v128.bitselect(f32x4.sub(f32x4.splat(2), e), e, f32x4.ge(x, zero))
        share = f32x4.mul(tail, f32x4.splat(0.5))
        const power = exp4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5)))
        slope = fma(f32x4.mul(x, power), f32x4.splat(0.3989422804014327), share)
      } else {
        share = v128.and(one, f32x4.gt(x, zero))
        slope = share
      }
      storeSome(dgate + at, f32x4.mul(d, slope), end - i)
      if (dup) storeSome(dup + at, f32x4.mul(dy, f32x4.mul(g, share)), end - i)
    }
  }
}

/** out = factor · (softmax(logits) − 1 at the target). A task is a row. */
export function entropyGradient(
  out: usize,
  logits: usize,
  rows: i32,
  columns: i32,
  targets: usize,
  factor: f32,
): void {
  const stride = <usize>columns << 2
  for (let row = take(); row < rows; row = take()) {
    const p = out + <usize>row * stride
    if (out != logits) memory.copy(p, logits + <usize>row * stride, stride)
    const f = f32x4.splat(exponentials(p, columns, 1) * factor)
    for (let i = 0; i < columns; i += 4) {
      const at = p + (<usize>i << 2)
      storeSome(at, f32x4.mul(v128.load(at), f), columns - i)
    }
    const target = p + (<usize>load<u32>(targets + (<usize>row << 2)) << 2)
    store<f32>(target, load<f32>(target) - factor)
  }
}

/** out = factor · (softmax(logits) − softmax(reference)). A task is a row. */
export function divergenceGradient(
  out: usize,
  reference: usize,
  logits: usize,
  rows: i32,
  columns: i32,
  factor: f32,
): void {
  for (let row = take(); row < rows; row = take()) {
    const start = (<usize>row * <usize>columns) << 2
    const r = reference + start
    const x = logits + start
    const mostR = peak(r, columns)
    const mostX = peak(x, columns)
    const shareR = f32x4.splat(<f32>(1 / partition(r, columns, mostR)) * factor)
    const shareX = f32x4.splat(<f32>(1 / partition(x, columns, mostX)) * factor)
    for (let i = 0; i < columns; i += 4) {
      const at = <usize>i << 2
      const truth = exp4(f32x4.sub(v128.load(r + at), f32x4.splat(mostR)))
      const guess = exp4(f32x4.sub(v128.load(x + at), f32x4.splat(mostX)))
      const d = f32x4.sub(f32x4.mul(guess, shareX), f32x4.mul(truth, shareR))
      storeSome(out + start + at, d, columns - i)
    }
  }
}

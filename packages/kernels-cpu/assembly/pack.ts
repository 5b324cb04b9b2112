/** Packs the left-hand side of the GEMM: [panel of HIGH rows][k][HIGH], zeros past the last row. */

import { take } from './threads'
import { HIGH } from './tile'

/** From x[rows][depth]; every value times `factor`. */
export function packRows(
  out: usize,
  x: usize,
  stride: usize,
  rows: i32,
  depth: i32,
  factor: f32,
): void {
  const panels = (rows + HIGH - 1) / HIGH
  for (let task = take(); task < panels; task = take()) {
    const row = task * HIGH
    packPanel(
      out + <usize>row * (<usize>depth << 2),
      x + <usize>row * stride,
      stride,
      rows - row,
      depth,
      factor,
    )
  }
}

/** One panel of up to HIGH of `rows` rows. */
export function packPanel(
  out: usize,
  x: usize,
  stride: usize,
  rows: i32,
  depth: i32,
  factor: f32,
): void {
  if (rows < HIGH) {
    for (let k = 0; k < depth; k++, out += HIGH * 4) {
      for (let r = 0; r < HIGH; r++) {
        const value = r < rows ? load<f32>(x + <usize>r * stride + (<usize>k << 2)) * factor : 0
        store<f32>(out + <usize>(r << 2), value)
      }
    }
    return
  }
  const p1 = x + stride
  const p2 = p1 + stride
  const p3 = p2 + stride
  const f = f32x4.splat(factor)
  let k = 0
  for (; k + 4 <= depth; k += 4) {
    const at = <usize>k << 2
    const r0 = f32x4.mul(v128.load(x + at), f)
    const r1 = f32x4.mul(v128.load(p1 + at), f)
    const r2 = f32x4.mul(v128.load(p2 + at), f)
    const r3 = f32x4.mul(v128.load(p3 + at), f)
    // a: k 0 and k 1 of rows 0 and 1; b: of rows 2 and 3; c and d: k 2 and k 3
    const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5)
    const b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5)
    const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7)
    const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7)
    if (ASC_FEATURE_RELAXED_SIMD) {
      const r4 = f32x4.mul(v128.load(p3 + stride + at), f)
      const r5 = f32x4.mul(v128.load(p3 + stride * 2 + at), f)
      const e = v128.shuffle<f32>(r4, r5, 0, 4, 1, 5)
      const g = v128.shuffle<f32>(r4, r5, 2, 6, 3, 7)
      v128.store(out, v128.shuffle<i64>(a, b, 0, 2))
      v128.store(out, v128.shuffle<i64>(e, a, 0, 3), 16)
      v128.store(out, v128.shuffle<i64>(b, e, 1, 3), 32)
      v128.store(out, v128.shuffle<i64>(c, d, 0, 2), 48)
      v128.store(out, v128.shuffle<i64>(g, c, 0, 3), 64)
      v128.store(out, v128.shuffle<i64>(d, g, 1, 3), 80)
    } else {
      v128.store(out, v128.shuffle<i64>(a, b, 0, 2))
      v128.store(out, v128.shuffle<i64>(a, b, 1, 3), 16)
      v128.store(out, v128.shuffle<i64>(c, d, 0, 2), 32)
      v128.store(out, v128.shuffle<i64>(c, d, 1, 3), 48)
    }
    out += HIGH * 16
  }
  for (; k < depth; k++, out += HIGH * 4) {
    for (let r = 0; r < HIGH; r++) {
      store<f32>(out + <usize>(r << 2), load<f32>(x + <usize>r * stride + (<usize>k << 2)) * factor)
    }
  }
}

/** From x[depth][rows], so that its columns become the rows of the product. */
export function packColumns(
  out: usize,
  x: usize,
  stride: usize,
  rows: i32,
  depth: i32,
  factor: f32,
): void {
  const panels = (rows + HIGH - 1) / HIGH
  for (let task = take(); task < panels; task = take()) {
    const row = task * HIGH
    packColumnPanel(
      out + <usize>row * (<usize>depth << 2),
      x + (<usize>row << 2),
      stride,
      rows - row,
      depth,
      factor,
    )
  }
}

export function packColumnPanel(
  out: usize,
  x: usize,
  stride: usize,
  rows: i32,
  depth: i32,
  factor: f32,
): void {
  const f = f32x4.splat(factor)
  if (rows >= HIGH) {
    for (let k = 0; k < depth; k++, x += stride, out += HIGH * 4) {
      v128.store(out, f32x4.mul(v128.load(x), f))
      if (ASC_FEATURE_RELAXED_SIMD) {
        v128.store64_lane(out, f32x4.mul(v128.load(x, 8), f), 1, 16)
      }
    }
    return
  }
  for (let k = 0; k < depth; k++, x += stride, out += HIGH * 4) {
    for (let r = 0; r < HIGH; r++) {
      store<f32>(out + <usize>(r << 2), r < rows ? load<f32>(x + <usize>(r << 2)) * factor : 0)
    }
  }
}

/**
 * x in the order in which a weight stores its columns: out[t, i] = x[t, map[i]] · factors[map[i]];
 * map −1 is padding. `factors` 0: none.
 */
export function arrange(
  out: usize,
  x: usize,
  rows: i32,
  columns: i32,
  map: usize,
  factors: usize,
  depth: i32,
): void {
  for (let row = take(); row < rows; row = take()) {
    const from = x + <usize>row * (<usize>columns << 2)
    const to = out + <usize>row * (<usize>depth << 2)
    for (let i = 0; i < depth; i++) {
      const index = load<i32>(map + (<usize>i << 2))
      let value: f32 = 0
      if (index >= 0) {
        value = load<f32>(from + (<usize>index << 2))
        if (factors) value *= load<f32>(factors + (<usize>index << 2))
      }
      store<f32>(to + (<usize>i << 2), value)
    }
  }
}

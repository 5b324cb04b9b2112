/**
 * The micro-kernel: c[HIGH][8] (+)= Σ_k a[k][HIGH] ⊗ b[k][8]. V8 has fifteen vector registers to
 * give: with fused multiplication six rows fit (twelve sums, two vectors of b, one splat of a);
 * without, a product needs a register too, and six rows would spill: four are faster. One k a
 * turn: unrolled, the compiler moves loads up and spills (measured: 52 against 35 GFLOP/s).
 */

import { fma } from './simd'

/** Rows of a panel of the left side. */
export const HIGH: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4

/** The host sizes its rooms with it. */
export function panelRows(): i32 {
  return HIGH
}

/** `stride`: bytes from row to row of c. */
export function tile(a: usize, b: usize, depth: i32, c: usize, stride: usize, add: i32): void {
  let c00 = f32x4.splat(0)
  let c01 = c00
  let c10 = c00
  let c11 = c00
  let c20 = c00
  let c21 = c00
  let c30 = c00
  let c31 = c00
  let c40 = c00
  let c41 = c00
  let c50 = c00
  let c51 = c00
  for (let k = depth; k > 0; k--, a += HIGH * 4, b += 32) {
    const b0 = v128.load(b)
    const b1 = v128.load(b, 16)
    let x = v128.load32_splat(a)
    c00 = fma(x, b0, c00)
    c01 = fma(x, b1, c01)
    x = v128.load32_splat(a, 4)
    c10 = fma(x, b0, c10)
    c11 = fma(x, b1, c11)
    x = v128.load32_splat(a, 8)
    c20 = fma(x, b0, c20)
    c21 = fma(x, b1, c21)
    x = v128.load32_splat(a, 12)
    c30 = fma(x, b0, c30)
    c31 = fma(x, b1, c31)
    if (ASC_FEATURE_RELAXED_SIMD) {
      x = v128.load32_splat(a, 16)
      c40 = fma(x, b0, c40)
      c41 = fma(x, b1, c41)
      x = v128.load32_splat(a, 20)
      c50 = fma(x, b0, c50)
      c51 = fma(x, b1, c51)
    }
  }
  put(c, c00, c01, add)
  put(c + stride, c10, c11, add)
  put(c + stride * 2, c20, c21, add)
  put(c + stride * 3, c30, c31, add)
  if (ASC_FEATURE_RELAXED_SIMD) {
    put(c + stride * 4, c40, c41, add)
    put(c + stride * 5, c50, c51, add)
  }
}

// @ts-ignore: decorator
@inline
function put(c: usize, low: v128, high: v128, add: i32): void {
  if (add) {
    low = f32x4.add(v128.load(c), low)
    high = f32x4.add(v128.load(c, 16), high)
  }
  v128.store(c, low)
  v128.store(c, high, 16)
}

/** The same at an edge: only `rows` × `columns` of c exist. `spare` is room for 192 bytes. */
export function edgeTile(
  a: usize,
  b: usize,
  depth: i32,
  c: usize,
  stride: usize,
  add: i32,
  rows: i32,
  columns: i32,
  spare: usize,
): void {
  if (rows >= HIGH && columns >= 8) {
    tile(a, b, depth, c, stride, add)
    return
  }
  tile(a, b, depth, spare, 32, 0)
  const most = min(rows, HIGH)
  const wide = min(columns, 8)
  for (let r = 0; r < most; r++, c += stride, spare += 32) {
    for (let n = 0; n < wide; n++) {
      const at = <usize>(n << 2)
      const value = load<f32>(spare + at)
      store<f32>(c + at, add ? load<f32>(c + at) + value : value)
    }
  }
}

/**
 * The micro-kernel: c[HIGH][8] (+)= Σ_k a[k][HIGH] ⊗ b[k][8]. V8 has fifteen vector registers to
 * give: with fused multiplication six rows fit (twelve sums, two vectors of b, one splat of a);
 * without, a product needs a register too, and six rows would spill: four are faster. One k a
 * turn: unrolled, the compiler moves loads up and spills (measured: 52 against 35 GFLOP/s).
 */

import { fma } from './simd'
import { wide } from './threads'

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

/**
 * Two tiles side by side, of strips that lie `next` bytes apart, for engines that make one instruction of 256 bits
 * of two of 128 (src/wide.ts): its twelve sums hide what a multiplication waits for, where six of one strip do not
 * (measured: 131 against 92 GFLOP/s). Other engines would spill half of the sums. Sums are made in the same order.
 */
function tileTwo(
  a: usize,
  b: usize,
  next: usize,
  depth: i32,
  c: usize,
  stride: usize,
  add: i32,
): void {
  const zero = f32x4.splat(0)
  let c00 = zero
  let c01 = zero
  let c02 = zero
  let c03 = zero
  let c10 = zero
  let c11 = zero
  let c12 = zero
  let c13 = zero
  let c20 = zero
  let c21 = zero
  let c22 = zero
  let c23 = zero
  let c30 = zero
  let c31 = zero
  let c32 = zero
  let c33 = zero
  let c40 = zero
  let c41 = zero
  let c42 = zero
  let c43 = zero
  let c50 = zero
  let c51 = zero
  let c52 = zero
  let c53 = zero
  for (let k = depth; k > 0; k--, a += HIGH * 4, b += 32) {
    const b0 = v128.load(b)
    const b1 = v128.load(b, 16)
    const b2 = v128.load(b + next)
    const b3 = v128.load(b + next, 16)
    let x = v128.load32_splat(a)
    c00 = fma(x, b0, c00)
    c01 = fma(x, b1, c01)
    c02 = fma(x, b2, c02)
    c03 = fma(x, b3, c03)
    x = v128.load32_splat(a, 4)
    c10 = fma(x, b0, c10)
    c11 = fma(x, b1, c11)
    c12 = fma(x, b2, c12)
    c13 = fma(x, b3, c13)
    x = v128.load32_splat(a, 8)
    c20 = fma(x, b0, c20)
    c21 = fma(x, b1, c21)
    c22 = fma(x, b2, c22)
    c23 = fma(x, b3, c23)
    x = v128.load32_splat(a, 12)
    c30 = fma(x, b0, c30)
    c31 = fma(x, b1, c31)
    c32 = fma(x, b2, c32)
    c33 = fma(x, b3, c33)
    if (ASC_FEATURE_RELAXED_SIMD) {
      x = v128.load32_splat(a, 16)
      c40 = fma(x, b0, c40)
      c41 = fma(x, b1, c41)
      c42 = fma(x, b2, c42)
      c43 = fma(x, b3, c43)
      x = v128.load32_splat(a, 20)
      c50 = fma(x, b0, c50)
      c51 = fma(x, b1, c51)
      c52 = fma(x, b2, c52)
      c53 = fma(x, b3, c53)
    }
  }
  putTwo(c, c00, c01, c02, c03, add)
  putTwo(c + stride, c10, c11, c12, c13, add)
  putTwo(c + stride * 2, c20, c21, c22, c23, add)
  putTwo(c + stride * 3, c30, c31, c32, c33, add)
  if (ASC_FEATURE_RELAXED_SIMD) {
    putTwo(c + stride * 4, c40, c41, c42, c43, add)
    putTwo(c + stride * 5, c50, c51, c52, c53, add)
  }
}

// @ts-ignore: decorator
@inline
function putTwo(c: usize, v0: v128, v1: v128, v2: v128, v3: v128, add: i32): void {
  put(c, v0, v1, add)
  put(c + 32, v2, v3, add)
}

/** Both at once where that is faster, else one after the other; `columns` and `rows` as in edgeTile. */
export function edgeTiles(
  a: usize,
  b: usize,
  next: usize,
  depth: i32,
  c: usize,
  stride: usize,
  add: i32,
  rows: i32,
  columns: i32,
  spare: usize,
): void {
  if (wide && rows >= HIGH && columns >= 16) {
    tileTwo(a, b, next, depth, c, stride, add)
    return
  }
  edgeTile(a, b, depth, c, stride, add, rows, columns, spare)
  if (columns > 8) {
    edgeTile(a, b + next, depth, c + 32, stride, add, rows, columns - 8, spare)
  }
}

/** Scales and zero points of blocks, and rounding with them. */

import {
  codesAt,
  isSmallTable,
  isTable,
  largestOf,
  levelsOf,
  lowestOf,
  place,
  roundSixteen,
  stepOf,
  tableAt,
  valuesAt,
} from './grid'
import { largest, loadSome, storeSome, sum } from './simd'
import { take } from './threads'

const F32 = 0
const F16 = 1
const BF16 = 2

/** The nearest positive value of the type; never zero, never infinite. */
function roundScale(s: f32, type: i32): f32 {
  if (type == F16) {
    if (s >= 65504) return 65504
    // Below 2^-14 halves are multiples of 2^-24.
    if (s < 6.103515625e-5) return max(nearest<f32>(s * 16777216), 1) / 16777216
    const u = reinterpret<u32>(s)
    return reinterpret<f32>((u + 0xfff + ((u >> 13) & 1)) & 0xffffe000)
  }
  const tiny: f32 = reinterpret<f32>(0x00800000)
  if (type == BF16) {
    const u = reinterpret<u32>(max(s, tiny))
    return reinterpret<f32>(min((u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000, 0x7f7f0000))
  }
  return min(max(s, tiny), <f32>3.4028234663852886e38)
}

/** ⌊log2 x⌋ of a positive number. */
// @ts-ignore: decorator
@inline
function exponent(x: f32): i32 {
  const e = reinterpret<i32>(x) >> 23
  if (e > 0) return e - 127
  // Subnormal: the highest bit of the mantissa says how small.
  return -118 - <i32>clz(reinterpret<u32>(x))
}

/** 2^e, −127 ≤ e ≤ 127: what e8m0 can say. */
// @ts-ignore: decorator
@inline
function power(e: i32): f32 {
  if (e < -126) return reinterpret<f32>(0x00400000)
  return reinterpret<f32>((min(e, 127) + 127) << 23)
}

/** Σ importance · (w − q)² over one row's part of a block. */
function squaredError(
  grid: usize,
  w: usize,
  count: i32,
  importance: usize,
  scale: f32,
  zero: f32,
): f64 {
  const s = f32x4.splat(scale)
  const z = f32x4.splat(zero)
  let total = f32x4.splat(0)
  for (let i = 0; i < count; i += 4) {
    const at = <usize>i << 2
    const v = loadSome(w + at, count - i)
    const d = f32x4.sub(v, valuesAt(grid, place(grid, v, s, z), s, z))
    let e = f32x4.mul(d, d)
    if (importance) e = f32x4.mul(e, loadSome(importance + at, count - i))
    else if (i + 4 > count) {
      // Lanes past the end hold w = 0, which need not be on the grid.
      const mask = i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(count - i))
      e = v128.and(e, mask)
    }
    total = f32x4.add(total, e)
  }
  return <f64>sum(total)
}

/**
 * Scale and zero of every block; `zero` 0: symmetric. A task is a row of blocks. The range is
 * shrunk by 1 − i·step for i < candidates and the smallest error wins, the first of equals.
 */
export function fit(
  scale: usize,
  zero: usize,
  weight: usize,
  rows: i32,
  columns: i32,
  blockRows: i32,
  blockColumns: i32,
  grid: usize,
  importance: usize,
  candidates: i32,
  step: f64,
  type: i32,
): void {
  const tasks = (rows + blockRows - 1) / blockRows
  const across = (columns + blockColumns - 1) / blockColumns
  for (let task = take(); task < tasks; task = take()) {
    for (let block = 0; block < across; block++) {
      const from = task * blockRows
      const high = min(blockRows, rows - from)
      const column = block * blockColumns
      const wide = min(blockColumns, columns - column)
      const at = <usize>(task * across + block) << 2
      fitBlock(
        scale + at,
        zero ? zero + at : 0,
        weight + ((<usize>from * <usize>columns + <usize>column) << 2),
        <usize>columns << 2,
        high,
        wide,
        grid,
        importance ? importance + (<usize>column << 2) : 0,
        candidates,
        step,
        type,
      )
    }
  }
}

function fitBlock(
  scale: usize,
  zero: usize,
  weight: usize,
  stride: usize,
  rows: i32,
  columns: i32,
  grid: usize,
  importance: usize,
  candidates: i32,
  step: f64,
  type: i32,
): void {
  let least = f32x4.splat(0)
  let most = f32x4.splat(0)
  let mean: f64 = 0
  for (let r = 0; r < rows; r++) {
    const p = weight + <usize>r * stride
    let magnitude = f32x4.splat(0)
    for (let i = 0; i < columns; i += 4) {
      const v = loadSome(p + (<usize>i << 2), columns - i)
      least = f32x4.min(least, v)
      most = f32x4.max(most, v)
      magnitude = f32x4.add(magnitude, f32x4.abs(v))
    }
    mean += <f64>sum(magnitude)
  }
  const hi = largest(most)
  const lo = -largest(f32x4.neg(least))
  if (!(max(hi, -lo) > 0)) {
    // The smallest scale there is, since not every grid has a zero.
    store<f32>(scale, type > BF16 ? power(-127) : roundScale(0, type))
    if (zero) store<f32>(zero, lowestOf(grid))
    return
  }
  const lowest = lowestOf(grid)
  const span = stepOf(grid) * <f32>(levelsOf(grid) - 1)
  const binary = !isTable(grid) && levelsOf(grid) == 2 && lowest == -(lowest + span)
  const average = <f32>(mean / (<f64>rows * <f64>columns))
  let best: f64 = Infinity
  for (let i = 0; i < candidates; i++) {
    const p = <f32>(1 - step * <f64>i)
    let s: f32
    let z: f32 = 0
    if (zero) {
      s = ((hi - lo) * p) / span
      z = s > 0 ? nearest<f32>((-lo * p) / s / stepOf(grid)) : 0
      z = lowest + min(max(z, 0), <f32>(levelsOf(grid) - 1)) * stepOf(grid)
    } else {
      const range = max(hi, -lo) * p
      if (type > BF16) {
        // As OCP MX: the exponent of the largest, less that of the largest grid value.
        s = range
      } else if (binary && i == 0) {
        // {−1, 1}: no scale has a smaller squared error than the mean of |w| (XNOR-Net, 3.1).
        s = average / largestOf(grid)
      } else if (isTable(grid) || levelsOf(grid) == 2) s = range / largestOf(grid)
      else s = (2 * range) / span
    }
    if (type <= BF16) s = roundScale(s, type)
    else s = power(exponent(s) - (zero ? 0 : exponent(largestOf(grid))))
    if (candidates == 1) {
      store<f32>(scale, s)
      if (zero) store<f32>(zero, z)
      return
    }
    let error: f64 = 0
    for (let r = 0; r < rows; r++) {
      error += squaredError(grid, weight + <usize>r * stride, columns, importance, s, z)
    }
    if (error < best || i == 0) {
      best = error
      store<f32>(scale, s)
      if (zero) store<f32>(zero, z)
    }
  }
}

/** Nearest codes, and what they mean where `decoded` is not 0. A task is a row. */
export function round(
  codes: usize,
  decoded: usize,
  weight: usize,
  rows: i32,
  columns: i32,
  scale: usize,
  zero: usize,
  blockRows: i32,
  blockColumns: i32,
  grid: usize,
  tableRows: i32,
  tableColumns: i32,
): void {
  const across = (columns + blockColumns - 1) / blockColumns
  const tablesAcross = (columns + tableColumns - 1) / tableColumns
  for (let row = take(); row < rows; row = take()) {
    const start = <usize>row * <usize>columns
    let column = 0
    while (column < columns) {
      const block = column / blockColumns
      const tableBlock = column / tableColumns
      const at = <usize>((row / blockRows) * across + block) << 2
      const s = v128.load32_splat(scale + at)
      const z = zero ? v128.load32_splat(zero + at) : f32x4.splat(0)
      const table = tableAt(grid, tableRows, tablesAcross, row, tableBlock)
      // As far as both scale and table stay the same.
      const end = min(columns, min((block + 1) * blockColumns, (tableBlock + 1) * tableColumns))
      if (isSmallTable(table)) {
        for (; column + 16 <= end; column += 16) {
          const index = start + <usize>column
          const values = decoded ? decoded + (index << 2) : 0
          v128.store(codes + index, roundSixteen(table, weight + (index << 2), s, z, values))
        }
      }
      for (; column < end; column += 4) {
        const left = end - column
        const index = start + <usize>column
        const where = place(table, loadSome(weight + (index << 2), left), s, z)
        const four = codesAt(table, where)
        if (left >= 4) store<u32>(codes + index, four)
        else for (let i = 0; i < left; i++) store<u8>(codes + index + i, <u8>(four >> (i << 3)))
        if (decoded) storeSome(decoded + (index << 2), valuesAt(table, where, s, z), left)
      }
      column = end
    }
  }
}

/**
 * Tables of values for blocks of a weight: the exact weighted 1-D k-means (Grønlund et al., 1701.07204). Weights
 * are counted in cells of equal leading bits, then dynamic programming finds the clusters over the
 * cells (divide.ts). A task is a block.
 */

import { divide, p0, p1, placeDivision } from './divide'
import { loadSome } from './simd'
import { take, thread } from './threads'

/** Sign, 8 bits of exponent, 10 of mantissa: f16 and bf16 have no more. */
const KEYS = 1 << 19
/** Bits that are dropped where that leaves too many cells: sign, exponent, 7 of mantissa are left. */
const COARSE = 3
/** Cells that the host makes room for at most; choices are 16 bits. */
const MOST_CELLS = 1 << 16

const BITMAP: usize = KEYS >> 3
/** Cells before each word of the bitmap. */
const RANKS: usize = KEYS >> 3
/** Less than this share of all importance is nothing: the prefix sums would not change. */
const NOTHING: f64 = 1e-14

/**
 * `tables`: [blocks][entries] f32. `importance`: 0, or f32 with `importanceStride` bytes from row to row (0: one row
 * for all). `rowScale`: 0, or what each row is divided by. `cells`: the most cells that a block can have. Scratch as the host's tableScratch divides it.
 */
export function fitTables(
  tables: usize,
  entries: i32,
  weight: usize,
  rows: i32,
  columns: i32,
  blockRows: i32,
  blockColumns: i32,
  importance: usize,
  importanceStride: usize,
  rowScale: usize,
  uniform: i32,
  cells: i32,
  scratch: usize,
  room: usize,
): void {
  const across = (columns + blockColumns - 1) / blockColumns
  const tasks = ((rows + blockRows - 1) / blockRows) * across
  const stride = <usize>columns << 2
  for (let task = take(); task < tasks; task = take()) {
    const row = (task / across) * blockRows
    const column = (task % across) * blockColumns
    const high = min(blockRows, rows - row)
    const wide = min(blockColumns, columns - column)
    const w = weight + <usize>row * stride + (<usize>column << 2)
    const table = tables + <usize>task * (<usize>entries << 2)
    const scale = rowScale ? rowScale + (<usize>row << 2) : 0
    if (uniform) {
      spread(table, entries, w, stride, high, wide, scale)
      continue
    }
    const h = importance
      ? importance + <usize>row * importanceStride + (<usize>column << 2)
      : 0
    cluster(table, entries, w, stride, high, wide, h, importanceStride, scale, cells,
      scratch + thread * room)
  }
}

// @ts-ignore: decorator
@inline
function scaleOf(scale: usize, row: i32): f32 {
  return scale ? load<f32>(scale + (<usize>row << 2)) : 1
}

/** Evenly from the smallest to the largest. */
function spread(
  table: usize,
  entries: i32,
  w: usize,
  stride: usize,
  rows: i32,
  columns: i32,
  scale: usize,
): void {
  let low: f32 = Infinity
  let high: f32 = -Infinity
  for (let r = 0; r < rows; r++) {
    const p = w + <usize>r * stride
    const s = scaleOf(scale, r)
    for (let i = 0; i < columns; i++) {
      const v = load<f32>(p + (<usize>i << 2)) / s
      low = min(low, v)
      high = max(high, v)
    }
  }
  for (let i = 0; i < entries; i++) {
    const share: f64 = entries > 1 ? <f64>i / <f64>(entries - 1) : 0.5
    store<f32>(table + (<usize>i << 2), <f32>(<f64>low * (1 - share) + <f64>high * share))
  }
}

/** Leading bits of four weights, in the order of the numbers; −0 is 0. */
// @ts-ignore: decorator
@inline
function keysOf(w: v128, drop: i32): v128 {
  const magnitude = i32x4.shr_u(v128.and(w, i32x4.splat(0x7fffffff)), 13)
  const sign = i32x4.shr_s(w, 31)
  const signed = i32x4.sub(v128.xor(magnitude, sign), sign)
  return i32x4.shr_u(i32x4.add(signed, i32x4.splat(KEYS >> 1)), drop)
}

function cluster(
  table: usize,
  entries: i32,
  w: usize,
  stride: usize,
  rows: i32,
  columns: i32,
  h: usize,
  hStride: usize,
  scale: usize,
  cells: i32,
  scratch: usize,
): void {
  const bitmap = scratch
  const ranks = bitmap + BITMAP
  const sums = ranks + RANKS
  placeDivision(sums + (<usize>cells << 4), cells)

  let drop = 0
  let count = mark(bitmap, ranks, w, stride, rows, columns, scale, 0)
  if (count > MOST_CELLS) {
    drop = COARSE
    count = mark(bitmap, ranks, w, stride, rows, columns, scale, drop)
  }
  let total = sumCells(sums, count, bitmap, ranks, w, stride, rows, columns, h, hStride, scale, drop)
  if (!(total > 0)) {
    total = sumCells(sums, count, bitmap, ranks, w, stride, rows, columns, 0, 0, scale, drop)
  }

  let mean: f64 = 0
  for (let c = 0; c < count; c++) mean += load<f64>(sums + (<usize>c << 4), 8)
  mean /= total
  let n = 0
  store<f64>(p0, 0)
  store<f64>(p1, 0)
  let s0: f64 = 0
  let s1: f64 = 0
  for (let c = 0; c < count; c++) {
    const cell = sums + (<usize>c << 4)
    const importance = load<f64>(cell)
    if (!(importance > total * NOTHING)) continue
    s0 += importance
    s1 += load<f64>(cell, 8) - mean * importance
    n++
    store<f64>(p0 + (<usize>n << 3), s0)
    store<f64>(p1 + (<usize>n << 3), s1)
  }
  if (n <= entries) {
    // Each cell by itself, from its own sums: exact where it holds one value.
    let k = 0
    for (let c = 0; c < count; c++) {
      const cell = sums + (<usize>c << 4)
      if (!(load<f64>(cell) > total * NOTHING)) continue
      store<f32>(table + (<usize>k << 2), <f32>(load<f64>(cell, 8) / load<f64>(cell)))
      k++
    }
    const last = load<f32>(table + (<usize>(k - 1) << 2))
    for (; k < entries; k++) store<f32>(table + (<usize>k << 2), last)
    return
  }
  divide(table, entries, n, cells, mean)
}

// @ts-ignore: decorator
@inline
function setBit(bitmap: usize, key: i32): void {
  const word = bitmap + (<usize>(key >> 5) << 2)
  store<u32>(word, load<u32>(word) | (1 << (key & 31)))
}

/** Which keys there are; returns how many. */
function mark(
  bitmap: usize,
  ranks: usize,
  w: usize,
  stride: usize,
  rows: i32,
  columns: i32,
  scale: usize,
  drop: i32,
): i32 {
  memory.fill(bitmap, 0, BITMAP)
  for (let r = 0; r < rows; r++) {
    const p = w + <usize>r * stride
    const s = f32x4.splat(scaleOf(scale, r))
    for (let i = 0; i < columns; i += 4) {
      const left = columns - i
      const keys = keysOf(f32x4.div(loadSome(p + (<usize>i << 2), left), s), drop)
      setBit(bitmap, i32x4.extract_lane(keys, 0))
      if (left > 1) setBit(bitmap, i32x4.extract_lane(keys, 1))
      if (left > 2) setBit(bitmap, i32x4.extract_lane(keys, 2))
      if (left > 3) setBit(bitmap, i32x4.extract_lane(keys, 3))
    }
  }
  let count = 0
  for (let word: usize = 0; word < BITMAP; word += 4) {
    store<i32>(ranks + word, count)
    count += popcnt<i32>(load<i32>(bitmap + word))
  }
  return count
}

/** Adds to the sums of a key's cell. */
// @ts-ignore: decorator
@inline
function addTo(sums: usize, bitmap: usize, ranks: usize, key: i32, part: v128): void {
  const word = <usize>(key >> 5) << 2
  const below = load<u32>(bitmap + word) & ((1 << (key & 31)) - 1)
  const cell = sums + (<usize>(load<i32>(ranks + word) + popcnt<i32>(below)) << 4)
  v128.store(cell, f64x2.add(v128.load(cell), part))
}

/** Σ importance and Σ importance · w of every cell, side by side; returns all importance. */
function sumCells(
  sums: usize,
  count: i32,
  bitmap: usize,
  ranks: usize,
  w: usize,
  stride: usize,
  rows: i32,
  columns: i32,
  h: usize,
  hStride: usize,
  scale: usize,
  drop: i32,
): f64 {
  memory.fill(sums, 0, <usize>count << 4)
  for (let r = 0; r < rows; r++) {
    const p = w + <usize>r * stride
    const q = h + <usize>r * hStride
    const s = scaleOf(scale, r)
    const power = f64x2.splat(<f64>s * <f64>s)
    for (let i = 0; i < columns; i += 4) {
      const left = columns - i
      const v = f32x4.div(loadSome(p + (<usize>i << 2), left), f32x4.splat(s))
      const counts = h ? loadSome(q + (<usize>i << 2), left) : f32x4.splat(1)
      const keys = keysOf(v, drop)
      let one = f64x2.mul(power, f64x2.promote_low_f32x4(counts))
      let other = f64x2.mul(one, f64x2.promote_low_f32x4(v))
      addTo(sums, bitmap, ranks, i32x4.extract_lane(keys, 0), v128.shuffle<f64>(one, other, 0, 2))
      if (left == 1) break
      addTo(sums, bitmap, ranks, i32x4.extract_lane(keys, 1), v128.shuffle<f64>(one, other, 1, 3))
      if (left == 2) break
      one = f64x2.mul(power, f64x2.promote_low_f32x4(v128.shuffle<f32>(counts, counts, 2, 3, 2, 3)))
      other = f64x2.mul(one, f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3)))
      addTo(sums, bitmap, ranks, i32x4.extract_lane(keys, 2), v128.shuffle<f64>(one, other, 0, 2))
      if (left == 3) break
      addTo(sums, bitmap, ranks, i32x4.extract_lane(keys, 3), v128.shuffle<f64>(one, other, 1, 3))
    }
  }
  let total: f64 = 0
  for (let c = 0; c < count; c++) total += load<f64>(sums + (<usize>c << 4))
  return total
}

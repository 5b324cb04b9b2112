/**
 * Tables of values for blocks of a weight: the exact weighted 1-D k-means (Grønlund et al., 1701.07204). Weights
 * are counted in cells of equal leading bits, then dynamic programming finds the clusters over the
 * cells. A task is a block.
 *
 * With P0, P1 the prefix sums of importance and importance · value (values taken from their mean), the
 * cells j … i − 1 as one cluster lose Σ h·w² − (P1ᵢ − P1ⱼ)² / (P0ᵢ − P0ⱼ). The first term is the same for all
 * divisions, so the sum of the second is made as large as it can be:
 *
 *   G_k(i) = max over j of G_{k−1}(j) + (P1ᵢ − P1ⱼ)² / (P0ᵢ − P0ⱼ)
 *
 * The best j never falls as i grows, so the middle i is solved first and halves what is left to look at
 * on either side: O(n log n) a layer, two candidates an instruction. Nor does it fall as k grows (Yao's
 * quadrangle inequality), so none below the best one of the layer before is looked at. Where few are left,
 * two neighbouring i share an instruction instead.
 */

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

/** The block at hand, as its thread sees it. */
let p0: usize = 0
let p1: usize = 0
let before: usize = 0
let now: usize = 0
let choices: usize = 0
/** The choices of the layer before, and its last row; 0 where there is none. */
let prior: usize = 0
let priorLast: i32 = 0

/** So many candidates are few. */
const FEW = 8

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

/** Leading bits of w, in the order of the numbers; −0 is 0. */
// @ts-ignore: decorator
@inline
function keyOf(w: f32): i32 {
  const bits = reinterpret<u32>(w)
  const magnitude = <i32>((bits & 0x7fffffff) >> 13)
  return bits >> 31 ? (KEYS >> 1) - magnitude : (KEYS >> 1) + magnitude
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
  const size = <usize>(cells + 2) << 3
  p0 = sums + (<usize>cells << 4)
  p1 = p0 + size
  before = p1 + size
  now = before + size
  choices = now + size

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

/** The mean of the cells from … to − 1. */
// @ts-ignore: decorator
@inline
function centroid(from: i32, to: i32, mean: f64): f32 {
  const importance = load<f64>(p0 + (<usize>to << 3)) - load<f64>(p0 + (<usize>from << 3))
  const sum = load<f64>(p1 + (<usize>to << 3)) - load<f64>(p1 + (<usize>from << 3))
  return <f32>(mean + sum / importance)
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
    const s = scaleOf(scale, r)
    for (let i = 0; i < columns; i++) {
      const key = keyOf(load<f32>(p + (<usize>i << 2)) / s) >> drop
      const word = bitmap + (<usize>(key >> 5) << 2)
      store<u32>(word, load<u32>(word) | (1 << (key & 31)))
    }
  }
  let count = 0
  for (let word: usize = 0; word < BITMAP; word += 4) {
    store<i32>(ranks + word, count)
    count += popcnt<i32>(load<i32>(bitmap + word))
  }
  return count
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
    const power = <f64>s * <f64>s
    for (let i = 0; i < columns; i++) {
      const v = load<f32>(p + (<usize>i << 2)) / s
      const key = keyOf(v) >> drop
      const word = <usize>(key >> 5) << 2
      const below = load<u32>(bitmap + word) & ((1 << (key & 31)) - 1)
      const cell = sums + (<usize>(load<i32>(ranks + word) + popcnt<i32>(below)) << 4)
      const importance: f64 = h ? power * <f64>load<f32>(q + (<usize>i << 2)) : power
      const part = f64x2.replace_lane(f64x2.splat(importance), 1, importance * <f64>v)
      v128.store(cell, f64x2.add(v128.load(cell), part))
    }
  }
  let total: f64 = 0
  for (let c = 0; c < count; c++) total += load<f64>(sums + (<usize>c << 4))
  return total
}

/** The best division of n cells into `entries` clusters, n > entries. */
function divide(table: usize, entries: i32, n: i32, cells: i32, mean: f64): void {
  for (let i = 1; i <= n; i++) {
    const s = load<f64>(p1 + (<usize>i << 3))
    store<f64>(before + (<usize>i << 3), (s * s) / load<f64>(p0 + (<usize>i << 3)))
  }
  const layer = <usize>(cells + 1) << 1
  const first = choices
  for (let k = 2; k <= entries; k++) {
    prior = k > 2 ? choices : 0
    priorLast = n - (entries - k) - 1
    choices = first + <usize>(k - 2) * layer
    // The last layer is asked for all cells alone; those before leave a cell for each one to come.
    const from = k == entries ? n : k
    solve(from, n - (entries - k), k - 1, n - 1)
    const kept = before
    before = now
    now = kept
  }
  let to = n
  for (let k = entries; k >= 1; k--) {
    const from = k == 1 ? 0 : <i32>load<u16>(first + <usize>(k - 2) * layer + (<usize>to << 1))
    store<f32>(table + (<usize>(k - 1) << 2), centroid(from, to, mean))
    to = from
  }
}

/** G_k of the cells low … high, whose best j are known to be within from … to. */
function solve(low: i32, high: i32, from: i32, to: i32): void {
  while (low <= high) {
    if (to - from < FEW && low < high) {
      solvePairs(low, high, from, to)
      return
    }
    const middle = (low + high) >> 1
    const j = best(middle, max(from, leastOf(middle)), min(to, middle - 1))
    store<u16>(choices + (<usize>middle << 1), <u16>j)
    if (middle - low > 0) solve(low, middle - 1, from, j)
    low = middle + 1
    from = j
  }
}

/** What the best j of cell i is at least. */
// @ts-ignore: decorator
@inline
function leastOf(i: i32): i32 {
  return prior ? <i32>load<u16>(prior + (<usize>min(i, priorLast) << 1)) : 0
}

/** The same, two cells at a time, each against one j after the other. */
function solvePairs(low: i32, high: i32, from: i32, to: i32): void {
  from = max(from, leastOf(low))
  // All pairs look at the same j: a loop of known length costs less than a shorter one.
  for (let i = low; i <= high; i += 2) {
    const at = <usize>i << 3
    const importance = v128.load(p0 + at)
    const sum = v128.load(p1 + at)
    let most = f64x2.splat(-Infinity)
    let where = i64x2.splat(<i64>from)
    let index = where
    const one = i64x2.splat(1)
    // At j = i the first cell has 0 / 0, which is more than nothing.
    const end = <usize>(min(to, i) + 1) << 3
    for (let q = <usize>from << 3; q < end; q += 8) {
      const d0 = f64x2.sub(importance, v128.load64_splat(p0 + q))
      const d1 = f64x2.sub(sum, v128.load64_splat(p1 + q))
      const value = f64x2.add(v128.load64_splat(before + q), f64x2.div(f64x2.mul(d1, d1), d0))
      const more = f64x2.gt(value, most)
      most = v128.bitselect(value, most, more)
      where = v128.bitselect(index, where, more)
      index = i64x2.add(index, one)
    }
    store<f64>(now + at, f64x2.extract_lane(most, 0))
    store<u16>(choices + (<usize>i << 1), <u16>i64x2.extract_lane(where, 0))
    if (i == high) return
    store<f64>(now + at, f64x2.extract_lane(most, 1), 8)
    store<u16>(choices + (<usize>i << 1), <u16>i64x2.extract_lane(where, 1), 2)
  }
}

/** The j of from … to with the largest value, the first of equals; leaves G_k(i) in `now`. */
function best(i: i32, from: i32, to: i32): i32 {
  const importance = f64x2.splat(load<f64>(p0 + (<usize>i << 3)))
  const sum = f64x2.splat(load<f64>(p1 + (<usize>i << 3)))
  let most = f64x2.splat(-Infinity)
  let where = f64x2.splat(<f64>from)
  let index = f64x2(<f64>from, <f64>(from + 1))
  const two = f64x2.splat(2)
  let at = <usize>from << 3
  const end = <usize>(to + 1) << 3
  for (; at + 8 < end; at += 16) {
    const d0 = f64x2.sub(importance, v128.load(p0 + at))
    const d1 = f64x2.sub(sum, v128.load(p1 + at))
    const value = f64x2.add(v128.load(before + at), f64x2.div(f64x2.mul(d1, d1), d0))
    const more = f64x2.gt(value, most)
    most = v128.bitselect(value, most, more)
    where = v128.bitselect(index, where, more)
    index = f64x2.add(index, two)
  }
  let value = f64x2.extract_lane(most, 0)
  let j = <i32>f64x2.extract_lane(where, 0)
  const other = f64x2.extract_lane(most, 1)
  const k = <i32>f64x2.extract_lane(where, 1)
  if (other > value || (other == value && k < j)) {
    value = other
    j = k
  }
  if (at < end) {
    const d0 = f64x2.extract_lane(importance, 0) - load<f64>(p0 + at)
    const d1 = f64x2.extract_lane(sum, 0) - load<f64>(p1 + at)
    const last = load<f64>(before + at) + (d1 * d1) / d0
    if (last > value) {
      value = last
      j = to
    }
  }
  store<f64>(now + (<usize>i << 3), value)
  return j
}

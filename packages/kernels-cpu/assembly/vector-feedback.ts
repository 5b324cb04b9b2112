/**
 * The feedback pass over vectors: a task is up to 96 rows, in blocks of up to 128 columns, as in feedback.ts.
 * Tables are a list of [codes, packed table, entries] of 32 bits each; entries are summed.
 */

import { BLOCK, feedLater, ROWS } from './later'
import { entries4, entrySize, search, searchNear, SQUARES } from './nearest'
import { fnma } from './simd'
import { take, thread } from './threads'

/** A vector's elements four times, twice; then indices, scales and their inverses of 64 rows. */
const X: usize = 16 * 16
const AT: usize = 64
const SCALES: usize = 64 * 4

// @ts-ignore: decorator
@inline
function inverse(s: f32): f32 {
  return s == 0 ? 0 : 1 / s
}

/**
 * Vectors of `length` rows of one column. Four of them are lanes: 4 · length rows on their side,
 * [column][element][4]. Rows past the last are zeros with a scale of 0.
 */
export function feedbackOut(
  list: usize,
  stages: i32,
  length: i32,
  weight: usize,
  rows: i32,
  columns: i32,
  factor: usize,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  columnScale: usize,
  columnBias: usize,
  from: i32,
  to: i32,
  scratch: usize,
  room: usize,
): void {
  const x = scratch + thread * room
  const squares = x + room - SQUARES
  const sum = x + X
  const at = sum + X
  const scales = at + AT
  const inverses = scales + SCALES
  const side = inverses + SCALES
  const errors = side + BLOCK * 64 * 4
  const stride = <usize>columns << 2
  const high = length << 2
  const each = <usize>high << 2
  const some96 = (ROWS / high) * high
  const vectors = (rows + length - 1) / length
  const width = to - from
  const tasks = (rows + some96 - 1) / some96
  for (let task = take(); task < tasks; task = take()) {
    const first = task * some96
    const count = min(some96, rows - first)
    for (let column = from; column < to; column += BLOCK) {
      const some = min(BLOCK, to - column)
      for (let r = 0; r < count; r += high) {
        const row = first + r
        const there = min(high, rows - row)
        const start = weight + <usize>row * stride + (<usize>column << 2)
        for (let i = 0; i < high; i++) {
          let out = side + (<usize>((i % length << 2) + i / length) << 2)
          const p = start + <usize>i * stride
          for (let j = 0; j < some; j++, out += each) {
            store<f32>(out, i < there ? load<f32>(p + (<usize>j << 2)) : 0)
          }
        }
        let block = -1
        for (let j = 0; j < some; j++) {
          const k = column + j
          if (k / scaleColumns != block) {
            block = k / scaleColumns
            for (let i = 0; i < high; i++) {
              const p = rowScale + (<usize>(row + i) * <usize>across + <usize>block << 2)
              const s: f32 = i >= there ? 0 : rowScale ? load<f32>(p) : 1
              const to4 = <usize>((i % length << 2) + i / length) << 2
              store<f32>(scales + to4, s)
              store<f32>(inverses + to4, inverse(s))
            }
          }
          const s = columnScale ? load<f32>(columnScale + (<usize>k << 2)) : <f32>1
          const bias = f32x4.splat(columnBias ? load<f32>(columnBias + (<usize>k << 2)) : 0)
          const scale = f32x4.splat(s)
          const shrink = f32x4.splat(inverse(s))
          const w = side + <usize>j * each
          for (let e: usize = 0; e < each; e += 16) {
            const v = f32x4.mul(f32x4.sub(v128.load(w + e), bias), shrink)
            v128.store(x + e, f32x4.mul(v, v128.load(inverses + e)))
            v128.store(sum + e, f32x4.splat(0))
          }
          for (let stage = 0; stage < stages; stage++) {
            const entry = list + <usize>(stage * 12)
            const table = load<usize>(entry, 4)
            const found = searchNear(length, table, load<i32>(entry, 8), x, squares)
            v128.store(at, found)
            for (let lane = 0; lane < 4; lane++) {
              const vector = row / length + lane
              if (vector >= vectors) break
              const p = load<usize>(entry) + (<usize>(vector * width + k - from) << 1)
              store<u16>(p, <u16>load<i32>(at + (<usize>lane << 2)))
            }
            for (let e = 0; e < length; e++) {
              const c = entries4(length, table, at, e)
              const p = <usize>e << 4
              v128.store(x + p, f32x4.sub(v128.load(x + p), c))
              v128.store(sum + p, f32x4.add(v128.load(sum + p), c))
            }
          }
          // Row k of U, from its diagonal on.
          const u = factor + <usize>k * stride + (<usize>k << 2)
          const d = v128.load32_splat(u)
          for (let e: usize = 0; e < each; e += 16) {
            const value = f32x4.mul(f32x4.mul(v128.load(sum + e), v128.load(scales + e)), scale)
            const q = f32x4.add(value, bias)
            const error = f32x4.div(f32x4.sub(v128.load(w + e), q), d)
            v128.store(w + e, q)
            v128.store(x + e, error)
            let p = w + e + each
            for (let m = 1; m < some - j; m++, p += each) {
              v128.store(p, fnma(error, v128.load32_splat(u + (<usize>m << 2)), v128.load(p)))
            }
          }
          const out = errors + <usize>j * (ROWS * 4) + (<usize>r << 2)
          for (let i = 0; i < high; i++) {
            const e = <usize>((i % length << 2) + i / length) << 2
            store<f32>(out + (<usize>i << 2), load<f32>(x + e))
          }
        }
        for (let i = 0; i < there; i++) {
          let p = side + (<usize>((i % length << 2) + i / length) << 2)
          const out = start + <usize>i * stride
          for (let j = 0; j < some; j++, p += each) store<f32>(out + (<usize>j << 2), load<f32>(p))
        }
      }
      feedLater(errors, weight, columns, factor, column, some, first, count)
    }
  }
}

/**
 * Vectors of `length` columns of one row; four rows are lanes, 96 rows on their side [column][96]. With
 * T = U_PP⁻¹ of the columns P at hand the distance to minimize is |(w − q)·T|, so x·T is searched in the
 * table times T, and what is left is the error that is fed on.
 */
export function feedbackIn(
  list: usize,
  stages: i32,
  length: i32,
  tableRows: i32,
  weight: usize,
  rows: i32,
  columns: i32,
  factor: usize,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  from: i32,
  to: i32,
  scratch: usize,
  room: usize,
): void {
  const x = scratch + thread * room
  const at = x + X
  const triangle = at + AT
  const side = triangle + 16 * 16 * 4
  const errors = side + BLOCK * ROWS * 4
  const tables = errors + <usize>(2 * BLOCK * ROWS * 4 + 64 + BLOCK * 64 * 4 + 192)
  const stride = <usize>columns << 2
  const wide = (BLOCK / length) * length
  const groups = (rows + tableRows - 1) / tableRows
  const parts = (min(tableRows, rows) + ROWS - 1) / ROWS
  const vectors = (to - from + length - 1) / length
  for (let task = take(); task < groups * parts; task = take()) {
    const group = task / parts
    const first = group * tableRows + (task % parts) * ROWS
    const count = min(ROWS, min(rows, (group + 1) * tableRows) - first)
    if (count <= 0) continue
    for (let column = from; column < to; column += wide) {
      const some = min(wide, to - column)
      const start = weight + <usize>first * stride + (<usize>column << 2)
      for (let i = 0; i < ROWS; i++) {
        const p = start + <usize>min(i, count - 1) * stride
        let out = side + (<usize>i << 2)
        for (let j = 0; j < some; j++, out += ROWS * 4) {
          store<f32>(out, load<f32>(p + (<usize>j << 2)))
        }
      }
      for (let j = 0; j < some; j += length) {
        const k = column + j
        const d = min(length, some - j)
        invert(triangle, factor + <usize>k * stride + (<usize>k << 2), stride, d)
        let turned = tables
        for (let stage = 0; stage < stages; stage++) {
          const entries = load<i32>(list + <usize>(stage * 12), 8)
          const size = <usize>entries * entrySize(length)
          const table = load<usize>(list + <usize>(stage * 12), 4) + <usize>group * size
          turnTable(turned, table, entries, length, d, triangle)
          turned += size
        }
        for (let r = 0; r < count; r += 4) {
          roundVectors(list, stages, length, d, group, first + r, min(4, count - r), k, x, at,
            triangle, tables, side + <usize>j * (ROWS * 4) + (<usize>r << 2),
            errors + <usize>j * (ROWS * 4) + (<usize>r << 2), rowScale, across, scaleColumns,
            vectors, (k - from) / length)
          const e0 = errors + <usize>j * (ROWS * 4) + (<usize>r << 2)
          for (let e = 0; e < d; e++) {
            const u = factor + <usize>(k + e) * stride + (<usize>k << 2)
            const error = v128.load(e0 + <usize>e * (ROWS * 4))
            let p = side + <usize>(j + d) * (ROWS * 4) + (<usize>r << 2)
            for (let m = d; m < some - j; m++, p += ROWS * 4) {
              v128.store(p, fnma(error, v128.load32_splat(u + (<usize>m << 2)), v128.load(p)))
            }
          }
        }
      }
      for (let i = 0; i < count; i++) {
        let p = side + (<usize>i << 2)
        const out = start + <usize>i * stride
        for (let j = 0; j < some; j++, p += ROWS * 4) {
          store<f32>(out + (<usize>j << 2), load<f32>(p))
        }
      }
      feedLater(errors, weight, columns, factor, column, some, first, count)
    }
  }
}

/** The inverse of the upper triangular d × d at u, in rows of 16. */
function invert(out: usize, u: usize, stride: usize, d: i32): void {
  for (let i = d - 1; i >= 0; i--) {
    const row = u + <usize>i * stride
    const pivot: f32 = 1 / load<f32>(row + (<usize>i << 2))
    for (let j = 0; j < d; j++) {
      let s: f32 = j == i ? 1 : 0
      if (j > i) {
        for (let m = i + 1; m <= j; m++) {
          s -= load<f32>(row + (<usize>m << 2)) * load<f32>(out + (<usize>((m << 4) + j) << 2))
        }
      }
      store<f32>(out + (<usize>((i << 4) + j) << 2), j < i ? 0 : s * pivot)
    }
  }
}

/** A packed table times T; elements from d on become 0. */
function turnTable(out: usize, table: usize, entries: i32, length: i32, d: i32, t: usize): void {
  for (let i = 0; i < entries; i++) {
    let square: f32 = 0
    for (let j = 0; j < length; j++) {
      let s: f32 = 0
      if (j < d) {
        for (let m = 0; m <= j; m++) {
          s += load<f32>(table + (<usize>(m + 1) << 2)) * load<f32>(t + (<usize>((m << 4) + j) << 2))
        }
      }
      square += s * s
      store<f32>(out + (<usize>(j + 1) << 2), s)
    }
    store<f32>(out, square * 0.5)
    out += entrySize(length)
    table += entrySize(length)
  }
}

/** One vector of each of four rows, at side [element][ROWS]. */
function roundVectors(
  list: usize,
  stages: i32,
  length: i32,
  d: i32,
  group: i32,
  row: i32,
  there: i32,
  column: i32,
  x: usize,
  at: usize,
  t: usize,
  turned: usize,
  side: usize,
  errors: usize,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  vectors: i32,
  vector: i32,
): void {
  let scale = f32x4.splat(1)
  let shrink = scale
  if (rowScale) {
    for (let lane = 0; lane < 4; lane++) {
      const p = <usize>(row + min(lane, there - 1)) * <usize>across + <usize>(column / scaleColumns)
      const s = load<f32>(rowScale + (p << 2))
      store<f32>(at + (<usize>lane << 2), s)
      store<f32>(at + (<usize>lane << 2), inverse(s), 16)
    }
    scale = v128.load(at)
    shrink = v128.load(at, 16)
  }
  for (let j = 0; j < length; j++) {
    let s = f32x4.splat(0)
    if (j < d) {
      for (let m = 0; m <= j; m++) {
        const w = f32x4.mul(v128.load(side + <usize>m * (ROWS * 4)), shrink)
        s = f32x4.add(s, f32x4.mul(w, v128.load32_splat(t + (<usize>((m << 4) + j) << 2))))
      }
    }
    v128.store(x + (<usize>j << 4), s)
  }
  let q0 = f32x4.splat(0)
  for (let stage = 0; stage < stages; stage++) {
    const entry = list + <usize>(stage * 12)
    const entries = load<i32>(entry, 8)
    const size = <usize>entries * entrySize(length)
    v128.store(at, search(length, turned, entries, x))
    for (let lane = 0; lane < there; lane++) {
      const p = load<usize>(entry) + (<usize>((row + lane) * vectors + vector) << 1)
      store<u16>(p, <u16>load<i32>(at + (<usize>lane << 2)))
    }
    const table = load<usize>(entry, 4) + <usize>group * size
    for (let j = 0; j < d; j++) {
      const p = x + (<usize>j << 4)
      v128.store(p, f32x4.sub(v128.load(p), entries4(length, turned, at, j)))
      const w = side + <usize>j * (ROWS * 4)
      const c = f32x4.mul(entries4(length, table, at, j), scale)
      q0 = stage == 0 ? c : f32x4.add(v128.load(w), c)
      v128.store(w, q0)
    }
    turned += size
  }
  for (let j = 0; j < d; j++) {
    v128.store(errors + <usize>j * (ROWS * 4), f32x4.mul(v128.load(x + (<usize>j << 4)), scale))
  }
}

/** Columns [from, to) of out from their codes, [stages][codes, packed table, entries]: a task is one row. */
export function decodeVectors(
  list: usize,
  stages: i32,
  length: i32,
  along: i32,
  tableRows: i32,
  out: usize,
  rows: i32,
  columns: i32,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  columnScale: usize,
  columnBias: usize,
  from: i32,
  to: i32,
  width: i32,
): void {
  for (let row = take(); row < rows; row = take()) {
    const p = out + (<usize>row * <usize>columns << 2)
    const scales = rowScale + (<usize>row * <usize>across << 2)
    const codeRow = along ? row / length : row
    for (let j = from; j < to; j++) {
      const code = along ? j - from : (j - from) / length
      const element = along ? row % length : (j - from) % length
      let sum: f32 = 0
      for (let stage = 0; stage < stages; stage++) {
        const entry = list + <usize>(stage * 12)
        const codes = load<usize>(entry)
        const index = <i32>load<u16>(codes + (<usize>(codeRow * width + code) << 1))
        const at = (row / tableRows) * load<i32>(entry, 8) + index
        const table = load<usize>(entry, 4)
        sum += load<f32>(table + <usize>at * entrySize(length) + (<usize>(element + 1) << 2))
      }
      if (rowScale) sum *= load<f32>(scales + (<usize>(j / scaleColumns) << 2))
      if (columnScale) sum *= load<f32>(columnScale + (<usize>j << 2))
      if (columnBias) sum += load<f32>(columnBias + (<usize>j << 2))
      store<f32>(p + (<usize>j << 2), sum)
    }
  }
}

/**
 * The adjoint of decodeVectors: sums f64 [tables · entries][length] of each stage += x · scales. The list holds
 * [codes, sums, entries]. One thread, in the order of rows and columns.
 */
export function scatterVectors(
  list: usize,
  stages: i32,
  length: i32,
  along: i32,
  tableRows: i32,
  x: usize,
  rows: i32,
  columns: i32,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  columnScale: usize,
  from: i32,
  to: i32,
  width: i32,
): void {
  for (let row = 0; row < rows; row++) {
    const p = x + (<usize>row * <usize>columns << 2)
    const scales = rowScale + (<usize>row * <usize>across << 2)
    const codeRow = along ? row / length : row
    for (let j = from; j < to; j++) {
      const code = along ? j - from : (j - from) / length
      const element = along ? row % length : (j - from) % length
      let value = load<f32>(p + (<usize>j << 2))
      if (rowScale) value *= load<f32>(scales + (<usize>(j / scaleColumns) << 2))
      if (columnScale) value *= load<f32>(columnScale + (<usize>j << 2))
      for (let stage = 0; stage < stages; stage++) {
        const entry = list + <usize>(stage * 12)
        const codes = load<usize>(entry)
        const index = <i32>load<u16>(codes + (<usize>(codeRow * width + code) << 1))
        const at = (row / tableRows) * load<i32>(entry, 8) + index
        const q = load<usize>(entry, 4) + (<usize>(at * length + element) << 3)
        store<f64>(q, load<f64>(q) + <f64>value)
      }
    }
  }
}

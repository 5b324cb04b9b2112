/**
 * The nearest entry of a table of vectors: argmin over i of |c_i|² / 2 − x·c_i. Four vectors x are lanes, turned
 * on their side ([element][4]); a packed table is [entry][1 + d]: half the square of its length,
 * then its elements, each splatted when it is read.
 */

import { searchCells } from './cells'
import { narrowOf, NARROW_ROOM, searchNarrow } from './nearest-narrow'
import { take, thread, wide } from './threads'

/** Bytes of an entry of a packed table. */
// @ts-ignore: decorator
@inline
export function entrySize(d: i32): usize {
  return <usize>(d + 1) << 2
}

export function packVectors(out: usize, table: usize, entries: i32, d: i32): void {
  for (let i = 0; i < entries; i++) {
    let square: f32 = 0
    for (let e = 0; e < d; e++, table += 4) {
      const c = load<f32>(table)
      square += c * c
      store<f32>(out + (<usize>(e + 1) << 2), c)
    }
    store<f32>(out, square * 0.5)
    out += entrySize(d)
  }
}

/** Indices of the entries nearest to the four vectors at x; of equal ones the first. */
export function search(d: i32, table: usize, entries: i32, x: usize): v128 {
  switch (d) {
    case 1:
      return scan(1, table, entries, x)
    case 2:
      return scan(2, table, entries, x)
    case 3:
      return scan(3, table, entries, x)
    case 4:
      return scan(4, table, entries, x)
    case 5:
      return scan(5, table, entries, x)
    case 6:
      return scan(6, table, entries, x)
    case 7:
      return scan(7, table, entries, x)
    case 8:
      return scan(8, table, entries, x)
    default:
      return scanLong(d, table, entries, x)
  }
}

/** Bytes of a thread's scratch that cells need, at its end: 4 for each of the most there are. */
export const SQUARES: usize = 512 * 4

/** The same by way of the table's cells, if it has any: their address is in the 4 bytes before it. */
// @ts-ignore: decorator
@inline
export function searchNear(d: i32, table: usize, entries: i32, x: usize, squares: usize): v128 {
  const cells = load<usize>(table - 4)
  if (!cells) return search(d, table, entries, x)
  let found = i32x4.splat(searchCells(d, cells, x, squares))
  found = i32x4.replace_lane(found, 1, searchCells(d, cells, x + 4, squares))
  found = i32x4.replace_lane(found, 2, searchCells(d, cells, x + 8, squares))
  return i32x4.replace_lane(found, 3, searchCells(d, cells, x + 12, squares))
}

/** s − x·c. In the relaxed build too: with V8's fused form the search takes 1.7 times as long. */
// @ts-ignore: decorator
@inline
function less(x: v128, c: v128, s: v128): v128 {
  return f32x4.sub(s, f32x4.mul(x, c))
}

// @ts-ignore: decorator
@inline
function scan(d: i32, table: usize, entries: i32, x: usize): v128 {
  const x0 = v128.load(x)
  const x1 = d > 1 ? v128.load(x, 16) : x0
  const x2 = d > 2 ? v128.load(x, 32) : x0
  const x3 = d > 3 ? v128.load(x, 48) : x0
  const x4 = d > 4 ? v128.load(x, 64) : x0
  const x5 = d > 5 ? v128.load(x, 80) : x0
  const x6 = d > 6 ? v128.load(x, 96) : x0
  const x7 = d > 7 ? v128.load(x, 112) : x0
  let least = f32x4.splat(Infinity)
  let found = i32x4.splat(0)
  let index = i32x4.splat(0)
  const one = i32x4.splat(1)
  const end = table + <usize>entries * entrySize(d)
  for (; table < end; table += entrySize(d)) {
    let s = less(x0, v128.load32_splat(table, 4), v128.load32_splat(table))
    if (d > 1) s = less(x1, v128.load32_splat(table, 8), s)
    if (d > 2) s = less(x2, v128.load32_splat(table, 12), s)
    if (d > 3) s = less(x3, v128.load32_splat(table, 16), s)
    if (d > 4) s = less(x4, v128.load32_splat(table, 20), s)
    if (d > 5) s = less(x5, v128.load32_splat(table, 24), s)
    if (d > 6) s = less(x6, v128.load32_splat(table, 28), s)
    if (d > 7) s = less(x7, v128.load32_splat(table, 32), s)
    found = v128.bitselect(index, found, f32x4.lt(s, least))
    least = f32x4.pmin(least, s)
    index = i32x4.add(index, one)
  }
  return found
}

/**
 * The same for eight vectors, [element][8], found at `at`: two halves that an engine with vectors of 256 bits makes
 * one of (threads.ts, `wide`).
 */
// @ts-ignore: decorator
@inline
function scanEight(d: i32, table: usize, entries: i32, x: usize, at: usize): void {
  const x00 = v128.load(x)
  const x01 = v128.load(x, 16)
  const x10 = d > 1 ? v128.load(x, 32) : x00
  const x11 = d > 1 ? v128.load(x, 48) : x01
  const x20 = d > 2 ? v128.load(x, 64) : x00
  const x21 = d > 2 ? v128.load(x, 80) : x01
  const x30 = d > 3 ? v128.load(x, 96) : x00
  const x31 = d > 3 ? v128.load(x, 112) : x01
  const x40 = d > 4 ? v128.load(x, 128) : x00
  const x41 = d > 4 ? v128.load(x, 144) : x01
  const x50 = d > 5 ? v128.load(x, 160) : x00
  const x51 = d > 5 ? v128.load(x, 176) : x01
  const x60 = d > 6 ? v128.load(x, 192) : x00
  const x61 = d > 6 ? v128.load(x, 208) : x01
  const x70 = d > 7 ? v128.load(x, 224) : x00
  const x71 = d > 7 ? v128.load(x, 240) : x01
  const far = f32x4.splat(Infinity)
  let least0 = far
  let least1 = far
  let found0 = i32x4.splat(0)
  let found1 = found0
  for (let i = 0; i < entries; i++, table += entrySize(d)) {
    let c = v128.load32_splat(table, 4)
    const half = v128.load32_splat(table)
    let s0 = less(x00, c, half)
    let s1 = less(x01, c, half)
    if (d > 1) {
      c = v128.load32_splat(table, 8)
      s0 = less(x10, c, s0)
      s1 = less(x11, c, s1)
    }
    if (d > 2) {
      c = v128.load32_splat(table, 12)
      s0 = less(x20, c, s0)
      s1 = less(x21, c, s1)
    }
    if (d > 3) {
      c = v128.load32_splat(table, 16)
      s0 = less(x30, c, s0)
      s1 = less(x31, c, s1)
    }
    if (d > 4) {
      c = v128.load32_splat(table, 20)
      s0 = less(x40, c, s0)
      s1 = less(x41, c, s1)
    }
    if (d > 5) {
      c = v128.load32_splat(table, 24)
      s0 = less(x50, c, s0)
      s1 = less(x51, c, s1)
    }
    if (d > 6) {
      c = v128.load32_splat(table, 28)
      s0 = less(x60, c, s0)
      s1 = less(x61, c, s1)
    }
    if (d > 7) {
      c = v128.load32_splat(table, 32)
      s0 = less(x70, c, s0)
      s1 = less(x71, c, s1)
    }
    const index = i32x4.splat(i)
    found0 = v128.bitselect(index, found0, f32x4.lt(s0, least0))
    found1 = v128.bitselect(index, found1, f32x4.lt(s1, least1))
    least0 = f32x4.pmin(least0, s0)
    least1 = f32x4.pmin(least1, s1)
  }
  v128.store(at, found0)
  v128.store(at, found1, 16)
}

/** Lengths that it knows: 1 to 8. */
function searchEight(d: i32, table: usize, entries: i32, x: usize, at: usize): void {
  switch (d) {
    case 1:
      scanEight(1, table, entries, x, at)
      return
    case 2:
      scanEight(2, table, entries, x, at)
      return
    case 3:
      scanEight(3, table, entries, x, at)
      return
    case 4:
      scanEight(4, table, entries, x, at)
      return
    case 5:
      scanEight(5, table, entries, x, at)
      return
    case 6:
      scanEight(6, table, entries, x, at)
      return
    case 7:
      scanEight(7, table, entries, x, at)
      return
    default:
      scanEight(8, table, entries, x, at)
  }
}

function scanLong(d: i32, table: usize, entries: i32, x: usize): v128 {
  let least = f32x4.splat(Infinity)
  let found = i32x4.splat(0)
  for (let i = 0; i < entries; i++, table += entrySize(d)) {
    let s = v128.load32_splat(table)
    for (let e = 0; e < d; e++) {
      s = less(v128.load(x + (<usize>e << 4)), v128.load32_splat(table + (<usize>e << 2), 4), s)
    }
    found = v128.bitselect(i32x4.splat(i), found, f32x4.lt(s, least))
    least = f32x4.pmin(least, s)
  }
  return found
}

/** Element e of the entries that four indices name. */
// @ts-ignore: decorator
@inline
export function entries4(d: i32, table: usize, at: usize, e: i32): v128 {
  const p = table + (<usize>(e + 1) << 2)
  const size = entrySize(d)
  let v = v128.load32_splat(p + <usize>load<i32>(at) * size)
  v = v128.load32_lane(p + <usize>load<i32>(at, 4) * size, v, 1)
  v = v128.load32_lane(p + <usize>load<i32>(at, 8) * size, v, 2)
  return v128.load32_lane(p + <usize>load<i32>(at, 12) * size, v, 3)
}

/** Vectors that one task searches. */
const TASK = 64

/** codes[i] of x [n, d]; distances, if any, are squared and never below 0. */
export function nearest(
  codes: usize,
  distances: usize,
  x: usize,
  n: i32,
  d: i32,
  table: usize,
  entries: i32,
  scratch: usize,
  room: usize,
): void {
  const side = scratch + thread * room
  const at = side + 256
  const together = wide && d <= 8 && !load<usize>(table - 4) ? 8 : 4
  const line = <usize>together << 2
  const squares = side + room - SQUARES
  const spare = squares - NARROW_ROOM
  const narrow = together == 8 && narrowOf(table) != 0
  const stride = <usize>d << 2
  const tasks = (n + TASK - 1) / TASK
  for (let task = take(); task < tasks; task = take()) {
    const last = min(n, (task + 1) * TASK)
    for (let i = task * TASK; i < last; i += together) {
      for (let lane = 0; lane < together; lane++) {
        const p = x + <usize>min(i + lane, last - 1) * stride
        let to = side + (<usize>lane << 2)
        for (let e = 0; e < d; e++, to += line) store<f32>(to, load<f32>(p + (<usize>e << 2)))
      }
      if (narrow && searchNarrow(d, table, entries, side, at, spare)) {
        // Found.
      } else if (together == 8) searchEight(d, table, entries, side, at)
      else v128.store(at, searchNear(d, table, entries, side, squares))
      for (let lane = 0; lane < min(together, last - i); lane += 4) {
        const some = min(4, last - i - lane)
        const first = i + lane
        const found = at + (<usize>lane << 2)
        for (let j = 0; j < some; j++) {
          store<u16>(codes + (<usize>(first + j) << 1), <u16>load<i32>(found + (<usize>j << 2)))
        }
        if (!distances) continue
        let s = f32x4.splat(0)
        let from = side + (<usize>lane << 2)
        for (let e = 0; e < d; e++, from += line) {
          const c = f32x4.sub(v128.load(from), entries4(d, table, found, e))
          s = f32x4.add(s, f32x4.mul(c, c))
        }
        v128.store(found, s)
        for (let j = 0; j < some; j++) {
          store<f32>(distances + (<usize>(first + j) << 2), load<f32>(found + (<usize>j << 2)))
        }
      }
    }
  }
}

/**
 * sums f64 [entries][d + 1] += weight · (x, 1) of each vector's entry. One thread, in the order of the
 * vectors: the result must not depend on how they are shared out.
 */
export function clusterSums(
  sums: usize,
  x: usize,
  n: i32,
  d: i32,
  codes: usize,
  weights: usize,
  entries: i32,
): i32 {
  const size = <usize>(d + 1) << 3
  for (let i = 0; i < n; i++) {
    const code = <i32>load<u16>(codes + (<usize>i << 1))
    if (code >= entries) return i + 1
    const weight: f64 = weights ? <f64>load<f32>(weights + (<usize>i << 2)) : 1
    const out = sums + <usize>code * size
    for (let e = 0; e < d; e++, x += 4) {
      const p = out + (<usize>e << 3)
      store<f64>(p, load<f64>(p) + weight * <f64>load<f32>(x))
    }
    const p = out + (<usize>d << 3)
    store<f64>(p, load<f64>(p) + weight)
  }
  return 0
}

/** For each entry the nearest ones by rising distance, itself first: a task is one entry. */
export function neighbours(
  out: usize,
  table: usize,
  entries: i32,
  d: i32,
  candidates: i32,
  scratch: usize,
  room: usize,
): void {
  const best = scratch + thread * room
  const size = entrySize(d)
  for (let task = take(); task < entries; task = take()) {
    const mine = table + <usize>task * size
    const codes = out + <usize>(task * candidates) * 2
    store<u16>(codes, <u16>task)
    let count = 1
    for (let i = 0; i < entries; i++) {
      if (i == task) continue
      const other = table + <usize>i * size
      let s: f32 = 0
      for (let e = 1; e <= d; e++) {
        const c = load<f32>(mine + (<usize>e << 2)) - load<f32>(other + (<usize>e << 2))
        s += c * c
      }
      if (count == candidates && !(s < load<f32>(best + (<usize>(count - 1) << 2)))) continue
      if (candidates == 1) continue
      let j = count < candidates ? count++ : count - 1
      for (; j > 1 && s < load<f32>(best + (<usize>(j - 1) << 2)); j--) {
        store<f32>(best + (<usize>j << 2), load<f32>(best + (<usize>(j - 1) << 2)))
        store<u16>(codes + (<usize>j << 1), load<u16>(codes + (<usize>(j - 1) << 1)))
      }
      store<f32>(best + (<usize>j << 2), s)
      store<u16>(codes + (<usize>j << 1), <u16>i)
    }
  }
}

/** out [columns][wide] = xᵀ, x [rows][columns]; columns of out past the rows of x are zeros. */
export function transpose(out: usize, x: usize, rows: i32, columns: i32, wide: i32): void {
  const tasks = (columns + 15) >> 4
  for (let task = take(); task < tasks; task = take()) {
    const from = task << 4
    const to = min(columns, from + 16)
    for (let row = 0; row < rows; row++) {
      const p = x + (<usize>row * <usize>columns << 2)
      for (let column = from; column < to; column++) {
        const value = load<f32>(p + (<usize>column << 2))
        store<f32>(out + ((<usize>column * <usize>wide + <usize>row) << 2), value)
      }
    }
    for (let column = from; column < to; column++) {
      const p = out + ((<usize>column * <usize>wide + <usize>rows) << 2)
      memory.fill(p, 0, <usize>(wide - rows) << 2)
    }
  }
}

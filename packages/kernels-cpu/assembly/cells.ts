/**
 * An exact search for the nearest entry of a large table that looks at few of them. Entries lie in cells, found
 * by k-means; one x meets the centers of four cells, or four entries of a cell, at a time. By the triangle
 * inequality no entry of a cell is nearer than |x − center| − radius; and as entries are nearer to their own
 * center m than to n, the nearest to x, none is nearer than (|x − m|² − |x − n|²) / (2·|m − n|). Cells for which
 * one of the two exceeds the best distance so far are passed over, with room for all rounding; scores
 * are computed as nearest.ts does, so that the result is the same, of equal scores the first.
 *
 * In memory (vectors of 4): [cells / 4][½·|center|², center, radius], then [quads][½·|c|², c, index], padded
 * with entries of score ∞, and [cells][cells] of 1 / (2·|m − n|); before them a header of HEADER bytes and the
 * first quad of each cell.
 */

import { entrySize, search } from './nearest'
import { largest } from './simd'

/**
 * cells i32, centers, quads, starts (addresses), the largest |c|² f32, inverse distances, narrow quads
 * (addresses), their factor and the largest Σ |c| in them, f32.
 */
const HEADER: usize = 48
const ITERATIONS = 3

/** Bytes of `count` cells over a table, at most: each cell may end in a part of a quad. */
export function cellsSize(entries: i32, d: i32, count: i32): i32 {
  const quads = (entries + 3 * count + 3) >> 2
  const vectors = ((count >> 2) + quads) * (d + 2) + quads * <i32>(narrowSize(d) >> 4)
  return <i32>HEADER + (vectors << 4) + ((count * count + count + 1) << 2) + 80
}

/**
 * Divides a packed table (nearest.ts) into `count` cells, a multiple of 4. `scratch`: a packed table of them,
 * sums, entries' cells and 512 bytes.
 */
export function buildCells(
  out: usize,
  table: usize,
  entries: i32,
  d: i32,
  count: i32,
  scratch: usize,
): void {
  const size = entrySize(d)
  const side = scratch
  const at = side + 256
  const centers = at + 64
  const sums = centers + <usize>count * size
  const cellOf = sums + <usize>count * size
  for (let i = 0; i < count; i++) {
    const from = <usize>((<i64>i * <i64>entries) / <i64>count)
    memory.copy(centers + <usize>i * size, table + from * size, size)
  }
  for (let iteration = 0; iteration <= ITERATIONS; iteration++) {
    assign(cellOf, table, entries, d, centers, count, side, at)
    if (iteration == ITERATIONS) break
    memory.fill(sums, 0, <usize>count * size)
    for (let i = 0; i < entries; i++) {
      const sum = sums + <usize>load<i32>(cellOf + (<usize>i << 2)) * size
      const c = table + <usize>i * size
      store<f32>(sum, load<f32>(sum) + 1)
      for (let e: usize = 4; e < size; e += 4) {
        store<f32>(sum + e, load<f32>(sum + e) + load<f32>(c + e))
      }
    }
    for (let i = 0; i < count; i++) {
      const sum = sums + <usize>i * size
      const n = load<f32>(sum)
      if (n == 0) continue
      const center = centers + <usize>i * size
      let square: f32 = 0
      for (let e: usize = 4; e < size; e += 4) {
        const c = load<f32>(sum + e) / n
        square += c * c
        store<f32>(center + e, c)
      }
      store<f32>(center, square * 0.5)
    }
  }
  lay(out, table, entries, d, centers, count, cellOf, sums)
}

/** The nearest center of each entry. */
function assign(
  cellOf: usize,
  table: usize,
  entries: i32,
  d: i32,
  centers: usize,
  count: i32,
  side: usize,
  at: usize,
): void {
  const size = entrySize(d)
  for (let i = 0; i < entries; i += 4) {
    for (let lane = 0; lane < 4; lane++) {
      const p = table + <usize>min(i + lane, entries - 1) * size + 4
      for (let e = 0; e < d; e++) {
        store<f32>(side + <usize>((e << 4) + (lane << 2)), load<f32>(p + (<usize>e << 2)))
      }
    }
    v128.store(at, search(d, centers, count, side))
    for (let lane = 0; lane < min(4, entries - i); lane++) {
      store<i32>(cellOf + (<usize>(i + lane) << 2), load<i32>(at + (<usize>lane << 2)))
    }
  }
}

/** Writes centers, radii and entries cell by cell. `places`: 8 bytes for each cell. */
function lay(
  out: usize,
  table: usize,
  entries: i32,
  d: i32,
  centers: usize,
  count: i32,
  cellOf: usize,
  places: usize,
): void {
  const size = entrySize(d)
  const each = <usize>(d + 2) << 4
  const starts = out + HEADER
  const cells = (starts + (<usize>(count + 1) << 2) + 15) & ~15
  const quads = cells + <usize>(count >> 2) * each
  store<i32>(out, count)
  store<usize>(out, cells, 4)
  store<usize>(out, quads, 8)
  store<usize>(out, starts, 12)
  // How many there are in each cell; then how many have been laid.
  memory.fill(places, 0, <usize>count << 2)
  for (let i = 0; i < entries; i++) {
    const p = places + (<usize>load<i32>(cellOf + (<usize>i << 2)) << 2)
    store<i32>(p, load<i32>(p) + 1)
  }
  let quad = 0
  for (let i = 0; i < count; i++) {
    store<i32>(starts + (<usize>i << 2), quad)
    const p = places + (<usize>i << 2)
    quad += (load<i32>(p) + 3) >> 2
    store<i32>(p, 0)
    const to = cells + <usize>(i >> 2) * each + <usize>((i & 3) << 2)
    for (let e = 0; e <= d; e++) {
      store<f32>(to + (<usize>e << 4), load<f32>(centers + <usize>i * size + (<usize>e << 2)))
    }
    store<f32>(to + (<usize>(d + 1) << 4), 0)
  }
  store<i32>(starts + (<usize>count << 2), quad)
  for (let i = 0; i < quad; i++) {
    const p = quads + <usize>i * each
    memory.fill(p, 0, each)
    v128.store(p, f32x4.splat(Infinity))
  }
  let most: f32 = 0
  for (let i = 0; i < entries; i++) {
    const cell = load<i32>(cellOf + (<usize>i << 2))
    const place = places + (<usize>cell << 2)
    const n = load<i32>(place)
    store<i32>(place, n + 1)
    const first = load<i32>(starts + (<usize>cell << 2))
    const to = quads + <usize>(first + (n >> 2)) * each + <usize>((n & 3) << 2)
    const c = table + <usize>i * size
    const center = centers + <usize>cell * size
    let square: f32 = 0
    for (let e = 0; e <= d; e++) {
      const value = load<f32>(c + (<usize>e << 2))
      store<f32>(to + (<usize>e << 4), value)
      if (e == 0) continue
      const off = value - load<f32>(center + (<usize>e << 2))
      square += off * off
    }
    store<i32>(to + (<usize>(d + 1) << 4), i)
    most = max(most, load<f32>(c) * 2)
    const radius = cells + <usize>(cell >> 2) * each + (<usize>(d + 1) << 4) + <usize>((cell & 3) << 2)
    // A little more, so that rounding never makes it too short.
    store<f32>(radius, max(load<f32>(radius), Mathf.sqrt(square) * 1.00001))
  }
  store<f32>(out, most, 16)
  const inverses = quads + <usize>quad * each
  store<usize>(out, inverses, 20)
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) {
      let square: f32 = 0
      for (let e: usize = 4; e < size; e += 4) {
        const m = centers + <usize>i * size + e
        const off = load<f32>(m) - load<f32>(centers + <usize>j * size + e)
        square += off * off
      }
      store<f32>(inverses + (<usize>(i * count + j) << 2), 0.5 / Mathf.sqrt(square))
    }
  }
  const narrow = (inverses + (<usize>(count * count) << 2) + 15) & ~15
  layNarrow(out, narrow, quads, quad, d)
}

/** Bytes of a quad in whole numbers: half the squares, then pairs of elements. */
// @ts-ignore: decorator
@inline
function narrowSize(d: i32): usize {
  return <usize>(1 + ((d + 1) >> 1)) << 4
}

/** Products of 14 and 15 bits, eight of them, and half a square stay within 32. */
const MOST_OF_TABLE: f32 = 8191
const MOST_OF_X: f32 = 16383
const MOST_OF_SQUARES: f32 = 536870912

/**
 * The quads again in whole numbers of at most MOST_OF_TABLE: [½·|c|² i32], then −c, i16, two elements of each of the
 * four entries in a vector. Padding is farther than anything.
 */
function layNarrow(out: usize, narrow: usize, quads: usize, count: i32, d: i32): void {
  const each = <usize>(d + 2) << 4
  let most: f32 = 0
  for (let i = 0; i < count; i++) {
    for (let e = 16; e <= d << 4; e += 4) {
      most = max(most, abs(load<f32>(quads + <usize>i * each + <usize>e)))
    }
  }
  // Of a table with infinite values all is 0, so that everything is looked at.
  const factor: f32 = most > 1e-30 && most < Infinity ? MOST_OF_TABLE / most : 0
  const size = narrowSize(d)
  let largest: f32 = 0
  for (let i = 0; i < count; i++) {
    const from = quads + <usize>i * each
    const to = narrow + <usize>i * size
    memory.fill(to, 0, size)
    for (let lane = 0; lane < 16; lane += 4) {
      const square = load<f32>(from + <usize>lane)
      const number = factor > 0 ? nearest(min(square * factor * factor, MOST_OF_SQUARES)) : 0
      store<i32>(to + <usize>lane, square == Infinity ? i32.MAX_VALUE : <i32>number)
      let sum: f32 = 0
      for (let e = 0; e < d; e++) {
        const v = load<f32>(from + <usize>((e + 1) << 4) + <usize>lane)
        const c = factor > 0 ? nearest(v * factor) : 0
        store<i16>(to + <usize>(((e >> 1) << 4) + lane + ((e & 1) << 1)), <i16>-<i32>c, 16)
        sum += abs(c)
      }
      largest = max(largest, sum)
    }
  }
  store<usize>(out, narrow, 24)
  store<f32>(out, factor, 28)
  store<f32>(out, largest, 32)
}

/** Two elements of x at p, 16 bytes apart, as whole numbers in all lanes. */
// @ts-ignore: decorator
@inline
function pair(p: usize, factor: f32, both: i32): v128 {
  if (factor == 0) return i32x4.splat(0)
  const a = <i32>nearest(load<f32>(p) * factor)
  const b = both ? <i32>nearest(load<f32>(p, 16) * factor) : 0
  return i32x4.splat((a & 0xffff) | (b << 16))
}

/** Of the squared distances, in |x|² + |c|²: more than twice what 18 roundings can make. */
const ROUNDING: f32 = 8e-6

/**
 * The nearest entry of one x, whose elements are 16 bytes apart. `squares`: 4 bytes for each cell. Up to eight
 * elements.
 */
export function searchCells(d: i32, cells: usize, x: usize, squares: usize): i32 {
  switch (d) {
    case 4:
      return walk(4, cells, x, squares)
    case 5:
      return walk(5, cells, x, squares)
    case 6:
      return walk(6, cells, x, squares)
    case 7:
      return walk(7, cells, x, squares)
    default:
      return walk(8, cells, x, squares)
  }
}

/** s − x·c, rounded as in nearest.ts. */
// @ts-ignore: decorator
@inline
function less(x: v128, c: v128, s: v128): v128 {
  return f32x4.sub(s, f32x4.mul(x, c))
}

// @ts-ignore: decorator
@inline
function walk(d: i32, cells: usize, x: usize, squares: usize): i32 {
  const x0 = v128.load32_splat(x)
  const x1 = v128.load32_splat(x, 16)
  const x2 = v128.load32_splat(x, 32)
  const x3 = v128.load32_splat(x, 48)
  const x4 = d > 4 ? v128.load32_splat(x, 64) : x0
  const x5 = d > 5 ? v128.load32_splat(x, 80) : x0
  const x6 = d > 6 ? v128.load32_splat(x, 96) : x0
  const x7 = d > 7 ? v128.load32_splat(x, 112) : x0
  const each = <usize>(d + 2) << 4
  const count = load<i32>(cells)
  const centers = load<usize>(cells, 4)
  const quads = load<usize>(cells, 8)
  const starts = load<usize>(cells, 12)
  let xx: f32 = 0
  for (let e = 0; e < d; e++) {
    const v = load<f32>(x + (<usize>e << 4))
    xx += v * v
  }
  const slack = ROUNDING * (xx + load<f32>(cells, 16))
  // |x − center|² of all cells, less what rounding may have added; and the nearest.
  const base = f32x4.splat(xx - slack)
  let least = f32x4.splat(Infinity)
  let found = i32x4.splat(0)
  let index = i32x4.splat(0)
  let p = centers
  for (let i = 0; i < count; i += 4, p += each) {
    let s = v128.load(p)
    s = less(x0, v128.load(p, 16), s)
    s = less(x1, v128.load(p, 32), s)
    s = less(x2, v128.load(p, 48), s)
    s = less(x3, v128.load(p, 64), s)
    if (d > 4) s = less(x4, v128.load(p, 80), s)
    if (d > 5) s = less(x5, v128.load(p, 96), s)
    if (d > 6) s = less(x6, v128.load(p, 112), s)
    if (d > 7) s = less(x7, v128.load(p, 128), s)
    found = v128.bitselect(index, found, f32x4.lt(s, least))
    least = f32x4.pmin(least, s)
    index = i32x4.add(index, i32x4.splat(1))
    v128.store(squares + (<usize>i << 2), f32x4.add(f32x4.add(s, s), base))
  }
  const nearest = -largest(f32x4.neg(least))
  let lane = 0
  if (f32x4.extract_lane(least, 1) == nearest) lane = 1
  if (f32x4.extract_lane(least, 2) == nearest) lane = 2
  if (f32x4.extract_lane(least, 3) == nearest) lane = 3
  let cell = i32x4.extract_lane(found, 0) << 2
  if (lane == 1) cell = (i32x4.extract_lane(found, 1) << 2) + 1
  if (lane == 2) cell = (i32x4.extract_lane(found, 2) << 2) + 2
  if (lane == 3) cell = (i32x4.extract_lane(found, 3) << 2) + 3
  const first = cell
  const inverses = load<usize>(cells, 20) + (<usize>(first * count) << 2)
  // Scores in whole numbers are off by half of |x|₁ + |c|₁, and what rounding made of the others. One is
  // looked at again, exactly, unless it is farther than that from the least so far.
  const narrow = load<usize>(cells, 24)
  const factor = load<f32>(cells, 28)
  const size = narrowSize(d)
  let sum: f32 = 0
  let most: f32 = 0
  for (let e = 0; e < d; e++) {
    const v = abs(load<f32>(x + (<usize>e << 4))) * factor
    sum += v
    most = max(most, v)
  }
  // Not "less": of what is not a number everything is searched.
  const fits = most <= MOST_OF_X
  const f = fits ? factor : 0
  const y0 = pair(x, f, 1)
  const y1 = pair(x + 32, f, 1)
  const y2 = d > 4 ? pair(x + 64, f, d > 5 ? 1 : 0) : y0
  const y3 = d > 6 ? pair(x + 96, f, d > 7 ? 1 : 0) : y0
  const scale = <f64>factor * <f64>factor
  const margin = 0.5 * (<f64>sum + <f64>load<f32>(cells, 32)) + <f64>slack * scale + <f64>d + 2
  let bound = i32x4.splat(i32.MAX_VALUE)
  const ahead = f32x4.splat(xx + 2 * nearest + 4 * slack)
  // The nearest cell first, then those that may hold something nearer.
  least = f32x4.splat(Infinity)
  found = i32x4.splat(0)
  let limit = f32x4.splat(0)
  let mask = 1
  let next = -4
  while (true) {
    const end = load<i32>(starts + (<usize>cell << 2), 4)
    const begin = <usize>load<i32>(starts + (<usize>cell << 2))
    p = quads + begin * each
    const last = quads + <usize>end * each
    for (let q = narrow + begin * size; p < last; p += each, q += size) {
      let a = i32x4.add(v128.load(q), i32x4.dot_i16x8_s(y0, v128.load(q, 16)))
      let b = i32x4.dot_i16x8_s(y1, v128.load(q, 32))
      if (d > 4) a = i32x4.add(a, i32x4.dot_i16x8_s(y2, v128.load(q, 48)))
      if (d > 6) b = i32x4.add(b, i32x4.dot_i16x8_s(y3, v128.load(q, 64)))
      if (!v128.any_true(i32x4.le_s(i32x4.add(a, b), bound))) continue
      let s = v128.load(p)
      s = less(x0, v128.load(p, 16), s)
      s = less(x1, v128.load(p, 32), s)
      s = less(x2, v128.load(p, 48), s)
      s = less(x3, v128.load(p, 64), s)
      if (d > 4) s = less(x4, v128.load(p, 80), s)
      if (d > 5) s = less(x5, v128.load(p, 96), s)
      if (d > 6) s = less(x6, v128.load(p, 112), s)
      if (d > 7) s = less(x7, v128.load(p, 128), s)
      const at = v128.load(p + (<usize>(d + 1) << 4))
      const same = v128.and(f32x4.eq(s, least), i32x4.lt_s(at, found))
      found = v128.bitselect(at, found, v128.or(f32x4.lt(s, least), same))
      least = f32x4.pmin(least, s)
      if (fits) {
        const score = -<f64>largest(f32x4.neg(least))
        const most = score * scale + margin
        bound = i32x4.splat(most < <f64>i32.MAX_VALUE ? <i32>most + 1 : i32.MAX_VALUE)
      }
    }
    mask &= mask - 1
    if (mask == 0) {
      const best = xx - 2 * largest(f32x4.neg(least)) + slack
      limit = f32x4.splat(Mathf.sqrt(max(best, 0)) * 1.00001)
    }
    while (mask == 0) {
      next += 4
      if (next >= count) break
      const reach = f32x4.add(
        limit,
        v128.load(centers + <usize>(next >> 2) * each + (<usize>(d + 1) << 4)),
      )
      // Not "nearer": of what is not a number everything is searched.
      const square = v128.load(squares + (<usize>next << 2))
      const far = f32x4.gt(square, f32x4.mul(reach, reach))
      const facet = f32x4.mul(f32x4.sub(square, ahead), v128.load(inverses + (<usize>next << 2)))
      mask = i32x4.bitmask(v128.or(far, f32x4.gt(facet, limit))) ^ 15
      if (next == (first & ~3)) mask &= ~(1 << (first & 3))
    }
    if (mask == 0) break
    cell = next + ctz(mask)
  }
  // Of four lanes the least score, of equal ones the first entry.
  let score = f32x4.extract_lane(least, 0)
  let result = i32x4.extract_lane(found, 0)
  for (let i = 1; i < 4; i++) {
    least = v128.shuffle<f32>(least, least, 1, 2, 3, 0)
    found = v128.shuffle<i32>(found, found, 1, 2, 3, 0)
    const s = f32x4.extract_lane(least, 0)
    const at = i32x4.extract_lane(found, 0)
    if (s < score || (s == score && at < result)) {
      score = s
      result = at
    }
  }
  return result
}

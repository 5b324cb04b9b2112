/**
 * The nearest entries of eight vectors at once, exact, most of it in whole numbers: scores ½·|c|² − x·c of 16-bit numbers
 * take one instruction for two elements where f32 takes two for one. They are off by no more than a margin, so an
 * entry whose score exceeds the best so far by more than that is passed over; the others are scored in f32 as
 * nearest.ts does, so that the result is the same, of equal scores the first. Four entries meet the bound together.
 * Two halves of four lanes stand side by side for engines with vectors of 256 bits (threads.ts, `wide`).
 *
 * A narrow table is [entry][5]: ½·|c|² i32, then −c in pairs of i16, all times a factor; of 7 or 8 elements.
 */

import { entrySize } from './nearest'

/** Products of 14 and 15 bits, eight of them, and half a square stay within 32. */
const MOST_OF_TABLE: f32 = 8191
const MOST_OF_X: f32 = 16383
/** Of the squared distances, in |x|² + |c|²: more than twice what 18 roundings can make. */
const ROUNDING: f32 = 8e-6

/** Before a packed table: address of the narrow one or 0, its factor, its largest Σ |c| and the largest |c|². */
const ADDRESS: usize = 8
const FACTOR: usize = 12
const SUMS: usize = 16
const SQUARES: usize = 20

// @ts-ignore: decorator
@inline
export function narrowOf(table: usize): usize {
  return load<usize>(table - ADDRESS)
}

/** Bytes of an entry of a narrow table. */
const NARROW: usize = 20

/** Writes the narrow table at `out` and says so before the packed one; not where entries are infinite or all 0. */
export function packNarrow(out: usize, table: usize, entries: i32, d: i32): void {
  const size = entrySize(d)
  let most: f32 = 0
  let square: f32 = 0
  for (let i = 0; i < entries; i++) {
    const c = table + <usize>i * size
    square = max(square, load<f32>(c) * 2)
    for (let e = 1; e <= d; e++) most = max(most, abs(load<f32>(c + (<usize>e << 2))))
  }
  store<usize>(table - ADDRESS, 0)
  if (!(most > 1e-15 && square < Infinity)) return
  const factor = MOST_OF_TABLE / most
  let largest: f32 = 0
  for (let i = 0; i < entries; i++) {
    const c = table + <usize>i * size
    const to = out + <usize>i * NARROW
    store<i32>(to, <i32>nearest(load<f32>(c) * factor * factor))
    let sum: f32 = 0
    for (let e = 0; e < d; e += 2) {
      const a = nearest(load<f32>(c + (<usize>(e + 1) << 2)) * factor)
      const b: f32 = e + 1 < d ? nearest(load<f32>(c + (<usize>(e + 2) << 2)) * factor) : 0
      store<i32>(to + <usize>(e << 1), (-<i32>a & 0xffff) | (-<i32>b << 16), 4)
      sum += abs(a) + abs(b)
    }
    largest = max(largest, sum)
  }
  store<usize>(table - ADDRESS, out)
  store<f32>(table - FACTOR, factor)
  store<f32>(table - SUMS, largest)
  store<f32>(table - SQUARES, square)
}

/** Bytes of room: pairs of x, margins, bounds, least scores and their entries, and four entries' least. */
export const NARROW_ROOM: usize = 9 * 32
const MARGINS: usize = 4 * 32
const BOUNDS: usize = 5 * 32
const LEAST: usize = 6 * 32
const FOUND: usize = 7 * 32
const SPOT: usize = 8 * 32

/**
 * Indices of the entries nearest to the eight vectors at x, [element][8], to `at`; 7 or 8 elements. False where x
 * does not fit into whole numbers: then nothing was done.
 */
export function searchNarrow(
  d: i32,
  table: usize,
  entries: i32,
  x: usize,
  at: usize,
  room: usize,
): bool {
  const factor = load<f32>(table - FACTOR)
  const scale = factor * factor
  for (let lane: usize = 0; lane < 32; lane += 4) {
    let square: f32 = 0
    let sum: f32 = 0
    let most: f32 = 0
    for (let e = 0; e < d; e += 2) {
      const p = x + lane + (<usize>e << 5)
      const a = load<f32>(p)
      const b: f32 = e + 1 < d ? load<f32>(p, 32) : 0
      square += a * a + b * b
      sum += (abs(a) + abs(b)) * factor
      most = max(most, max(abs(a), abs(b)) * factor)
      const pair = (<i32>nearest(a * factor) & 0xffff) | (<i32>nearest(b * factor) << 16)
      store<i32>(room + lane + (<usize>e << 4), pair)
    }
    // Not "more": of what is not a number everything is searched.
    if (!(most <= MOST_OF_X)) return false
    const slack = ROUNDING * (square + load<f32>(table - SQUARES))
    const margin: f32 = 0.5 * (sum + load<f32>(table - SUMS)) + slack * scale + <f32>d + 4
    store<f32>(room + lane + MARGINS, margin)
  }
  v128.store(room + LEAST, f32x4.splat(Infinity))
  v128.store(room + LEAST, f32x4.splat(Infinity), 16)
  v128.store(room + FOUND, i32x4.splat(0))
  v128.store(room + FOUND, i32x4.splat(0), 16)
  v128.store(room + BOUNDS, i32x4.splat(i32.MAX_VALUE))
  v128.store(room + BOUNDS, i32x4.splat(i32.MAX_VALUE), 16)
  scan(d, table, entries, x, room)
  for (let i = entries & ~3; i < entries; i++) meet(d, table, i, 1, x, room)
  v128.store(at, v128.load(room + FOUND))
  v128.store(at, v128.load(room + FOUND, 16), 16)
  return true
}

function scan(d: i32, table: usize, entries: i32, x: usize, room: usize): void {
  const y00 = v128.load(room)
  const y01 = v128.load(room, 16)
  const y10 = v128.load(room, 32)
  const y11 = v128.load(room, 48)
  const y20 = v128.load(room, 64)
  const y21 = v128.load(room, 80)
  const y30 = v128.load(room, 96)
  const y31 = v128.load(room, 112)
  const spot = room + SPOT
  let p = narrowOf(table)
  for (let i = 0; i + 4 <= entries; i += 4) {
    let least0 = i32x4.splat(i32.MAX_VALUE)
    let least1 = least0
    for (let j = 0; j < 4; j++, p += NARROW) {
      const half = v128.load32_splat(p)
      let c = v128.load32_splat(p, 4)
      let s0 = i32x4.add(half, i32x4.dot_i16x8_s(y00, c))
      let s1 = i32x4.add(half, i32x4.dot_i16x8_s(y01, c))
      c = v128.load32_splat(p, 8)
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(y10, c))
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(y11, c))
      c = v128.load32_splat(p, 12)
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(y20, c))
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(y21, c))
      c = v128.load32_splat(p, 16)
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(y30, c))
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(y31, c))
      least0 = i32x4.min_s(least0, s0)
      least1 = i32x4.min_s(least1, s1)
    }
    v128.store(spot, least0)
    v128.store(spot, least1, 16)
    const near0 = i32x4.le_s(v128.load(spot), v128.load(room, BOUNDS))
    const near1 = i32x4.le_s(v128.load(spot, 16), v128.load(room, BOUNDS + 16))
    if (v128.any_true(v128.or(near0, near1))) meet(d, table, i, 4, x, room)
  }
}

/** Scores of `some` entries from `first` on, as they are; and the bounds that follow. */
function meet(d: i32, table: usize, first: i32, some: i32, x: usize, room: usize): void {
  let least0 = v128.load(room + LEAST)
  let least1 = v128.load(room + LEAST, 16)
  let found0 = v128.load(room + FOUND)
  let found1 = v128.load(room + FOUND, 16)
  for (let i = first; i < first + some; i++) {
    const c = table + <usize>i * entrySize(d)
    let s0 = v128.load32_splat(c)
    let s1 = s0
    for (let e = 0; e < d; e++) {
      const value = v128.load32_splat(c + (<usize>e << 2), 4)
      const p = x + (<usize>e << 5)
      s0 = f32x4.sub(s0, f32x4.mul(v128.load(p), value))
      s1 = f32x4.sub(s1, f32x4.mul(v128.load(p, 16), value))
    }
    const index = i32x4.splat(i)
    found0 = v128.bitselect(index, found0, f32x4.lt(s0, least0))
    found1 = v128.bitselect(index, found1, f32x4.lt(s1, least1))
    least0 = f32x4.pmin(least0, s0)
    least1 = f32x4.pmin(least1, s1)
  }
  v128.store(room + LEAST, least0)
  v128.store(room + LEAST, least1, 16)
  v128.store(room + FOUND, found0)
  v128.store(room + FOUND, found1, 16)
  const factor = load<f32>(table - FACTOR)
  const scale = f32x4.splat(factor * factor)
  v128.store(room + BOUNDS, boundOf(least0, scale, v128.load(room + MARGINS)))
  v128.store(room + BOUNDS, boundOf(least1, scale, v128.load(room + MARGINS, 16)), 16)
}

/** What a score in whole numbers may be where the one in f32 is no larger; with room for the roundings here. */
// @ts-ignore: decorator
@inline
function boundOf(least: v128, scale: v128, margin: v128): v128 {
  const most = f32x4.add(f32x4.mul(least, scale), margin)
  return i32x4.trunc_sat_f32x4_s(f32x4.add(most, f32x4.mul(f32x4.abs(most), f32x4.splat(1e-6))))
}

/**
 * Attention over positions in codes and the newest ones in f32; no more than 64 positions of a head are ever dense.
 * For a few rows a task is a head of keys with all of them: eight positions at a time are expanded once for all
 * queries that share them. For blocks of 48 rows it is a head of queries, and 64 positions become a panel.
 */

import { KEYS, packQueries, panelMix, panelScores, ROWS } from './attention'
import { expandRows } from './coded'
import { fma, sum } from './simd'
import { probabilities } from './softmax'
import { take, thread } from './threads'

/** Positions that are expanded together. */
const TILE = 8

// @ts-ignore: decorator
@inline
function dot(a: usize, b: usize, size: i32): f32 {
  let x = f32x4.splat(0)
  let y = x
  for (let i = 0; i < size; i += 8) {
    const at = <usize>i << 2
    x = fma(v128.load(a + at), v128.load(b + at), x)
    y = fma(v128.load(a + at, 16), v128.load(b + at, 16), y)
  }
  return sum(f32x4.add(x, y))
}

/** out += Σ over `count` rows of v of its weight · the row. */
// @ts-ignore: decorator
@inline
function blend(out: usize, weights: usize, v: usize, stride: usize, count: i32, size: i32): void {
  for (let i = 0; i < size; i += 8) {
    const at = <usize>i << 2
    let a = v128.load(out + at)
    let b = v128.load(out + at, 16)
    let p = v + at
    for (let t = 0; t < count; t++, p += stride) {
      const w = v128.load32_splat(weights + (<usize>t << 2))
      a = fma(w, v128.load(p), a)
      b = fma(w, v128.load(p, 16), b)
    }
    v128.store(out + at, a)
    v128.store(out + at, b, 16)
  }
}

/** More positions than any row can see. */
const ALL: i32 = 1 << 30

/**
 * As attendCoded, by panels. `scratch`: for each thread 48 rows of `width` scores, then 48 × depth, 64 × depth and 64
 * × size floats, depth = max(size, 64), two of size, and 256 bytes.
 */
export function attendCodedPanels(
  out: usize,
  q: usize,
  rows: i32,
  heads: i32,
  keyHeads: i32,
  size: i32,
  scale: f32,
  coded: i32,
  before: i32,
  k: usize,
  v: usize,
  pastKeys: usize,
  pastValues: usize,
  width: i32,
  scratch: usize,
  room: usize,
): void {
  const scores = scratch + thread * room
  const line = <usize>width << 2
  const depth = max(size, KEYS)
  const packed = scores + <usize>ROWS * line
  const panel = packed + <usize>(ROWS * depth) * 4
  const tile = panel + <usize>(KEYS * depth) * 4 + 64
  const s = tile + <usize>(KEYS * size) * 4
  const z = s + (<usize>size << 2)
  const spare = z + (<usize>size << 2)
  const tileStride = <usize>size << 2
  const stride = <usize>(heads * size) << 2
  const keyStride = <usize>(keyHeads * size) << 2
  const blocks = (rows + ROWS - 1) / ROWS
  for (let task = take(); task < blocks * heads; task = take()) {
    const head = task % heads
    const row = (blocks - 1 - task / heads) * ROWS
    const count = min(ROWS, rows - row)
    const first = (head / (heads / keyHeads)) * size
    const shift = <usize>first << 2
    const at = <usize>row * stride + (<usize>(head * size) << 2)
    const dense = before + row + count
    packQueries(packed, q + at, stride, count, size)
    for (let n = 0; n < coded; n += KEYS) {
      const some = min(KEYS, coded - n)
      expandRows(tile, pastKeys, n, some, first, size, s, z)
      const to = scores + (<usize>n << 2)
      panelScores(to, line, packed, count, size, tile, tileStride, some, ALL, panel, spare)
    }
    const fresh = scores + (<usize>coded << 2)
    for (let n = 0; n < dense; n += KEYS) {
      const some = min(KEYS, dense - n)
      const from = k + shift + <usize>n * keyStride
      const to = fresh + (<usize>n << 2)
      panelScores(to, line, packed, count, size, from, keyStride, some, before + row - n, panel, spare)
    }
    for (let r = 0; r < count; r++) {
      const p = scores + <usize>r * line
      const seen = coded + before + row + r + 1
      probabilities(p, seen, scale)
      memory.fill(p + (<usize>seen << 2), 0, <usize>(width - seen) << 2)
    }
    for (let n = 0; n < coded; n += KEYS) {
      const some = min(KEYS, coded - n)
      expandRows(tile, pastValues, n, some, first, size, s, z)
      const p = scores + (<usize>n << 2)
      const add = n > 0 ? 1 : 0
      panelMix(
        out + at,
        stride,
        p,
        line,
        tile,
        tileStride,
        size,
        count,
        some,
        ALL,
        add,
        packed,
        panel,
        spare,
      )
    }
    for (let n = 0; n < dense; n += KEYS) {
      const some = min(KEYS, dense - n)
      const add = coded > 0 || n > 0 ? 1 : 0
      panelMix(
        out + at,
        stride,
        fresh + (<usize>n << 2),
        line,
        v + shift + <usize>n * keyStride,
        keyStride,
        size,
        count,
        some,
        before + row - n,
        add,
        packed,
        panel,
        spare,
      )
    }
  }
}

/**
 * q, out [rows][heads·size]; k, v [positions from `coded` on][keyHeads·size]; `before`: of those, how many stand
 * before the first row. pastKeys, pastValues: described as in coded.ts. `scratch`: for each thread rows · group rows of
 * `width` scores (width ≥ coded + before + rows rounded up to 8, and 8), then TILE + 2 rows of size floats.
 */
export function attendCoded(
  out: usize,
  q: usize,
  rows: i32,
  heads: i32,
  keyHeads: i32,
  size: i32,
  scale: f32,
  coded: i32,
  before: i32,
  k: usize,
  v: usize,
  pastKeys: usize,
  pastValues: usize,
  width: i32,
  scratch: usize,
  room: usize,
): void {
  const scores = scratch + thread * room
  const group = heads / keyHeads
  const line = <usize>width << 2
  const tile = scores + <usize>(rows * group) * line
  const s = tile + <usize>(TILE * size) * 4
  const z = s + (<usize>size << 2)
  const stride = <usize>(heads * size) << 2
  const keyStride = <usize>(keyHeads * size) << 2
  for (let head = take(); head < keyHeads; head = take()) {
    const first = head * size
    const shift = <usize>first << 2
    const queries = q + (<usize>(head * group * size) << 2)
    const to = out + (<usize>(head * group * size) << 2)
    for (let at = 0; at < coded; at += TILE) {
      const some = min(TILE, coded - at)
      expandRows(tile, pastKeys, at, some, first, size, s, z)
      for (let r = 0; r < rows * group; r++) {
        const query = queries + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
        const p = scores + <usize>r * line + (<usize>at << 2)
        for (let t = 0; t < some; t++) {
          store<f32>(p + (<usize>t << 2), dot(query, tile + <usize>(t * size) * 4, size))
        }
      }
    }
    for (let r = 0; r < rows * group; r++) {
      const seen = before + r / group + 1
      const query = queries + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
      const p = scores + <usize>r * line
      const fresh = p + (<usize>coded << 2)
      for (let t = 0; t < seen; t++) {
        store<f32>(fresh + (<usize>t << 2), dot(query, k + shift + <usize>t * keyStride, size))
      }
      probabilities(p, coded + seen, scale)
      const target = to + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
      memory.fill(target, 0, <usize>size << 2)
      blend(target, fresh, v + shift, keyStride, seen, size)
    }
    for (let at = 0; at < coded; at += TILE) {
      const some = min(TILE, coded - at)
      expandRows(tile, pastValues, at, some, first, size, s, z)
      for (let r = 0; r < rows * group; r++) {
        const weights = scores + <usize>r * line + (<usize>at << 2)
        const target = to + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
        blend(target, weights, tile, <usize>size << 2, some, size)
      }
    }
  }
}

/**
 * Attention over positions in codes and the newest ones in f32; no more than 64 positions of a head are ever dense.
 * For a few rows a task is a head of keys and those rows: eight positions at a time are expanded once for all
 * queries that share them. For blocks of 48 rows it is a head of queries, and 64 positions become a panel.
 */

import { KEYS, packQueries, panelMix, panelScores, ROWS } from './attention'
import { expand, spread } from './coded'
import { fma, sum } from './simd'
import { exponentials } from './softmax'
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

/** The rows [at, at + count) of one head as floats in `tile`; the scales are spread anew where a block begins. */
// @ts-ignore: decorator
@inline
function expandTile(
  tile: usize,
  codes: usize,
  scales: usize,
  at: i32,
  count: i32,
  first: i32,
  size: i32,
  width: i32,
  bits: i32,
  tokens: i32,
  channels: i32,
  symmetric: i32,
  table: usize,
  s: usize,
  z: usize,
): void {
  const line = <usize>((width * bits) >> 3)
  const blocks = width / channels
  const scaleLine = <usize>(symmetric ? blocks : 2 * blocks) << 1
  const shift = <usize>((first * bits) >> 3)
  for (let t = 0; t < count; t++) {
    if ((at + t) % tokens == 0) {
      const row = scales + <usize>((at + t) / tokens) * scaleLine
      spread(s, z, row, blocks, first, size, channels, bits, symmetric, table)
    }
    const from = codes + <usize>(at + t) * line + shift
    expand(tile + <usize>(t * size) * 4, from, size, bits, table, s, z)
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
  keyCodes: usize,
  keyScales: usize,
  keyBits: i32,
  keyTokens: i32,
  keyChannels: i32,
  keySymmetric: i32,
  keyTable: usize,
  valueCodes: usize,
  valueScales: usize,
  valueBits: i32,
  valueTokens: i32,
  valueChannels: i32,
  valueSymmetric: i32,
  valueTable: usize,
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
  const keyWidth = keyHeads * size
  const keyStride = <usize>keyWidth << 2
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
      expandTile(
        tile,
        keyCodes,
        keyScales,
        n,
        some,
        first,
        size,
        keyWidth,
        keyBits,
        keyTokens,
        keyChannels,
        keySymmetric,
        keyTable,
        s,
        z,
      )
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
      const factor = exponentials(p, seen, scale)
      for (let i = 0; i < seen; i++) {
        const weight = p + (<usize>i << 2)
        store<f32>(weight, load<f32>(weight) * factor)
      }
      memory.fill(p + (<usize>seen << 2), 0, <usize>(width - seen) << 2)
    }
    for (let n = 0; n < coded; n += KEYS) {
      const some = min(KEYS, coded - n)
      expandTile(
        tile,
        valueCodes,
        valueScales,
        n,
        some,
        first,
        size,
        keyWidth,
        valueBits,
        valueTokens,
        valueChannels,
        valueSymmetric,
        valueTable,
        s,
        z,
      )
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
 * before the first row. `scratch`: for each thread block · group rows of `width` scores (width ≥ coded + before +
 * rows rounded up to 8, and 8), then TILE + 2 rows of size floats.
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
  keyCodes: usize,
  keyScales: usize,
  keyBits: i32,
  keyTokens: i32,
  keyChannels: i32,
  keySymmetric: i32,
  keyTable: usize,
  valueCodes: usize,
  valueScales: usize,
  valueBits: i32,
  valueTokens: i32,
  valueChannels: i32,
  valueSymmetric: i32,
  valueTable: usize,
  width: i32,
  block: i32,
  scratch: usize,
  room: usize,
): void {
  const scores = scratch + thread * room
  const group = heads / keyHeads
  const line = <usize>width << 2
  const tile = scores + <usize>(block * group) * line
  const s = tile + <usize>(TILE * size) * 4
  const z = s + (<usize>size << 2)
  const stride = <usize>(heads * size) << 2
  const keyWidth = keyHeads * size
  const keyStride = <usize>keyWidth << 2
  const blocks = (rows + block - 1) / block
  for (let task = take(); task < blocks * keyHeads; task = take()) {
    const head = task % keyHeads
    const row = (task / keyHeads) * block
    const count = min(block, rows - row)
    const first = head * size
    const shift = <usize>first << 2
    const queries = q + <usize>row * stride + (<usize>(head * group * size) << 2)
    const to = out + <usize>row * stride + (<usize>(head * group * size) << 2)
    for (let at = 0; at < coded; at += TILE) {
      const some = min(TILE, coded - at)
      expandTile(
        tile,
        keyCodes,
        keyScales,
        at,
        some,
        first,
        size,
        keyWidth,
        keyBits,
        keyTokens,
        keyChannels,
        keySymmetric,
        keyTable,
        s,
        z,
      )
      for (let r = 0; r < count * group; r++) {
        const query = queries + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
        const p = scores + <usize>r * line + (<usize>at << 2)
        for (let t = 0; t < some; t++) {
          store<f32>(p + (<usize>t << 2), dot(query, tile + <usize>(t * size) * 4, size))
        }
      }
    }
    for (let r = 0; r < count * group; r++) {
      const seen = before + row + r / group + 1
      const query = queries + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
      const p = scores + <usize>r * line
      const fresh = p + (<usize>coded << 2)
      for (let t = 0; t < seen; t++) {
        store<f32>(fresh + (<usize>t << 2), dot(query, k + shift + <usize>t * keyStride, size))
      }
      const factor = exponentials(p, coded + seen, scale)
      for (let t = 0; t < coded + seen; t++) {
        const weight = p + (<usize>t << 2)
        store<f32>(weight, load<f32>(weight) * factor)
      }
      const target = to + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
      memory.fill(target, 0, <usize>size << 2)
      blend(target, fresh, v + shift, keyStride, seen, size)
    }
    for (let at = 0; at < coded; at += TILE) {
      const some = min(TILE, coded - at)
      expandTile(
        tile,
        valueCodes,
        valueScales,
        at,
        some,
        first,
        size,
        keyWidth,
        valueBits,
        valueTokens,
        valueChannels,
        valueSymmetric,
        valueTable,
        s,
        z,
      )
      for (let r = 0; r < count * group; r++) {
        const weights = scores + <usize>r * line + (<usize>at << 2)
        const target = to + <usize>(r / group) * stride + (<usize>((r % group) * size) << 2)
        blend(target, weights, tile, <usize>size << 2, some, size)
      }
    }
  }
}

/**
 * Attention of many rows over positions in codes and the newest ones in f32, by panels: a task is a head of queries
 * and 48 rows, and no more than 64 positions of a head are ever dense.
 */

import { KEYS, packQueries, panelMix, panelScores, ROWS } from './attention'
import { expandRows } from './coded'
import { probabilities } from './softmax'
import { take, thread } from './threads'

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
      expandRows(tile, pastKeys, n, some, first, size, n == 0, s, z)
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
      expandRows(tile, pastValues, n, some, first, size, n == 0, s, z)
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

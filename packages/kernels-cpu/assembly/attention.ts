/**
 * Causal attention with grouped heads. A task is a head and a block of query rows. For a single row
 * scores and sum are plain passes over the keys and values; for blocks of 48 rows they are products
 * of packed panels. Scores live in scratch: [rows of the block][keys], never for all rows or heads.
 */

import { packPanel } from './pack'
import { fma, sum } from './simd'
import { exponentials, probabilities } from './softmax'
import { take, thread } from './threads'
import { edgeTiles, HIGH } from './tile'

/** Query rows of a block, and keys of a panel. */
export const ROWS = 48
export const KEYS = 64

/**
 * q and out [rows][heads·size], k and v [keys][keyHeads·size]. `scratch`: for each thread 48 rows
 * of `width` scores, width ≥ start + rows + 8 rounded up to 8 (bytes: room), then the packed
 * panels.
 */
export function attention(
  out: usize,
  q: usize,
  k: usize,
  v: usize,
  rows: i32,
  heads: i32,
  keyHeads: i32,
  size: i32,
  scale: f32,
  start: i32,
  width: i32,
  block: i32,
  scratch: usize,
  room: usize,
): void {
  const scores = scratch + thread * room
  const blocks = (rows + block - 1) / block
  const tasks = blocks * heads
  const stride = <usize>(heads * size) << 2
  const keyStride = <usize>(keyHeads * size) << 2
  for (let task = take(); task < tasks; task = take()) {
    // The longest rows come first, so that no thread is left with one at the end.
    const first = (blocks - 1 - task / heads) * block
    const head = task % heads
    const key = head / (heads / keyHeads)
    const at = <usize>first * stride + (<usize>(head * size) << 2)
    const shift = <usize>(key * size) << 2
    const count = min(block, rows - first)
    if (block == 1) {
      one(
        out + at,
        q + at,
        k + shift,
        v + shift,
        keyStride,
        size,
        scale,
        start + first + 1,
        scores,
      )
    } else {
      some(
        out + at,
        q + at,
        stride,
        k + shift,
        v + shift,
        keyStride,
        size,
        scale,
        count,
        start + first,
        scores,
        width,
      )
    }
  }
}

function one(
  out: usize,
  q: usize,
  k: usize,
  v: usize,
  stride: usize,
  size: i32,
  scale: f32,
  keys: i32,
  scores: usize,
): void {
  const whole = size & ~3
  for (let i = 0; i < keys; i++) {
    const p = k + <usize>i * stride
    let a = f32x4.splat(0)
    let b = a
    let j = 0
    for (; j + 8 <= size; j += 8) {
      const at = <usize>j << 2
      a = fma(v128.load(q + at), v128.load(p + at), a)
      b = fma(v128.load(q + at, 16), v128.load(p + at, 16), b)
    }
    if (j < whole) {
      a = fma(v128.load(q + (<usize>j << 2)), v128.load(p + (<usize>j << 2)), a)
      j += 4
    }
    let total = sum(f32x4.add(a, b))
    for (; j < size; j++) total += load<f32>(q + (<usize>j << 2)) * load<f32>(p + (<usize>j << 2))
    store<f32>(scores + (<usize>i << 2), total)
  }
  const factor = exponentials(scores, keys, scale)
  const f = f32x4.splat(factor)
  let j = 0
  for (; j + 16 <= size; j += 16) {
    let a = f32x4.splat(0)
    let b = a
    let c = a
    let d = a
    let p = v + (<usize>j << 2)
    for (let i = 0; i < keys; i++, p += stride) {
      const s = v128.load32_splat(scores + (<usize>i << 2))
      a = fma(s, v128.load(p), a)
      b = fma(s, v128.load(p, 16), b)
      c = fma(s, v128.load(p, 32), c)
      d = fma(s, v128.load(p, 48), d)
    }
    const to = out + (<usize>j << 2)
    v128.store(to, f32x4.mul(a, f))
    v128.store(to, f32x4.mul(b, f), 16)
    v128.store(to, f32x4.mul(c, f), 32)
    v128.store(to, f32x4.mul(d, f), 48)
  }
  for (; j < size; j++) {
    let total: f32 = 0
    for (let i = 0; i < keys; i++) {
      total += load<f32>(scores + (<usize>i << 2)) * load<f32>(
        v + <usize>i * stride + (<usize>j << 2),
      )
    }
    store<f32>(out + (<usize>j << 2), total * factor)
  }
}

/** `before`: keys that stand before the block's first row. */
function some(
  out: usize,
  q: usize,
  stride: usize,
  k: usize,
  v: usize,
  keyStride: usize,
  size: i32,
  scale: f32,
  rows: i32,
  before: i32,
  scores: usize,
  width: i32,
): void {
  const packed = scores + <usize>(ROWS * width) * 4
  const depth = max(size, KEYS)
  const panel = packed + <usize>(ROWS * depth) * 4
  const spare = panel + <usize>(KEYS * depth) * 4 + 64
  const line = <usize>width << 2
  scoresOf(scores, line, q, stride, k, keyStride, size, rows, before, packed, panel, spare)
  for (let r = 0; r < rows; r++) {
    const p = scores + <usize>r * line
    const seen = before + r + 1
    // What lies past the last is overwritten next.
    probabilities(p, seen, scale)
    memory.fill(p + (<usize>seen << 2), 0, <usize>(width - seen) << 2)
  }
  mix(out, stride, scores, line, v, keyStride, size, rows, before, packed, panel, spare)
}

/**
 * S = Q·Kᵀ of a block, 64 keys at a time; panels wholly above the diagonal are left out. `line`: bytes from row to
 * row of S. Room: `packed` 48 × max(size, 64) floats, `panel` 64 × max(size, 64) and 64 bytes, `spare` 192 bytes.
 */
export function scoresOf(
  scores: usize,
  line: usize,
  q: usize,
  stride: usize,
  k: usize,
  keyStride: usize,
  size: i32,
  rows: i32,
  before: i32,
  packed: usize,
  panel: usize,
  spare: usize,
): void {
  packQueries(packed, q, stride, rows, size)
  for (let n = 0; n < before + rows; n += KEYS) {
    const count = min(KEYS, before + rows - n)
    const from = k + <usize>n * keyStride
    const to = scores + (<usize>n << 2)
    panelScores(to, line, packed, rows, size, from, keyStride, count, before - n, panel, spare)
  }
}

export function packQueries(packed: usize, q: usize, stride: usize, rows: i32, size: i32): void {
  for (let r = 0; r < rows; r += HIGH) {
    packPanel(packed + <usize>(r * size) * 4, q + <usize>r * stride, stride, rows - r, size, 1)
  }
}

/** The scores of `count` keys, 64 at most; row r sees those before `reach` + r + 1. */
export function panelScores(
  scores: usize,
  line: usize,
  packed: usize,
  rows: i32,
  size: i32,
  k: usize,
  keyStride: usize,
  count: i32,
  reach: i32,
  panel: usize,
  spare: usize,
): void {
  for (let m = 0; m < count; m += 8) {
    keysPanel(panel + <usize>(m * size) * 4, k + <usize>m * keyStride, keyStride, count - m, size)
  }
  for (let r = 0; r < rows; r += HIGH) {
    const a = packed + <usize>(r * size) * 4
    const end = min(count, reach + min(r + HIGH, rows))
    for (let m = 0; m < end; m += 16) {
      edgeTiles(
        a,
        panel + <usize>(m * size) * 4,
        <usize>size << 5,
        size,
        scores + <usize>r * line + (<usize>m << 2),
        line,
        0,
        rows - r,
        end - m > 8 ? 16 : 8,
        spare,
      )
    }
  }
}

/** out = P·V of a block, 64 keys at a time; P has zeros above the diagonal. Room as in scoresOf. */
export function mix(
  out: usize,
  stride: usize,
  scores: usize,
  line: usize,
  v: usize,
  keyStride: usize,
  size: i32,
  rows: i32,
  before: i32,
  packed: usize,
  panel: usize,
  spare: usize,
): void {
  for (let n = 0; n < before + rows; n += KEYS) {
    const count = min(KEYS, before + rows - n)
    panelMix(
      out,
      stride,
      scores + (<usize>n << 2),
      line,
      v + <usize>n * keyStride,
      keyStride,
      size,
      rows,
      count,
      before - n,
      n > 0 ? 1 : 0,
      packed,
      panel,
      spare,
    )
  }
}

/** out = P·V, or added to it, of `count` keys, 64 at most; rows that see none of them are left alone. */
export function panelMix(
  out: usize,
  stride: usize,
  scores: usize,
  line: usize,
  v: usize,
  keyStride: usize,
  size: i32,
  rows: i32,
  count: i32,
  reach: i32,
  add: i32,
  packed: usize,
  panel: usize,
  spare: usize,
): void {
  for (let r = 0; r < rows; r += HIGH) {
    packPanel(
      packed + <usize>(r * count) * 4,
      scores + <usize>r * line,
      line,
      rows - r,
      count,
      1,
    )
  }
  for (let m = 0; m < size; m += 16) {
    const next = <usize>count << 5
    const from = v + (<usize>m << 2)
    copyStrip(panel, from, keyStride, count)
    if (m + 8 < size) copyStrip(panel + next, from + 32, keyStride, count)
    for (let r = 0; r < rows; r += HIGH) {
      if (reach + min(r + HIGH, rows) <= 0) continue
      edgeTiles(
        packed + <usize>(r * count) * 4,
        panel,
        next,
        count,
        out + <usize>r * stride + (<usize>m << 2),
        stride,
        add,
        rows - r,
        size - m,
        spare,
      )
    }
  }
}

// @ts-ignore: decorator
@inline
function copyStrip(to: usize, from: usize, stride: usize, depth: i32): void {
  for (let i = 0; i < depth; i++, from += stride, to += 32) {
    v128.store(to, v128.load(from))
    v128.store(to, v128.load(from, 16), 16)
  }
}

/**
 * Eight keys side by side: [size][8]; keys past the last are whatever was there, and masked later.
 */
function keysPanel(panel: usize, k: usize, stride: usize, count: i32, size: i32): void {
  for (let half = 0; half < 2; half++) {
    const left = count - (half << 2)
    if (left <= 0) return
    const p0 = k + <usize>(half << 2) * stride
    const p1 = left > 1 ? p0 + stride : p0
    const p2 = left > 2 ? p1 + stride : p1
    const p3 = left > 3 ? p2 + stride : p2
    let out = panel + <usize>(half << 4)
    let i = 0
    for (; i + 4 <= size; i += 4, out += 128) {
      const at = <usize>i << 2
      const r0 = v128.load(p0 + at)
      const r1 = v128.load(p1 + at)
      const r2 = v128.load(p2 + at)
      const r3 = v128.load(p3 + at)
      const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5)
      const b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5)
      const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7)
      const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7)
      v128.store(out, v128.shuffle<i64>(a, b, 0, 2))
      v128.store(out, v128.shuffle<i64>(a, b, 1, 3), 32)
      v128.store(out, v128.shuffle<i64>(c, d, 0, 2), 64)
      v128.store(out, v128.shuffle<i64>(c, d, 1, 3), 96)
    }
    for (; i < size; i++, out += 32) {
      const at = <usize>i << 2
      store<f32>(out, load<f32>(p0 + at))
      store<f32>(out, load<f32>(p1 + at), 4)
      store<f32>(out, load<f32>(p2 + at), 8)
      store<f32>(out, load<f32>(p3 + at), 12)
    }
  }
}

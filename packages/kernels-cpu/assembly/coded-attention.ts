/**
 * Attention of few rows over positions in codes and the newest ones in f32. A task is 256 positions and a head of keys
 * with all queries that share it: scores, their exponentials and the sum of values, all in the first cache. Each leaves
 * a part, its largest score, the sum of its exponentials and the unscaled output, and parts are joined in the order of
 * positions (FlashAttention's, 2205.14135); so the result does not depend on the threads, and two of them share even
 * one head.
 *
 * Integers and halves are multiplied as they lie (coded-planes.ts):
 *
 *   q·k = s · Σ q·c + b · Σ q     out = Σ (p·s) · c + Σ p·b
 *
 * with s and b of keys that have scales for each channel in q and a constant instead. Tables and odd sizes are
 * expanded, eight positions at a time.
 */

import { expandRows, spread, tokenScales } from './coded'
import { bitsOf, channelsOf, codesAt, cosOf, coupledOf, HALVES, lineOf, tableOf, tokensOf } from './coded-fields'
import { attendApart } from './coded-outliers'
import { arrange, PIECE, planeKeys, planeMix, TOGETHER } from './coded-planes'
import { mixEntries, scoreEntries } from './coded-vectors'
import { exp4 } from './exp'
import { fma, sum } from './simd'
import { peak, weigh } from './softmax'
import { take, thread } from './threads'

/** Positions of a task. */
const CHUNK = 256
/** Bytes from one query's scores to the next one's, or from one group's scales. */
const LINE: usize = CHUNK << 2
/** Positions that are expanded together. */
const TILE = 8
/** Bytes of a part before its output: the largest score, the sum of the exponentials. */
const HEAD: usize = 16

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

/** Whether rows are multiplied without being expanded. */
function direct(past: usize, size: i32, keys: bool): bool {
  if (tableOf(past) || cosOf(past) || size % PIECE != 0) return false
  const channels = channelsOf(past)
  if (bitsOf(past) == HALVES) return true
  if (tokensOf(past) == 1) return channels % PIECE == 0 && channels <= size
  return keys && channels == 1
}

/** Pieces of a head that share a scale of a token; all where it has none. */
// @ts-ignore: decorator
@inline
function piecesOf(past: usize, size: i32): i32 {
  if (bitsOf(past) == HALVES || tokensOf(past) != 1) return size / PIECE
  return channelsOf(past) / PIECE
}

/**
 * q [rows][heads·size]; k, v [positions from `coded` on][keyHeads·size]; `before`: of those, how many stand before the
 * first row. pastKeys, pastValues: described as in coded.ts. `products`: what multiplyEntries makes
 * of coupled keys that are turned already, or 0. `parts` [rows·heads][parts][4 + size], as joinParts takes
 * them. `scratch`: for each thread rows · group + 3 · groups + 4 · groups lines of 256 floats, groups = size / 32 or 1,
 * then (TILE + 2 + 2 · 3) · size + 64 floats.
 */
export function attendCoded(
  parts: usize,
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
  products: usize,
  scratch: usize,
  room: usize,
): void {
  const scores = scratch + thread * room
  const group = heads / keyHeads
  const queries = rows * group
  const chunks = (coded + CHUNK - 1) / CHUNK
  const count = chunks + (before + rows + CHUNK - 1) / CHUNK
  const each = HEAD + (<usize>size << 2)
  const keyStride = <usize>(keyHeads * size) << 2
  for (let task = take(); task < count * keyHeads; task = take()) {
    const part = task / keyHeads
    const head = task % keyHeads
    const first = head * size
    // Query i is row i / group; its part and its numbers:
    const to = parts + <usize>(head * group * count + part) * each
    const nextRow = <usize>(heads * count) * each
    const next = <usize>count * each
    const query = q + (<usize>(head * group * size) << 2)
    const queryRow = <usize>(heads * size) << 2
    if (part < chunks) {
      const from = part * CHUNK
      const some = min(CHUNK, coded - from)
      const room = scores + <usize>queries * LINE
      if (products) {
        scoreEntries(scores, LINE, products, queries, head, size, pastKeys, from, some, room)
      } else if (direct(pastKeys, size, true)) {
        scoreCodes(scores, query, queryRow, rows, group, size, pastKeys, from, some, first, room)
        attendApart(false, query, queryRow, <usize>size << 2, scores, LINE, rows, group, size, pastKeys, from, some, first)
      } else {
        scoreRows(scores, query, queryRow, rows, group, size, pastKeys, from, some, first, room)
      }
      for (let i = 0; i < queries; i++) {
        exponentials(to + <usize>(i / group) * nextRow + <usize>(i % group) * next, scores + <usize>i * LINE, some, scale)
      }
      const out = to + HEAD
      if (coupledOf(pastValues) > 1) {
        mixEntries(out, nextRow, next, scores, LINE, rows, group, size, pastValues, from, some, first)
      } else if (direct(pastValues, size, false)) {
        mixCodes(out, nextRow, next, scores, rows, group, size, pastValues, from, some, first, room)
        attendApart(true, out, nextRow, next, scores, LINE, rows, group, size, pastValues, from, some, first)
      } else {
        mixRows(out, nextRow, next, scores, rows, group, size, pastValues, from, some, first, room)
      }
      continue
    }
    const from = (part - chunks) * CHUNK
    const keys = k + (<usize>first << 2) + <usize>from * keyStride
    const values = v + (<usize>first << 2) + <usize>from * keyStride
    for (let i = 0; i < queries; i++) {
      const row = i / group
      const some = max(0, min(CHUNK, before + row + 1 - from))
      const mine = query + <usize>row * queryRow + (<usize>((i % group) * size) << 2)
      const target = to + <usize>row * nextRow + <usize>(i % group) * next
      for (let t = 0; t < some; t++) {
        store<f32>(scores + (<usize>t << 2), dot(mine, keys + <usize>t * keyStride, size))
      }
      exponentials(target, scores, some, scale)
      memory.fill(target + HEAD, 0, <usize>size << 2)
      blend(target + HEAD, scores, values, keyStride, some, size)
    }
  }
}

/** Of a part's scores: the exponentials in place, zeros up to a multiple of four, and the part's head. */
function exponentials(part: usize, p: usize, count: i32, scale: f32): void {
  const most = peak(p, count) * scale
  store<f32>(part, most)
  store<f32>(part, weigh(p, count, scale, most), 4)
  for (let t = count; t & 3; t++) store<f32>(p + (<usize>t << 2), 0)
}

/** As scoreCodes, by way of floats. */
function scoreRows(
  scores: usize,
  q: usize,
  queryRow: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  first: i32,
  room: usize,
): void {
  const s = room + <usize>(TILE * size) * 4
  const z = s + (<usize>size << 2)
  for (let at = 0; at < count; at += TILE) {
    const some = min(TILE, count - at)
    expandRows(room, past, from + at, some, first, size, at == 0, s, z)
    for (let i = 0; i < rows * group; i++) {
      const query = q + <usize>(i / group) * queryRow + (<usize>((i % group) * size) << 2)
      const p = scores + <usize>i * LINE + (<usize>at << 2)
      for (let t = 0; t < some; t++) {
        store<f32>(p + (<usize>t << 2), dot(query, room + <usize>(t * size) * 4, size))
      }
    }
  }
}

/** As mixCodes, by way of floats. */
function mixRows(
  out: usize,
  nextRow: usize,
  next: usize,
  scores: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  first: i32,
  room: usize,
): void {
  const s = room + <usize>(TILE * size) * 4
  const z = s + (<usize>size << 2)
  const stride = <usize>size << 2
  for (let at = 0; at < count; at += TILE) {
    const some = min(TILE, count - at)
    expandRows(room, past, from + at, some, first, size, at == 0, s, z)
    for (let i = 0; i < rows * group; i++) {
      const target = out + <usize>(i / group) * nextRow + <usize>(i % group) * next
      if (at == 0) memory.fill(target, 0, stride)
      blend(target, scores + <usize>i * LINE + (<usize>at << 2), room, stride, some, size)
    }
  }
}

/** How many of `left` queries go together: as even as can be. */
// @ts-ignore: decorator
@inline
function batch(left: i32): i32 {
  return left == 4 ? 2 : min(TOGETHER, left)
}

/**
 * scores[i][t] = query i · key `from` + t, of the head that begins at channel `first`. `room`: scales and biases, a
 * line for each group of channels, then three queries and an eighth of one.
 */
function scoreCodes(
  scores: usize,
  q: usize,
  queryRow: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  first: i32,
  room: usize,
): void {
  const bits = bitsOf(past)
  const tokens = tokensOf(past)
  const together = piecesOf(past, size)
  const pieces = size / PIECE
  const groups = pieces / together
  const stride = lineOf(past)
  const codes = codesAt(past, from, first)
  const biases = room + <usize>groups * LINE
  const arranged = biases + <usize>groups * LINE
  const line = <usize>size << 2
  const s = arranged + 3 * line
  const z = s + line
  const turned = z + line
  const sums = turned + line
  tokenScales(room, biases, LINE, past, from, count, first, groups)
  for (let row = 0; row < rows; row++) {
    for (let h = 0; h < group; ) {
      const many = batch(group - h)
      const query = q + <usize>row * queryRow + <usize>h * line
      const to = scores + <usize>(row * group + h) * LINE
      if (tokens == 1) {
        for (let i = 0; i < many; i++) arrange(arranged + <usize>i * line, query + <usize>i * line, size, bits)
        planeKeys(bits, many, to, LINE, arranged, line, codes, stride, count, pieces, together, room, LINE, sums)
        for (let i = 0; i < many; i++) {
          const p = to + <usize>i * LINE
          for (let g = 0; g < groups; g++) {
            const total = f32x4.splat(sumOf(query + <usize>i * line + <usize>g * (line / groups), size / groups))
            const b = biases + <usize>g * LINE
            for (let t: usize = 0; t < <usize>count << 2; t += 16) {
              v128.store(p + t, fma(v128.load(b + t), total, v128.load(p + t)))
            }
          }
        }
      } else {
        for (let t = 0; t < count; ) {
          const run = min(count - t, tokens - ((from + t) % tokens))
          spread(s, z, past, from + t, first, size)
          for (let i = 0; i < many; i++) {
            const own = query + <usize>i * line
            for (let c: usize = 0; c < line; c += 16) {
              v128.store(turned + c, f32x4.mul(v128.load(own + c), v128.load(s + c)))
            }
            arrange(arranged + <usize>i * line, turned, size, bits)
          }
          const at = to + (<usize>t << 2)
          const lines = codes + <usize>t * stride
          planeKeys(bits, many, at, LINE, arranged, line, lines, stride, run, pieces, together, room, LINE, sums)
          for (let i = 0; i < many; i++) {
            const total = f32x4.splat(dot(query + <usize>i * line, z, size))
            const p = at + <usize>i * LINE
            for (let c: usize = 0; c < <usize>run << 2; c += 16) {
              v128.store(p + c, f32x4.add(v128.load(p + c), total))
            }
          }
          t += run
        }
      }
      h += many
    }
  }
}

/** Σ of `size` numbers, a multiple of eight. */
function sumOf(p: usize, size: i32): f32 {
  let x = f32x4.splat(0)
  let y = x
  for (const end = p + (<usize>size << 2); p < end; p += 32) {
    x = f32x4.add(x, v128.load(p))
    y = f32x4.add(y, v128.load(p, 16))
  }
  return sum(f32x4.add(x, y))
}

/** out of query i = Σ over `count` values of its weight · value. `room`: as scoreCodes, and three lines a group. */
function mixCodes(
  out: usize,
  nextRow: usize,
  next: usize,
  scores: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  first: i32,
  room: usize,
): void {
  const bits = bitsOf(past)
  const pieces = size / PIECE
  const together = piecesOf(past, size)
  const groups = pieces / together
  const stride = lineOf(past)
  const codes = codesAt(past, from, first)
  const biases = room + <usize>groups * LINE
  const weights = biases + <usize>groups * LINE
  tokenScales(room, biases, LINE, past, from, count, first, groups)
  for (let row = 0; row < rows; row++) {
    for (let h = 0; h < group; ) {
      const many = batch(group - h)
      const target = out + <usize>row * nextRow + <usize>h * next
      const p = scores + <usize>(row * group + h) * LINE
      for (let g = 0; g < groups; g++) {
        const s = room + <usize>g * LINE
        for (let i = 0; i < many; i++) {
          const from = p + <usize>i * LINE
          const to = weights + <usize>i * LINE
          for (let t: usize = 0; t < <usize>count << 2; t += 16) {
            v128.store(to + t, f32x4.mul(v128.load(from + t), v128.load(s + t)))
          }
        }
        for (let piece = g * together; piece < (g + 1) * together; piece++) {
          const to = target + <usize>(piece * PIECE) * 4
          planeMix(bits, many, to, next, weights, LINE, codes + <usize>(piece * bits) * 4, stride, count)
        }
        for (let i = 0; i < many; i++) {
          const total = f32x4.splat(dotFours(p + <usize>i * LINE, biases + <usize>g * LINE, count))
          const to = target + <usize>i * next + <usize>(g * together * PIECE) * 4
          for (let c: usize = 0; c < <usize>(together * PIECE) << 2; c += 16) {
            v128.store(to + c, f32x4.add(v128.load(to + c), total))
          }
        }
      }
      h += many
    }
  }
}

/** As dot, of numbers with zeros up to a multiple of four behind them. */
function dotFours(a: usize, b: usize, count: i32): f32 {
  let x = f32x4.splat(0)
  for (let t: usize = 0; t < <usize>count << 2; t += 16) {
    x = fma(v128.load(a + t), v128.load(b + t), x)
  }
  return sum(x)
}

/** out[query] = Σ e^(most − largest most) · output of the part / Σ e^(…) · sum of the part, over `count` parts. */
export function joinParts(out: usize, parts: usize, queries: i32, count: i32, size: i32): void {
  const each = HEAD + (<usize>size << 2)
  for (let query = take(); query < queries; query = take()) {
    const first = parts + <usize>(query * count) * each
    const end = first + <usize>count * each
    const to = out + (<usize>(query * size) << 2)
    let most: f32 = -Infinity
    for (let p = first; p < end; p += each) most = max(most, load<f32>(p))
    let mass: f32 = 0
    for (let p = first; p < end; p += each) {
      const factor = exp4(f32x4.splat(load<f32>(p) - most))
      mass += f32x4.extract_lane(factor, 0) * load<f32>(p, 4)
      for (let c: usize = 0; c < <usize>size << 2; c += 16) {
        const x = v128.load(p + HEAD + c)
        v128.store(to + c, p == first ? f32x4.mul(x, factor) : fma(x, factor, v128.load(to + c)))
      }
    }
    const factor = f32x4.splat(1 / mass)
    for (let c: usize = 0; c < <usize>size << 2; c += 16) {
      v128.store(to + c, f32x4.mul(v128.load(to + c), factor))
    }
  }
}

/**
 * Coupled channels (core's CacheGrid.coupled): a byte stands for an entry of 4 or 8 numbers of its codebook. Keys are
 * never decoded: the products of four queries with all entries are made once, and each position sums those of its codes.
 * Values are summed by their entries, which lie in the first cache.
 */

import { codebookAt, codesAt, coupledOf, lineOf, widthOf } from './coded-fields'
import { entrySize, packVectors, search } from './nearest'
import { fma } from './simd'
import { take, thread } from './threads'

const ENTRIES = 256
/** Bytes of four queries' products with a codebook. */
const PRODUCTS: usize = ENTRIES << 4

/** Codes x as the rows from `first` on. A task is a vector of all rows. `room`: for each thread 256 · 9 + 48 floats. */
export function encodeEntries(
  past: usize,
  first: i32,
  x: usize,
  rows: i32,
  scratch: usize,
  room: usize,
): void {
  const width = widthOf(past)
  const coupled = coupledOf(past)
  const line = lineOf(past)
  const side = scratch + thread * room
  const found = side + 128
  const packed = found + 64
  for (let place = take(); place < width / coupled; place = take()) {
    packVectors(packed, codebookAt(past, place * coupled), ENTRIES, coupled)
    for (let row = 0; row < rows; row += 4) {
      for (let lane = 0; lane < 4; lane++) {
        const from = x + (<usize>(min(row + lane, rows - 1) * width + place * coupled) << 2)
        for (let i = 0; i < coupled; i++) {
          store<f32>(side + (<usize>(4 * i + lane) << 2), load<f32>(from + (<usize>i << 2)))
        }
      }
      v128.store(found, search(coupled, packed, ENTRIES, side))
      const to = codesAt(past, first + row, place * coupled)
      for (let lane = 0; lane < min(4, rows - row); lane++) {
        store<u8>(to + <usize>lane * line, load<u8>(found + (<usize>lane << 2)))
      }
    }
  }
}

/**
 * out[head][four][vector][entry] = the products of the four queries with the entry; query i of a head of keys is that of
 * row i / group. A task is a codebook with four queries. `room`: for each thread 32 floats.
 */
export function multiplyEntries(
  out: usize,
  q: usize,
  rows: i32,
  heads: i32,
  keyHeads: i32,
  size: i32,
  past: usize,
  scratch: usize,
  room: usize,
): void {
  const coupled = coupledOf(past)
  const group = heads / keyHeads
  const queries = rows * group
  const fours = (queries + 3) >> 2
  const vectors = size / coupled
  const side = scratch + thread * room
  const each = <usize>coupled << 2
  for (let task = take(); task < keyHeads * fours * vectors; task = take()) {
    const channel = (task % vectors) * coupled
    const four = (task / vectors) % fours
    const head = task / (vectors * fours)
    for (let lane = 0; lane < 4; lane++) {
      const i = min(4 * four + lane, queries - 1)
      const from = (i / group) * heads + head * group + (i % group)
      for (let e = 0; e < coupled; e++) {
        const value = load<f32>(q + (<usize>(from * size + channel + e) << 2))
        store<f32>(side + (<usize>(4 * e + lane) << 2), value)
      }
    }
    const to = out + <usize>task * PRODUCTS
    const codebook = codebookAt(past, head * size + channel)
    for (let e: usize = 0; e < each; e += 16) {
      const x0 = v128.load(side + 4 * e)
      const x1 = v128.load(side + 4 * e, 16)
      const x2 = v128.load(side + 4 * e, 32)
      const x3 = v128.load(side + 4 * e, 48)
      let entry = codebook + e
      for (let p = to; p < to + PRODUCTS; p += 16, entry += each) {
        let s = f32x4.mul(x0, v128.load32_splat(entry))
        s = fma(x1, v128.load32_splat(entry, 4), s)
        s = fma(x2, v128.load32_splat(entry, 8), s)
        s = fma(x3, v128.load32_splat(entry, 12), s)
        v128.store(p, e > 0 ? f32x4.add(v128.load(p), s) : s)
      }
    }
  }
}

/** The products of the code at p, of vector `index` of those whose products begin at `from`. */
// @ts-ignore: decorator
@inline
function productOf(p: usize, from: usize, index: usize): v128 {
  return v128.load(from + index * PRODUCTS + (<usize>load<u8>(p + index) << 4))
}

/**
 * scores[i][t] = query i · key `from` + t, lines of `line` bytes, of a head of keys. Four codebooks at a time, whose
 * products stay in the first cache. `room`: four floats for each position.
 */
export function scoreEntries(
  scores: usize,
  line: usize,
  products: usize,
  queries: i32,
  head: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  room: usize,
): void {
  const vectors = size / coupledOf(past)
  const next = lineOf(past)
  const end = room + (<usize>count << 4)
  const fours = (queries + 3) >> 2
  const codes = codesAt(past, from, head * size)
  for (let four = 0; four < fours; four++) {
    let table = products + <usize>((head * fours + four) * vectors) * PRODUCTS
    memory.fill(room, 0, <usize>count << 4)
    let vector = 0
    for (; vector + 4 <= vectors; vector += 4, table += 4 * PRODUCTS) {
      let p = codes + <usize>vector
      for (let to = room; to < end; to += 16, p += next) {
        const a = f32x4.add(productOf(p, table, 0), productOf(p, table, 1))
        const b = f32x4.add(productOf(p, table, 2), productOf(p, table, 3))
        v128.store(to, f32x4.add(v128.load(to), f32x4.add(a, b)))
      }
    }
    for (; vector < vectors; vector++, table += PRODUCTS) {
      let p = codes + <usize>vector
      for (let to = room; to < end; to += 16, p += next) {
        v128.store(to, f32x4.add(v128.load(to), productOf(p, table, 0)))
      }
    }
    for (let lane = 0; lane < min(4, queries - 4 * four); lane++) {
      const to = scores + <usize>(4 * four + lane) * line
      const at = room + (<usize>lane << 2)
      for (let t: usize = 0; t < <usize>count << 2; t += 4) {
        store<f32>(to + t, load<f32>(at + 4 * t))
      }
    }
  }
}

/**
 * out of query i = Σ over `count` values from `from` on of its score · value, of the head that begins at channel
 * `first`; that of query i lies (i / group) · nextRow + (i % group) · next bytes on. Eight channels of up to three
 * queries at a time.
 */
export function mixEntries(
  out: usize,
  nextRow: usize,
  next: usize,
  scores: usize,
  line: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  count: i32,
  first: i32,
): void {
  const queries = rows * group
  for (let i = 0; i < queries; i += 3) {
    const j = min(i + 1, queries - 1)
    const k = min(i + 2, queries - 1)
    const a = out + <usize>(i / group) * nextRow + <usize>(i % group) * next
    const b = out + <usize>(j / group) * nextRow + <usize>(j % group) * next
    const c = out + <usize>(k / group) * nextRow + <usize>(k % group) * next
    const p = scores + <usize>i * line
    const q = scores + <usize>j * line
    const r = scores + <usize>k * line
    for (let channel = 0; channel < size; channel += 8) {
      const shift = <usize>channel << 2
      if (coupledOf(past) == 4) mixEight(4, a + shift, b + shift, c + shift, p, q, r, past, from, count, first + channel)
      else mixEight(8, a + shift, b + shift, c + shift, p, q, r, past, from, count, first + channel)
    }
  }
}

// @ts-ignore: decorator
@inline
function mixEight(
  coupled: i32,
  a: usize,
  b: usize,
  c: usize,
  p: usize,
  q: usize,
  r: usize,
  past: usize,
  from: i32,
  count: i32,
  channel: i32,
): void {
  const next = lineOf(past)
  const codebook = codebookAt(past, channel)
  let codes = codesAt(past, from, channel)
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  for (let t: usize = 0; t < <usize>count << 2; t += 4, codes += next) {
    const entry = codebook + (<usize>load<u8>(codes) << (coupled == 4 ? 4 : 5))
    const x = v128.load(entry)
    const y =
      coupled == 4
        ? v128.load(codebook + (<usize>load<u8>(codes, 1) << 4), 4096)
        : v128.load(entry, 16)
    const u = v128.load32_splat(p + t)
    a0 = fma(u, x, a0)
    a1 = fma(u, y, a1)
    const v = v128.load32_splat(q + t)
    b0 = fma(v, x, b0)
    b1 = fma(v, y, b1)
    const w = v128.load32_splat(r + t)
    c0 = fma(w, x, c0)
    c1 = fma(w, y, c1)
  }
  // Of fewer queries the last one comes again, and is written again.
  v128.store(c, c0)
  v128.store(c, c1, 16)
  v128.store(b, b0)
  v128.store(b, b1, 16)
  v128.store(a, a0)
  v128.store(a, a1, 16)
}

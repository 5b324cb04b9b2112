/** The GEMV of vectors of weights, one row of x, straight from their codes (codebook.ts). */

import { codeAt } from './codebook'
import { put } from './put'
import { fma, storeSome } from './simd'
import {
  dataOf,
  depthOf,
  groupOf,
  groupsOf,
  lengthOf,
  pitchOf,
  rowsOf,
  scalesOf,
  strideOf,
  tableAt,
  wideOf,
} from './source'

/** Vectors of rows [from, to). */
export function vectorsOut(
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  if (lengthOf(source) & 3) vectorsOfSize(0, out, x, source, add, from, to)
  else vectorsOfSize(1, out, x, source, add, from, to)
}

/** `exact`: entries are whole vectors, so that their size is known here. */
// @ts-ignore: decorator
@inline
function vectorsOfSize(
  exact: i32,
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const vectors = (lengthOf(source) + 3) >> 2
  if (wideOf(source) == 1) {
    if (vectors == 1) walkOut(1, 1, exact, out, x, source, add, from, to)
    else if (vectors == 2) walkOut(2, 1, exact, out, x, source, add, from, to)
    else if (vectors == 3) walkOut(3, 1, exact, out, x, source, add, from, to)
    else walkOut(4, 1, exact, out, x, source, add, from, to)
  } else {
    if (vectors == 1) walkOut(1, 2, exact, out, x, source, add, from, to)
    else if (vectors == 2) walkOut(2, 2, exact, out, x, source, add, from, to)
    else if (vectors == 3) walkOut(3, 2, exact, out, x, source, add, from, to)
    else walkOut(4, 2, exact, out, x, source, add, from, to)
  }
}

/** Four chains of sums for entries of one or two vectors, two for longer ones. */
// @ts-ignore: decorator
@inline
function walkOut(
  vectors: i32,
  wide: i32,
  exact: i32,
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const depth = depthOf(source)
  const group = groupOf(source)
  const groups = groupsOf(source)
  const scales = scalesOf(source)
  const length = lengthOf(source)
  const pitch = <usize>(vectors << 4)
  const size = exact ? pitch : pitchOf(source)
  const ways = vectors > 2 ? 2 : 4
  for (let vector = from; vector < to; vector++) {
    let p = dataOf(source) + <usize>vector * strideOf(source)
    let q = x
    let t0 = f32x4.splat(0)
    let t1 = t0
    let t2 = t0
    let t3 = t0
    let k = 0
    for (let g = 0; g < groups; g++) {
      const table = tableAt(source, vector * length, g)
      let a0 = f32x4.splat(0)
      let a1 = a0
      let b0 = a0
      let b1 = a0
      let c0 = a0
      let c1 = a0
      let d0 = a0
      let d1 = a0
      const end = min(depth, k + group)
      for (; k + ways <= end; k += ways, p += ways * wide, q += ways * 4) {
        // One load of x and shuffles: loads are what this is bound by.
        const four = v128.load(q)
        let v = v128.shuffle<f32>(four, four, 0, 0, 0, 0)
        let entry = table + codeAt(wide, p) * size
        a0 = fma(v, v128.load(entry), a0)
        if (vectors > 1) a1 = fma(v, v128.load(entry, 16), a1)
        if (vectors > 2) c0 = fma(v, v128.load(entry, 32), c0)
        if (vectors > 3) c1 = fma(v, v128.load(entry, 48), c1)
        v = v128.shuffle<f32>(four, four, 1, 1, 1, 1)
        entry = table + codeAt(wide, p + wide) * size
        b0 = fma(v, v128.load(entry), b0)
        if (vectors > 1) b1 = fma(v, v128.load(entry, 16), b1)
        if (vectors > 2) d0 = fma(v, v128.load(entry, 32), d0)
        if (vectors > 3) d1 = fma(v, v128.load(entry, 48), d1)
        if (vectors > 2) continue
        v = v128.shuffle<f32>(four, four, 2, 2, 2, 2)
        entry = table + codeAt(wide, p + wide * 2) * size
        c0 = fma(v, v128.load(entry), c0)
        if (vectors > 1) c1 = fma(v, v128.load(entry, 16), c1)
        v = v128.shuffle<f32>(four, four, 3, 3, 3, 3)
        entry = table + codeAt(wide, p + wide * 3) * size
        d0 = fma(v, v128.load(entry), d0)
        if (vectors > 1) d1 = fma(v, v128.load(entry, 16), d1)
      }
      for (; k < end; k++, p += wide, q += 4) {
        const v = v128.load32_splat(q)
        const entry = table + codeAt(wide, p) * size
        a0 = fma(v, v128.load(entry), a0)
        if (vectors > 1) a1 = fma(v, v128.load(entry, 16), a1)
        if (vectors > 2) c0 = fma(v, v128.load(entry, 32), c0)
        if (vectors > 3) c1 = fma(v, v128.load(entry, 48), c1)
      }
      a0 = f32x4.add(a0, b0)
      a1 = f32x4.add(a1, b1)
      c0 = f32x4.add(c0, d0)
      c1 = f32x4.add(c1, d1)
      if (vectors <= 2) {
        a0 = f32x4.add(a0, c0)
        a1 = f32x4.add(a1, c1)
      }
      const at = scales + <usize>(vector * groups + g) * pitch
      t0 = scales ? fma(v128.load(at), a0, t0) : f32x4.add(t0, a0)
      if (vectors > 1) t1 = scales ? fma(v128.load(at, 16), a1, t1) : f32x4.add(t1, a1)
      if (vectors > 2) t2 = scales ? fma(v128.load(at, 32), c0, t2) : f32x4.add(t2, c0)
      if (vectors > 3) t3 = scales ? fma(v128.load(at, 48), c1, t3) : f32x4.add(t3, c1)
    }
    const row = vector * length
    const some = min(length, rowsOf(source) - row)
    const to4 = out + (<usize>row << 2)
    putSome(to4, t0, some, add)
    if (vectors > 1) putSome(to4 + 16, t1, some - 4, add)
    if (vectors > 2) putSome(to4 + 32, t2, some - 8, add)
    if (vectors > 3) putSome(to4 + 48, t3, some - 12, add)
  }
}

// @ts-ignore: decorator
@inline
function putSome(p: usize, v: v128, count: i32, add: i32): void {
  if (count <= 0) return
  if (add) v = f32x4.add(v128.load(p), v)
  storeSome(p, v, count)
}

/** Strips [from, to). */
export function vectorsIn(
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const pitch = <i32>pitchOf(source)
  if (wideOf(source) == 1) {
    if (pitch == 4) walkIn(4, 1, out, x, source, add, from, to)
    else if (pitch == 8) walkIn(8, 1, out, x, source, add, from, to)
    else if (pitch == 16) walkIn(16, 1, out, x, source, add, from, to)
    else walkIn(32, 1, out, x, source, add, from, to)
  } else {
    if (pitch == 4) walkIn(4, 2, out, x, source, add, from, to)
    else if (pitch == 8) walkIn(8, 2, out, x, source, add, from, to)
    else if (pitch == 16) walkIn(16, 2, out, x, source, add, from, to)
    else walkIn(32, 2, out, x, source, add, from, to)
  }
}

/** Four weights: an entry's, or those of two or four short ones, of the code at p and of the next vectors'. */
// @ts-ignore: decorator
@inline
function quadruple(pitch: i32, wide: i32, table: usize, p: usize): v128 {
  const entry = table + codeAt(wide, p) * pitch
  if (pitch > 8) return v128.load(entry)
  if (pitch == 8) {
    return v128.load64_lane(table + codeAt(wide, p + wide * 8) * 8, v128.load64_zero(entry), 1)
  }
  let v = v128.load32_splat(entry)
  v = v128.load32_lane(table + codeAt(wide, p + wide * 8) * 4, v, 1)
  v = v128.load32_lane(table + codeAt(wide, p + wide * 16) * 4, v, 2)
  return v128.load32_lane(table + codeAt(wide, p + wide * 24) * 4, v, 3)
}

/** [Σ a, Σ b, Σ c, Σ d]. */
// @ts-ignore: decorator
@inline
function sums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7))
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7))
  return f32x4.add(v128.shuffle<i64>(ab, cd, 0, 2), v128.shuffle<i64>(ab, cd, 1, 3))
}

/** A row's products are summed in the four lanes of a register, added up at the end of a group. */
// @ts-ignore: decorator
@inline
function walkIn(
  pitch: i32,
  wide: i32,
  out: usize,
  x: usize,
  source: usize,
  add: i32,
  from: i32,
  to: i32,
): void {
  const length = lengthOf(source)
  const groups = groupsOf(source)
  const scales = scalesOf(source)
  const group = groupOf(source)
  const depth = depthOf(source)
  /** Vectors of a turn, weights and bytes of codes. */
  const some = pitch == 4 ? 4 : pitch == 8 ? 2 : 1
  const weights = length * some
  const bytes = <usize>(8 * wide * some)
  const last = rowsOf(source) - 1
  for (let strip = from; strip < to; strip++) {
    const row = strip << 3
    let low = f32x4.splat(0)
    let high = low
    let p = dataOf(source) + <usize>strip * strideOf(source)
    let q = x
    let k = 0
    for (let g = 0; g < groups; g++) {
      // Rows past the last have code 0, of the last row's table.
      const b0 = tableAt(source, row, g)
      const b1 = tableAt(source, min(row + 1, last), g)
      const b2 = tableAt(source, min(row + 2, last), g)
      const b3 = tableAt(source, min(row + 3, last), g)
      const b4 = tableAt(source, min(row + 4, last), g)
      const b5 = tableAt(source, min(row + 5, last), g)
      const b6 = tableAt(source, min(row + 6, last), g)
      const b7 = tableAt(source, min(row + 7, last), g)
      let a0 = f32x4.splat(0)
      let a1 = a0
      let a2 = a0
      let a3 = a0
      let a4 = a0
      let a5 = a0
      let a6 = a0
      let a7 = a0
      const end = min(depth, k + group)
      for (; k < end; k += weights, p += bytes, q += <usize>weights << 2) {
        let v = v128.load(q)
        a0 = fma(v, quadruple(pitch, wide, b0, p), a0)
        a1 = fma(v, quadruple(pitch, wide, b1, p + wide), a1)
        a2 = fma(v, quadruple(pitch, wide, b2, p + wide * 2), a2)
        a3 = fma(v, quadruple(pitch, wide, b3, p + wide * 3), a3)
        a4 = fma(v, quadruple(pitch, wide, b4, p + wide * 4), a4)
        a5 = fma(v, quadruple(pitch, wide, b5, p + wide * 5), a5)
        a6 = fma(v, quadruple(pitch, wide, b6, p + wide * 6), a6)
        a7 = fma(v, quadruple(pitch, wide, b7, p + wide * 7), a7)
        if (pitch < 32) continue
        v = v128.load(q, 16)
        a0 = fma(v, quadruple(pitch, wide, b0 + 16, p), a0)
        a1 = fma(v, quadruple(pitch, wide, b1 + 16, p + wide), a1)
        a2 = fma(v, quadruple(pitch, wide, b2 + 16, p + wide * 2), a2)
        a3 = fma(v, quadruple(pitch, wide, b3 + 16, p + wide * 3), a3)
        a4 = fma(v, quadruple(pitch, wide, b4 + 16, p + wide * 4), a4)
        a5 = fma(v, quadruple(pitch, wide, b5 + 16, p + wide * 5), a5)
        a6 = fma(v, quadruple(pitch, wide, b6 + 16, p + wide * 6), a6)
        a7 = fma(v, quadruple(pitch, wide, b7 + 16, p + wide * 7), a7)
      }
      a0 = sums(a0, a1, a2, a3)
      a4 = sums(a4, a5, a6, a7)
      const at = scales + (<usize>(strip * groups + g) << 5)
      low = scales ? fma(v128.load(at), a0, low) : f32x4.add(low, a0)
      high = scales ? fma(v128.load(at, 16), a4, high) : f32x4.add(high, a4)
    }
    put(out, strip << 3, rowsOf(source), low, high, add)
  }
}

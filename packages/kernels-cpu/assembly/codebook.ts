/**
 * Vectors of weights: how their codes (1 or 2 bytes) lie, and how a panel is filled from them. A table is
 * [entry][pitch], f32; along IN entries of 3, 5, 6 and 7 are padded with zeros to whole vectors.
 *
 *   OUT  [vector of rows][k]: a code is `length` rows of one column; a GEMV walks along k and keeps
 * the rows' sums in registers
 *   IN   [strip][vector of columns][8]: a code is `length` columns of one row; eight rows share a
 * piece of x
 *
 * Scales and offsets of OUT are [vector of rows][group][length, padded to fours], of IN [strip][group][8] as for
 * scalars; both may be 0 (none).
 */

import { fma, storeSome } from './simd'
import {
  dataOf,
  groupOf,
  groupsOf,
  lengthOf,
  offsetsOf,
  pitchOf,
  rowsOf,
  scalesOf,
  strideOf,
  tableAt,
} from './source'

/** The code at p. */
// @ts-ignore: decorator
@inline
export function codeAt(wide: i32, p: usize): usize {
  return wide == 1 ? <usize>load<u8>(p) : <usize>load<u16>(p)
}

/** Rows strip·8 … for k in [from, to): the strip meets one or more vectors. */
// @ts-ignore: decorator
@inline
export function fillOut(
  wide: i32,
  panel: usize,
  source: usize,
  strip: i32,
  from: i32,
  to: i32,
): void {
  const length = lengthOf(source)
  const rows = min(rowsOf(source) - (strip << 3), 8)
  for (let lane = 0; lane < rows; ) {
    const row = (strip << 3) + lane
    const vector = row / length
    const first = row - vector * length
    const some = min(8 - lane, length - first)
    fillVector(wide, panel + <usize>(lane << 2), source, vector, first, some, from, to)
    lane += some
  }
}

/** Elements `first` … of one vector of rows, `some` of them. */
// @ts-ignore: decorator
@inline
function fillVector(
  wide: i32,
  out: usize,
  source: usize,
  vector: i32,
  first: i32,
  some: i32,
  from: i32,
  to: i32,
): void {
  const group = groupOf(source)
  const pitch = pitchOf(source)
  const scales = scalesOf(source)
  const offsets = offsetsOf(source)
  const skip = <usize>(first << 2)
  const scalePitch = <usize>(((lengthOf(source) + 3) & ~3) << 2)
  const row = vector * lengthOf(source)
  let p = dataOf(source) + <usize>vector * strideOf(source) + <usize>(from * wide)
  let k = from
  for (let g = from / group; k < to; g++) {
    const table = tableAt(source, row, g) + skip
    const at = <usize>(vector * groupsOf(source) + g) * scalePitch + skip
    let s0 = f32x4.splat(1)
    let s1 = s0
    let o0 = f32x4.splat(0)
    let o1 = o0
    if (scales) {
      s0 = v128.load(scales + at)
      s1 = v128.load(scales + at, 16)
    }
    if (offsets) {
      o0 = v128.load(offsets + at)
      o1 = v128.load(offsets + at, 16)
    }
    const end = min(to, (g + 1) * group)
    // Loads run past short vectors; what they bring is not stored.
    for (; k < end; k++, p += wide, out += 32) {
      const entry = table + codeAt(wide, p) * pitch
      const a = fma(v128.load(entry), s0, o0)
      if (some < 4) {
        storeSome(out, a, some)
        continue
      }
      v128.store(out, a)
      if (some > 4) storeSome(out + 16, fma(v128.load(entry, 16), s1, o1), some - 4)
    }
  }
}

/** Four floats, one from each address. */
// @ts-ignore: decorator
@inline
function lanes(p0: usize, p1: usize, p2: usize, p3: usize): v128 {
  let v = v128.load32_splat(p0)
  v = v128.load32_lane(p1, v, 1)
  v = v128.load32_lane(p2, v, 2)
  return v128.load32_lane(p3, v, 3)
}

/** Four rows' quadruples, turned: four columns of the panel, 32 bytes apart. */
// @ts-ignore: decorator
@inline
function turn(out: usize, r0: v128, r1: v128, r2: v128, r3: v128, s: v128, o: v128): void {
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5)
  const b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5)
  const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7)
  const d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7)
  v128.store(out, fma(v128.shuffle<i64>(a, b, 0, 2), s, o))
  v128.store(out, fma(v128.shuffle<i64>(a, b, 1, 3), s, o), 32)
  v128.store(out, fma(v128.shuffle<i64>(c, d, 0, 2), s, o), 64)
  v128.store(out, fma(v128.shuffle<i64>(c, d, 1, 3), s, o), 96)
}

// @ts-ignore: decorator
@inline
export function fillIn(
  wide: i32,
  panel: usize,
  source: usize,
  strip: i32,
  from: i32,
  to: i32,
): void {
  const length = lengthOf(source)
  const group = groupOf(source)
  const pitch = pitchOf(source)
  const scales = scalesOf(source)
  const offsets = offsetsOf(source)
  const row = strip << 3
  const last = rowsOf(source) - 1
  let k = from
  let e = from % length
  let p = dataOf(source) + <usize>strip * strideOf(source) + <usize>(from / length) * (8 * wide)
  for (let g = from / group; k < to; g++) {
    // Rows past the last have code 0, of the last row's table.
    const b0 = tableAt(source, row, g)
    const b1 = tableAt(source, min(row + 1, last), g)
    const b2 = tableAt(source, min(row + 2, last), g)
    const b3 = tableAt(source, min(row + 3, last), g)
    const b4 = tableAt(source, min(row + 4, last), g)
    const b5 = tableAt(source, min(row + 5, last), g)
    const b6 = tableAt(source, min(row + 6, last), g)
    const b7 = tableAt(source, min(row + 7, last), g)
    const at = <usize>(strip * groupsOf(source) + g) << 5
    let s0 = f32x4.splat(1)
    let s1 = s0
    let o0 = f32x4.splat(0)
    let o1 = o0
    if (scales) {
      s0 = v128.load(scales + at)
      s1 = v128.load(scales + at, 16)
    }
    if (offsets) {
      o0 = v128.load(offsets + at)
      o1 = v128.load(offsets + at, 16)
    }
    const end = min(to, (g + 1) * group)
    while (k < end) {
      const skip = <usize>(e << 2)
      const p0 = b0 + codeAt(wide, p) * pitch + skip
      const p1 = b1 + codeAt(wide, p + wide) * pitch + skip
      const p2 = b2 + codeAt(wide, p + wide * 2) * pitch + skip
      const p3 = b3 + codeAt(wide, p + wide * 3) * pitch + skip
      const p4 = b4 + codeAt(wide, p + wide * 4) * pitch + skip
      const p5 = b5 + codeAt(wide, p + wide * 5) * pitch + skip
      const p6 = b6 + codeAt(wide, p + wide * 6) * pitch + skip
      const p7 = b7 + codeAt(wide, p + wide * 7) * pitch + skip
      if (e + 4 <= length && k + 4 <= end) {
        turn(panel, v128.load(p0), v128.load(p1), v128.load(p2), v128.load(p3), s0, o0)
        turn(panel + 16, v128.load(p4), v128.load(p5), v128.load(p6), v128.load(p7), s1, o1)
        k += 4
        e += 4
        panel += 128
      } else {
        v128.store(panel, fma(lanes(p0, p1, p2, p3), s0, o0))
        v128.store(panel, fma(lanes(p4, p5, p6, p7), s1, o1), 16)
        k++
        e++
        panel += 32
      }
      if (e == length) {
        e = 0
        p += 8 * wide
      }
    }
  }
}

/** Fills the packed right-hand panel of the GEMM, [k][8] floats, from any source. */

import { fillIn, fillOut } from './codebook'
import { entries16, entries256, integers, quarter } from './codes'
import { fma, loadBfloats, loadHalves } from './simd'
import {
  BF16,
  centerOf,
  COLUMNS,
  dataOf,
  depthOf,
  F16,
  F32,
  groupOf,
  groupsOf,
  IN,
  INTEGER2,
  INTEGER4,
  INTEGER8,
  kindOf,
  offsetsOf,
  OUT,
  ROWS,
  rowsOf,
  scalesOf,
  strideOf,
  SUM,
  TABLE2,
  TABLE4,
  TABLE8,
  wideOf,
  tableAt,
} from './source'

/** k at a time: a panel is then 8 KiB, two of them and one of the left side stay in the first cache. */
export const BLOCK = 256
/** Bytes of room that a sum of parts needs: a panel. */
export const PANEL: usize = BLOCK * 32

/** Rows `strip`·8 … of the source for k in [from, to). `room`: PANEL bytes for sums. */
export function fill(
  panel: usize,
  source: usize,
  strip: i32,
  from: i32,
  to: i32,
  room: usize,
): void {
  if (kindOf(source) == SUM) fillSum(panel, source, strip, from, to, room)
  else fillPart(panel, source, strip, from, to)
}

/** The first part that covers all of it is decoded in place, others are added. */
function fillSum(
  panel: usize,
  source: usize,
  strip: i32,
  from: i32,
  to: i32,
  room: usize,
): void {
  const parts = groupsOf(source)
  let begun = false
  for (let i = 0; i < parts; i++) {
    const part = load<usize>(dataOf(source) + <usize>(i << 3))
    const at = load<i32>(dataOf(source) + <usize>(i << 3), 4)
    const first = max(from, at)
    const last = min(to, at + depthOf(part))
    if (first >= last) continue
    if (!begun && first == from && last == to) {
      fillPart(panel, part, strip, from - at, to - at)
      begun = true
      continue
    }
    if (!begun) memory.fill(panel, 0, <usize>(to - from) << 5)
    begun = true
    fillPart(room, part, strip, first - at, last - at)
    const out = panel + (<usize>(first - from) << 5)
    const size = <usize>(last - first) << 5
    for (let p: usize = 0; p < size; p += 16) {
      v128.store(out + p, f32x4.add(v128.load(out + p), v128.load(room + p)))
    }
  }
  if (!begun) memory.fill(panel, 0, <usize>(to - from) << 5)
}

function fillPart(panel: usize, source: usize, strip: i32, from: i32, to: i32): void {
  const kind = kindOf(source)
  if (kind == INTEGER4) fillCodes(4, 0, panel, source, strip, from, to)
  else if (kind == INTEGER8) fillCodes(8, 0, panel, source, strip, from, to)
  else if (kind == INTEGER2) fillCodes(2, 0, panel, source, strip, from, to)
  else if (kind == TABLE4) fillCodes(4, 16, panel, source, strip, from, to)
  else if (kind == TABLE2) fillCodes(2, 16, panel, source, strip, from, to)
  else if (kind == ROWS) fillRows(panel, source, strip, from, to)
  else if (kind == COLUMNS) fillColumns(panel, source, strip, from, to)
  else if (kind == F32) fillStrip(panel, source, strip, from, to)
  else if (kind == F16) fillHalves(0, panel, source, strip, from, to)
  else if (kind == BF16) fillHalves(1, panel, source, strip, from, to)
  else if (kind == TABLE8) fillCodes(8, 256, panel, source, strip, from, to)
  else if (kind == OUT) {
    if (wideOf(source) == 1) fillOut(1, panel, source, strip, from, to)
    else fillOut(2, panel, source, strip, from, to)
  } else {
    if (wideOf(source) == 1) fillIn(1, panel, source, strip, from, to)
    else fillIn(2, panel, source, strip, from, to)
  }
}

function fillRows(panel: usize, source: usize, strip: i32, from: i32, to: i32): void {
  const stride = strideOf(source)
  const rows = min(rowsOf(source) - (strip << 3), 8)
  const data = dataOf(source) + <usize>(strip << 3) * stride
  for (let half = 0; half < 2; half++) {
    const left = rows - (half << 2)
    let out = panel + <usize>(half << 4)
    if (left <= 0) {
      for (let k = from; k < to; k++, out += 32) v128.store(out, i32x4.splat(0))
      continue
    }
    // Rows past the edge repeat the last one; their results are never written.
    const p0 = data + <usize>(half << 2) * stride
    const p1 = left > 1 ? p0 + stride : p0
    const p2 = left > 2 ? p1 + stride : p1
    const p3 = left > 3 ? p2 + stride : p2
    let k = from
    for (; k + 4 <= to; k += 4, out += 128) {
      const at = <usize>k << 2
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
    for (; k < to; k++, out += 32) {
      const at = <usize>k << 2
      store<f32>(out, load<f32>(p0 + at))
      store<f32>(out, load<f32>(p1 + at), 4)
      store<f32>(out, load<f32>(p2 + at), 8)
      store<f32>(out, load<f32>(p3 + at), 12)
    }
  }
}

function fillColumns(panel: usize, source: usize, strip: i32, from: i32, to: i32): void {
  const stride = strideOf(source)
  let p = dataOf(source) + <usize>from * stride + (<usize>strip << 5)
  // Lanes past the edge read the next row, or the slack after the tensor; they are never written.
  for (let k = from; k < to; k++, p += stride, panel += 32) {
    v128.store(panel, v128.load(p))
    v128.store(panel, v128.load(p, 16), 16)
  }
}

function fillStrip(panel: usize, source: usize, strip: i32, from: i32, to: i32): void {
  const p = dataOf(source) + <usize>strip * strideOf(source) + (<usize>from << 5)
  memory.copy(panel, p, <usize>(to - from) << 5)
}

// @ts-ignore: decorator
@inline
function fillHalves(brain: i32, panel: usize, source: usize, strip: i32, from: i32, to: i32): void {
  let p = dataOf(source) + <usize>strip * strideOf(source) + (<usize>from << 4)
  for (let k = from; k < to; k++, p += 16, panel += 32) {
    v128.store(panel, brain ? loadBfloats(p) : loadHalves(p))
    v128.store(panel, brain ? loadBfloats(p + 8) : loadHalves(p + 8), 16)
  }
}

// @ts-ignore: decorator
@inline
function fillCodes(
  bits: i32,
  table: i32,
  panel: usize,
  source: usize,
  strip: i32,
  from: i32,
  to: i32,
): void {
  const data = dataOf(source) + <usize>strip * strideOf(source)
  const group = groupOf(source)
  const offsets = offsetsOf(source)
  const center = f32x4.splat(centerOf(source))
  let entries: usize = 0
  let t0 = i32x4.splat(0)
  let t1 = t0
  let t2 = t0
  let t3 = t0
  let g = from / group
  let k = from
  while (k < to) {
    if (table) entries = tableAt(source, strip << 3, g)
    if (table == 16) {
      t0 = v128.load(entries)
      t1 = v128.load(entries, 16)
      t2 = v128.load(entries, 32)
      t3 = v128.load(entries, 48)
    }
    const at = <usize>(strip * groupsOf(source) + g) << 5
    const s0 = v128.load(scalesOf(source) + at)
    const s1 = v128.load(scalesOf(source) + at, 16)
    let o0 = f32x4.mul(s0, center)
    let o1 = f32x4.mul(s1, center)
    if (offsets) {
      o0 = v128.load(offsets + at)
      o1 = v128.load(offsets + at, 16)
    }
    const end = min(to, (g + 1) * group)
    for (; k < end; k += 4, panel += 128) {
      const v0 = quarter(bits, data, k, 0)
      const v1 = quarter(bits, data, k, 1)
      if (table == 256) {
        const p = data + <usize>(k << 3)
        for (let j = 0; j < 4; j++) {
          const out = panel + <usize>(j << 5)
          v128.store(out, fma(entries256(p, j, entries), s0, o0))
          v128.store(out, fma(entries256(p + 16, j, entries), s1, o1), 16)
        }
      }
      if (table == 16) {
        v128.store(panel, fma(entries16(v0, 0, t0, t1, t2, t3), s0, o0))
        v128.store(panel, fma(entries16(v1, 0, t0, t1, t2, t3), s1, o1), 16)
        v128.store(panel, fma(entries16(v0, 1, t0, t1, t2, t3), s0, o0), 32)
        v128.store(panel, fma(entries16(v1, 1, t0, t1, t2, t3), s1, o1), 48)
        v128.store(panel, fma(entries16(v0, 2, t0, t1, t2, t3), s0, o0), 64)
        v128.store(panel, fma(entries16(v1, 2, t0, t1, t2, t3), s1, o1), 80)
        v128.store(panel, fma(entries16(v0, 3, t0, t1, t2, t3), s0, o0), 96)
        v128.store(panel, fma(entries16(v1, 3, t0, t1, t2, t3), s1, o1), 112)
      }
      if (table == 0) {
        v128.store(panel, fma(integers(v0, 0), s0, o0))
        v128.store(panel, fma(integers(v1, 0), s1, o1), 16)
        v128.store(panel, fma(integers(v0, 1), s0, o0), 32)
        v128.store(panel, fma(integers(v1, 1), s1, o1), 48)
        v128.store(panel, fma(integers(v0, 2), s0, o0), 64)
        v128.store(panel, fma(integers(v1, 2), s1, o1), 80)
        v128.store(panel, fma(integers(v0, 3), s0, o0), 96)
        v128.store(panel, fma(integers(v1, 3), s1, o1), 112)
      }
    }
    g++
  }
}

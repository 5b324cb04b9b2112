/**
 * Codes × activations in whole numbers (activations.ts). Within a block of 32 columns the sum of
 * code · x is exact in integers.
 *
 *   short   bytes × bytes: i16x8.relaxed_dot_i8x16_i7x16 (pmaddubsw) sums pairs of k into i16 lanes;
 *           codes of up to 4 bits: 8 · 2 · 15 · 127 < 2^15, so one block fits before widening
 *   long    the same products, four of them and an i32 by i32x4.relaxed_dot_i8x16_i7x16_add
 *           (vpdpbusd, sdot): the same sums, faster where that is one instruction (longProbe)
 *   wide    codes extended to i16 × i16 activations: i32x4.dot_i16x8 (pmaddwd); codes of up to 8
 *           bits: 32 · 255 · 32767 < 2^31
 *
 * With factor f of the block, s and o of the group, m of the matrix and x' an outlier:
 *
 *   out += s · (Σ f · (Σ c·x) + Σ c·x' + m · (Σ f·x + Σ x')) + o · (Σ f·x + Σ x')
 */

import { quarter } from './codes'
import { narrowPair, narrowRow, narrowRows } from './dots-narrow'
import { wideRow, wideRows } from './dots-wide'
import { addOutliers, addOutliersPair, outlierBytes } from './outliers'
import { dataOf, depthOf, groupsOf, INTEGER2, INTEGER4, kindOf, rowsOf, strideOf } from './source'
import { put } from './put'
import { take, thread, wide as wideVectors } from './threads'

const LONG = 1
const WIDE = 2

/**
 * out[t, n] (+)= x · Wᵀ, x in panels of `high` rows. A task is `some` strips. `way`: 0 short,
 * 1 long, 2 wide. `scratch`: for each thread two strips with a byte for each code, and 256
 * bytes.
 */
export function dots(
  out: usize,
  stride: usize,
  numbers: usize,
  factors: usize,
  sums: usize,
  outliers: usize,
  rows: i32,
  source: usize,
  add: i32,
  some: i32,
  high: i32,
  way: i32,
  scratch: usize,
  room: usize,
): void {
  const depth = depthOf(source)
  const strips = (rowsOf(source) + 7) >> 3
  const tasks = (strips + some - 1) / some
  const panels = (rows + high - 1) / high
  const bits = bitsOf(source)
  const wide = way == WIDE
  const long = way == LONG
  const panelNumbers = <usize>(depth * high) << (wide ? 1 : 0)
  const panelFactors = <usize>((depth >> 5) * high) << 2
  const panelSums = <usize>(groupsOf(source) * high) << 2
  const listBytes = outlierBytes(depth)
  const spread = scratch + thread * room
  const stripSpread = <usize>depth << 3
  // Panels of four rows take strips by two: see addOutliersPair.
  const step = high == 1 ? 1 : 2
  for (let task = take(); task < tasks; task = take()) {
    const last = min((task + 1) * some, strips)
    for (let strip = task * some; strip < last; strip += step) {
      const pair = step == 2 && strip + 1 < last
      let codes = dataOf(source) + <usize>strip * strideOf(source)
      let next = codes + strideOf(source)
      if (bits < 8 && high > 1) {
        unpack(bits, spread, codes, depth)
        if (pair) unpack(bits, spread + stripSpread, next, depth)
        codes = spread
        next = spread + stripSpread
      }
      for (let panel = 0; panel < panels; panel++) {
        const p = <usize>panel
        const x = numbers + p * panelNumbers
        const f = factors + p * panelFactors
        const s = sums + p * panelSums
        const to = out + p * <usize>high * stride
        const list = outliers + p * <usize>high * listBytes
        if (high == 1) {
          if (wide) {
            if (bits == 4) wideRow(4, codes, x, f, s, source, strip, to, add)
            else if (bits == 2) wideRow(2, codes, x, f, s, source, strip, to, add)
            else wideRow(8, codes, x, f, s, source, strip, to, add)
          } else if (bits == 4) {
            if (long) narrowRow<u32, i32>(codes, x, f, s, source, strip, to, add)
            else narrowRow<u32, i16>(codes, x, f, s, source, strip, to, add)
            addOutliers(4, codes, list, source, strip, to)
          } else {
            if (long) narrowRow<u16, i32>(codes, x, f, s, source, strip, to, add)
            else narrowRow<u16, i16>(codes, x, f, s, source, strip, to, add)
            addOutliers(2, codes, list, source, strip, to)
          }
          continue
        }
        const left = min(rows - panel * high, high)
        if (wide) {
          wideRows(codes, x, f, s, source, strip, to, stride, left, add)
          if (pair) wideRows(next, x, f, s, source, strip + 1, to, stride, left, add)
          continue
        }
        if (pair && wideVectors) {
          const spare = spread + (stripSpread << 1)
          if (long) narrowPair<i32>(codes, next, x, f, s, source, strip, spare)
          else narrowPair<i16>(codes, next, x, f, s, source, strip, spare)
          putPair(to, stride, spare, source, strip, left, add)
        } else {
          if (long) narrowRows<i32>(codes, x, f, s, source, strip, to, stride, left, add)
          else narrowRows<i16>(codes, x, f, s, source, strip, to, stride, left, add)
          if (pair) {
            if (long) narrowRows<i32>(next, x, f, s, source, strip + 1, to, stride, left, add)
            else narrowRows<i16>(next, x, f, s, source, strip + 1, to, stride, left, add)
          }
        }
        for (let r: usize = 0; r < <usize>left; r++) {
          if (pair) addOutliersPair(codes, list + r * listBytes, source, strip, to + r * stride)
          else addOutliers(8, codes, list + r * listBytes, source, strip, to + r * stride)
        }
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function bitsOf(source: usize): i32 {
  const kind = kindOf(source)
  return kind == INTEGER2 ? 2 : kind == INTEGER4 ? 4 : 8
}

/**
 * A byte for each code: quarters of rows 0–3 and rows 4–7 for each 4 k, as 8-bit codes have them.
 */
function unpack(bits: i32, to: usize, codes: usize, depth: i32): void {
  if (bits == 4) unpackBits(4, to, codes, depth)
  else unpackBits(2, to, codes, depth)
}

// @ts-ignore: decorator
@inline
function unpackBits(bits: i32, to: usize, codes: usize, depth: i32): void {
  for (let k = 0; k < depth; k += 4, to += 32) {
    v128.store(to, quarter(bits, codes, k, 0))
    v128.store(to, quarter(bits, codes, k, 1), 16)
  }
}

/** `left` rows of what narrowPair left at `spare`. */
function putPair(
  out: usize,
  stride: usize,
  spare: usize,
  source: usize,
  strip: i32,
  left: i32,
  add: i32,
): void {
  const height = rowsOf(source)
  const n = strip << 3
  for (let r = 0; r < left; r++, out += stride, spare += 64) {
    put(out, n, height, v128.load(spare), v128.load(spare, 16), add)
    put(out, n + 8, height, v128.load(spare, 32), v128.load(spare, 48), add)
  }
}

/**
 * Codes × 8-bit activations. Within a block of 32 columns the sum of code · x is exact in integers:
 * the strict and the relaxed build, and both of the ways below, get the same.
 *
 *   narrow  bytes × bytes: i16x8.relaxed_dot_i8x16_i7x16 (pmaddubsw) sums pairs of k into i16
 * lanes;
 *           codes of up to 4 bits: 8 · 2 · 15 · 127 < 2^15, so one block fits before widening
 *   wide    codes extended to i16 × i16 activations: i32x4.dot_i16x8 (pmaddwd); up to 8 bits
 *
 * With factor f of the block, s and o of the group and m of the matrix:
 *
 *   out += s · (Σ f · (Σ c·x) + m · Σ f·x) + o · Σ f·x
 */

import { quarter } from './codes'
import { narrowRow, narrowRows } from './dots-narrow'
import { wideRow, wideRows } from './dots-wide'
import { dataOf, depthOf, groupsOf, INTEGER2, INTEGER4, kindOf, rowsOf, strideOf } from './source'
import { take, thread } from './threads'

/**
 * out[t, n] (+)= x · Wᵀ, x quantized in panels of `high` rows. A task is `some` strips. `scratch`:
 * for each thread a strip with a byte for each code.
 */
export function dots(
  out: usize,
  stride: usize,
  bytes: usize,
  factors: usize,
  sums: usize,
  rows: i32,
  source: usize,
  add: i32,
  some: i32,
  high: i32,
  wide: i32,
  scratch: usize,
  room: usize,
): void {
  const depth = depthOf(source)
  const strips = (rowsOf(source) + 7) >> 3
  const tasks = (strips + some - 1) / some
  const panels = (rows + high - 1) / high
  const kind = kindOf(source)
  const bits = kind == INTEGER2 ? 2 : kind == INTEGER4 ? 4 : 8
  const panelBytes = <usize>(depth * high) << wide
  const panelFactors = <usize>((depth >> 5) * high) << 2
  const panelSums = <usize>(groupsOf(source) * high) << 2
  const spread = scratch + thread * room
  for (let task = take(); task < tasks; task = take()) {
    const last = min((task + 1) * some, strips)
    for (let strip = task * some; strip < last; strip++) {
      let codes = dataOf(source) + <usize>strip * strideOf(source)
      const direct = bits == 8 || high == 1
      if (!direct) {
        if (bits == 4) unpack(4, spread, codes, depth)
        else unpack(2, spread, codes, depth)
        codes = spread
      }
      for (let panel = 0; panel < panels; panel++) {
        const p = <usize>panel
        const x = bytes + p * panelBytes
        const f = factors + p * panelFactors
        const s = sums + p * panelSums
        const to = out + p * <usize>high * stride
        const left = min(rows - panel * high, high)
        if (high == 1) {
          if (wide) {
            if (bits == 4) wideRow(4, codes, x, f, s, source, strip, to, add)
            else if (bits == 2) wideRow(2, codes, x, f, s, source, strip, to, add)
            else wideRow(8, codes, x, f, s, source, strip, to, add)
          } else if (bits == 4) narrowRow(4, codes, x, f, s, source, strip, to, add)
          else narrowRow(2, codes, x, f, s, source, strip, to, add)
        } else if (wide) wideRows(codes, x, f, s, source, strip, to, stride, left, add)
        else narrowRows(codes, x, f, s, source, strip, to, stride, left, add)
      }
    }
  }
}

/**
 * A byte for each code: quarters of rows 0–3 and rows 4–7 for each 4 k, as 8-bit codes have them.
 */
// @ts-ignore: decorator
@inline
function unpack(bits: i32, to: usize, codes: usize, depth: i32): void {
  for (let k = 0; k < depth; k += 4, to += 32) {
    v128.store(to, quarter(bits, codes, k, 0))
    v128.store(to, quarter(bits, codes, k, 1), 16)
  }
}

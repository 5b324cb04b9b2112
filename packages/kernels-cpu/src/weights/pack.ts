/** Scales, tables and columns in the layout of the kernels (assembly/codes.ts, assembly/codebook.ts). */

import type { Plan } from './plan.ts'

/**
 * [row][group] as [unit][group][pitch], a unit of `length` rows: 8 of 8 for strips, padded ones for vectors
 * of rows. Rows past the last are zeros.
 */
export function packScales(
  values: Float32Array,
  rows: number,
  groups: number,
  length = 8,
  pitch = 8,
): Float32Array {
  const out = new Float32Array(Math.ceil(rows / length) * groups * pitch)
  for (let row = 0; row < rows; row++) {
    const unit = Math.floor(row / length)
    for (let g = 0; g < groups; g++) {
      out[(unit * groups + g) * pitch + (row - unit * length)] = values[row * groups + g]
    }
  }
  return out
}

/** 16 floats as four planes of bytes, for swizzles; or up to 256 floats as they are. */
export function packTable(table: Float32Array, bits: number): Float32Array {
  if (bits === 8) {
    const out = new Float32Array(256)
    out.set(table)
    return out
  }
  const values = new Float32Array(16)
  values.set(table)
  const bytes = new Uint8Array(values.buffer)
  const planes = new Uint8Array(64)
  for (let i = 0; i < 64; i++) planes[(i & 3) * 16 + (i >> 2)] = bytes[i]
  return new Float32Array(planes.buffer)
}

/** Numbers of 14 bits. */
const MOST = 2 ** 14 - 1

/** Up to 16 floats as low + step · (128·h + l): h and l of each, step and low (assembly/table-dots.ts). */
export function packIntegers(table: Float32Array): Float32Array {
  const low = table.reduce((least, x) => Math.min(least, x))
  const high = table.reduce((most, x) => Math.max(most, x))
  const step = Math.fround((high - low) / MOST)
  const out = new Float32Array(16)
  const bytes = new Uint8Array(out.buffer)
  for (const [i, x] of table.entries()) {
    const number = step > 0 ? Math.min(MOST, Math.round((x - low) / step)) : 0
    bytes[i] = number >> 7
    bytes[16 + i] = number & 127
  }
  out[8] = step
  out[9] = low
  return out
}

/**
 * Which input feature each packed column takes (−1: padding), or nothing where that is the order of
 * the features itself.
 */
export function columnMap(
  { segments, depth }: Plan,
  columns: number,
  order: Uint32Array | undefined,
): Int32Array<ArrayBuffer> | undefined {
  const whole = segments.length === 1 && segments[0].from === 0 && segments[0].to === columns
  if (!order && depth === columns && whole) return undefined
  const map = new Int32Array(depth).fill(-1)
  for (const { from, to, at, group, padded } of segments) {
    for (let column = from; column < to; column++) {
      const g = Math.floor((column - from) / group)
      const packed = at + g * padded + (column - from - g * group)
      map[packed] = order ? order[column] : column
    }
  }
  return map
}

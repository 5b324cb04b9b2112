/** Codes and scales in the layout of the kernels: strips of 8 rows (assembly/codes.ts). */

import type { Plan } from './plan.ts'

/** Bytes of a strip of 8 rows. */
export function stripBytes(bits: number, depth: number): number {
  return depth * bits
}

/**
 * Writes the strips of `codes` [rows][columns]. Quarters are 4 rows × 4 k, byte 4·row + k; see
 * assembly/codes.ts for how containers hold them. Padding is code 0.
 */
export function packStrips(
  out: Uint8Array,
  codes: Uint16Array,
  rows: number,
  columns: number,
  plan: Plan,
): void {
  const { bits, group, padded, groups } = plan
  const size = stripBytes(bits, padded * groups)
  for (let row = 0; row < rows; row++) {
    const strip = (row >> 3) * size
    const half = (row >> 2) & 1
    const lane = (row & 3) * 4
    for (let g = 0; g < groups; g++) {
      const first = g * group
      const last = Math.min(first + group, columns)
      let k = g * padded
      for (let column = first; column < last; column++, k++) {
        const code = codes[row * columns + column]
        const byte = lane + (k & 3)
        if (bits === 8) out[strip + (k >> 2) * 32 + half * 16 + byte] = code
        else if (bits === 4) out[strip + (k >> 2) * 16 + byte] |= code << (half * 4)
        else out[strip + (k >> 3) * 16 + byte] |= code << ((k & 4) + half * 2)
      }
    }
  }
}

/** [row][group] as [strip][group][8]; rows past the last are zeros. */
export function packScales(values: Float32Array, rows: number, groups: number): Float32Array {
  const out = new Float32Array(Math.ceil(rows / 8) * groups * 8)
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      out[((row >> 3) * groups + g) * 8 + (row & 7)] = values[row * groups + g]
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

/**
 * Which input feature each packed column takes (−1: padding), or nothing where that is the order of
 * the features itself.
 */
export function columnMap(
  columns: number,
  plan: Pick<Plan, 'group' | 'padded' | 'groups'>,
  order: Uint32Array | undefined,
): Int32Array<ArrayBuffer> | undefined {
  const { group, padded, groups } = plan
  const depth = padded * groups
  if (!order && depth === columns) return undefined
  const map = new Int32Array(depth).fill(-1)
  for (let column = 0; column < columns; column++) {
    const g = Math.floor(column / group)
    map[g * padded + (column - g * group)] = order ? order[column] : column
  }
  return map
}

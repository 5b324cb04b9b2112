/** Grids: which values a code can mean. */

import { LowbitError } from '../errors.ts'
import { decodeFloat, type FloatFormat, floatBits } from '../numbers/float.ts'
import { normalFloat } from '../numbers/normal-float.ts'
import type { FloatGrid, Grid, IntegerGrid, LookupGrid, ScalarGrid } from './types.ts'

/** Codes 0 … 2^bits − 1 mean themselves; for asymmetric quantization with a zero point. */
export function unsignedGrid(bits: number): IntegerGrid {
  return { kind: 'integer', bits, levels: 2 ** bits, lowest: 0, step: 1 }
}

/** Codes mean −2^(bits−1) … 2^(bits−1) − 1 (stored with an offset, not as two's complement). */
export function signedGrid(bits: number): IntegerGrid {
  return { kind: 'integer', bits, levels: 2 ** bits, lowest: -(2 ** (bits - 1)), step: 1 }
}

/** {−1, 1} in one bit (XNOR-Net, BiLLM). */
export function binaryGrid(): IntegerGrid {
  return { kind: 'integer', bits: 1, levels: 2, lowest: -1, step: 2 }
}

/** {0, 1} in one bit. */
export function zeroOneGrid(): IntegerGrid {
  return unsignedGrid(1)
}

/** {−1, 0, 1} in two bits (TWN, BitNet). */
export function ternaryGrid(): IntegerGrid {
  return { kind: 'integer', bits: 2, levels: 3, lowest: -1, step: 1 }
}

export function floatGrid(format: FloatFormat): FloatGrid {
  return { kind: 'float', format }
}

/** NF-bits (QLoRA): a table of its own, in f32. */
export function normalFloatGrid(bits: number): LookupGrid {
  return { kind: 'lookup', entries: 2 ** bits, tables: { type: 'f32', values: normalFloat(bits) } }
}

/** Bits of one code. */
export function gridBits(grid: Grid): number {
  if (grid.kind === 'integer') return grid.bits
  if (grid.kind === 'float') return floatBits(grid.format)
  return Math.max(1, Math.ceil(Math.log2(grid.entries)))
}

/** How many codes mean something; codes at and above it are an error. */
export function gridLevels(grid: Grid): number {
  if (grid.kind === 'integer') return grid.levels
  if (grid.kind === 'float') return 2 ** floatBits(grid.format)
  return grid.entries
}

/** The value of each code of a grid with at most one table, in the order of codes; NaN and infinities as they are. */
export function gridValues(grid: ScalarGrid): Float32Array {
  if (grid.kind === 'integer') {
    return Float32Array.from({ length: grid.levels }, (_, code) => grid.lowest + grid.step * code)
  }
  if (grid.kind === 'float') {
    return Float32Array.from({ length: 2 ** floatBits(grid.format) }, (_, code) =>
      decodeFloat(grid.format, code),
    )
  }
  const [table, ...others] = gridTables(grid)
  if (others.length > 0) {
    throw new LowbitError('bad-grid', 'a grid with several tables has no single list of values')
  }
  return table
}

/** The values of each table of a lookup grid, factors of integer tables multiplied in. */
export function gridTables(grid: LookupGrid): Float32Array[] {
  const { entries, tables, tableScale } = grid
  const count = Math.floor(tables.values.length / entries)
  return Array.from({ length: count }, (_, table) => {
    const values = tables.values.subarray(table * entries, (table + 1) * entries)
    if (!tableScale) return values
    return values.map((value) => value * tableScale.values[table])
  })
}

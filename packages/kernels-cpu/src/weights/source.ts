/** Descriptors of right-hand sides, as assembly/source.ts reads them. */

import { PASSING_SOURCE } from '../control.ts'
import type { Memory } from '../memory.ts'

export const KIND = {
  f32: 0,
  f16: 1,
  bf16: 2,
  /** A plain tensor b[n][k]. */
  rows: 3,
  /** A plain tensor b[k][n]. */
  columns: 4,
  integer2: 5,
  integer4: 6,
  integer8: 7,
  table2: 8,
  table4: 9,
  table8: 10,
  /** Vectors of rows, and of columns (assembly/codebook.ts). */
  out: 11,
  in: 12,
  /** Parts over some of the columns each. */
  sum: 13,
} as const

export type Kind = keyof typeof KIND

export interface Source {
  readonly kind: Kind
  readonly data: number
  /** Bytes from strip to strip, or from row to row of a plain tensor. */
  readonly stride: number
  readonly rows: number
  readonly depth: number
  readonly group?: number
  readonly groups?: number
  readonly scales?: number
  readonly offsets?: number
  /** Added to every value where there are no offsets. */
  readonly center?: number
  readonly table?: number
  /** Which table rows and groups have; one for all by default. */
  readonly tables?: Tables
  readonly vector?: Vector
}

/** Blocks of `rows` rows × `groups` groups have a table of `bytes`, `across` of them side by side. */
export interface Tables {
  readonly rows: number
  readonly groups: number
  readonly across: number
  readonly bytes: number
}

export interface Vector {
  readonly length: number
  /** Bytes of a code. */
  readonly wide: 1 | 2
  /** Bytes of a table's entry. */
  readonly pitch: number
}

export const SOURCE_BYTES = 72

export function writeSource(memory: Memory, source: Source, at: number = PASSING_SOURCE): number {
  const groups = source.groups ?? 1
  const { tables = { rows: 2 ** 30, groups, across: 1, bytes: 0 } } = source
  memory.u32.set(
    [
      KIND[source.kind],
      source.data,
      source.stride,
      source.rows,
      source.depth,
      source.group ?? source.depth,
      groups,
      source.scales ?? 0,
      source.offsets ?? 0,
      source.table ?? 0,
    ],
    at / 4,
  )
  const { length = 1, wide = 1, pitch = 4 } = source.vector ?? {}
  memory.u32.set(
    [tables.rows, tables.across, tables.groups, tables.bytes, length, wide, pitch],
    at / 4 + 11,
  )
  memory.f32[at / 4 + 10] = source.center ?? 0
  return at
}

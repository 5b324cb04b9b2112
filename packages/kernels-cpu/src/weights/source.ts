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
}

export const SOURCE_BYTES = 44

export function writeSource(memory: Memory, source: Source, at: number = PASSING_SOURCE): number {
  memory.u32.set(
    [
      KIND[source.kind],
      source.data,
      source.stride,
      source.rows,
      source.depth,
      source.group ?? source.depth,
      source.groups ?? 1,
      source.scales ?? 0,
      source.offsets ?? 0,
      source.table ?? 0,
    ],
    at / 4,
  )
  memory.f32[at / 4 + 10] = source.center ?? 0
  return at
}

/** Codebooks as they are stored. */

import { type Numbers, toNumbers } from '@lowbit/core'

export interface StoredTables {
  readonly tables: Numbers
  /** For integers: one factor for each table. */
  readonly tableScale?: Numbers
  readonly values: Float32Array
}

/** Rounds `count` tables to a type; integers are symmetric with a factor for each table (section 4.3). */
export function storeTables(
  found: Float32Array,
  count: number,
  type: 'i8' | 'f16' | 'f32',
): StoredTables {
  if (type !== 'i8') {
    const tables = toNumbers(type, found)
    return { tables, values: tables.values }
  }
  const size = found.length / count
  const factors = Array.from({ length: count }, (_, i) => {
    const part = found.subarray(i * size, (i + 1) * size)
    return part.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / 127
  })
  const tableScale = toNumbers('f16', factors)
  const factor = (i: number): number => tableScale.values[Math.floor(i / size)] || 2 ** -24
  tableScale.values.forEach((_, i) => {
    tableScale.values[i] = factor(i * size)
  })
  const tables = toNumbers(
    'i8',
    found.map((x, i) => x / factor(i)),
  )
  return { tables, tableScale, values: tables.values.map((x, i) => x * factor(i)) }
}

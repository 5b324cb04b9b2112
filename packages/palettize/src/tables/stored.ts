/** Tables as they are stored, and the values that they then mean. */

import { type LookupGrid, type Numbers, toNumbers } from '@lowbit/core'

export interface StoredTables {
  readonly grid: LookupGrid
  /** u8: what is subtracted from every value of a table, one for each. */
  readonly zeros?: Numbers
  /** The same in f32 with zeros subtracted: what weights are rounded to. */
  readonly meaning: LookupGrid & { readonly blocks: TableBlocks }
}

export interface TableBlocks {
  readonly rows: number
  readonly columns: number
}

/**
 * Rounds tables of `entries` values each to a type. `i8` is symmetric: the largest magnitude is 127. `u8` spans
 * from the least value to the largest, so it carries a zero; both have an f32 factor a table.
 */
export function storeTables(
  tables: Float32Array,
  entries: number,
  type: 'f32' | 'f16' | 'i8' | 'u8',
  blocks: TableBlocks,
): StoredTables {
  const shape = { kind: 'lookup', entries, blocks } as const
  const meaning = (values: Float32Array) => ({ ...shape, tables: { type: 'f32', values } }) as const
  if (type === 'f32' || type === 'f16') {
    const numbers = toNumbers(type, tables)
    return { grid: { ...shape, tables: numbers }, meaning: meaning(numbers.values) }
  }
  const count = tables.length / entries
  const factors = new Float32Array(count)
  const zeros = new Float32Array(count)
  const scaled = new Float32Array(tables.length)
  const values = new Float32Array(tables.length)
  const top = type === 'i8' ? 127 : 255
  for (let table = 0; table < count; table++) {
    const part = tables.subarray(table * entries, (table + 1) * entries)
    const [least, most] = part.reduce(
      ([a, b], x) => [Math.min(a, x), Math.max(b, x)],
      [part[0], part[0]],
    )
    if (type === 'u8') zeros[table] = -least
    const span = type === 'i8' ? Math.max(most, -least) : most - least
    factors[table] = span / top
    for (const [i, x] of part.entries()) {
      const step = factors[table] > 0 ? Math.round((x + zeros[table]) / factors[table]) : 0
      scaled[table * entries + i] = step
    }
  }
  const numbers = toNumbers(type, scaled)
  for (let i = 0; i < values.length; i++) {
    const table = Math.floor(i / entries)
    values[i] = numbers.values[i] * factors[table] - zeros[table]
  }
  return {
    grid: { ...shape, tables: numbers, tableScale: { type: 'f32', values: factors } },
    ...(type === 'u8' && { zeros: { type: 'f32', values: zeros } }),
    meaning: meaning(values),
  }
}

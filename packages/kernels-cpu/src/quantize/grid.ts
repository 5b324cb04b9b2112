/** Grids as assembly/grid.ts reads them. */

import {
  blockCount,
  type FloatGrid,
  gridTables,
  gridValues,
  type IntegerGrid,
  LowbitError,
  type ScalarGrid,
} from '@lowbit/core'
import type { Device } from '../device.ts'

const WHOLE = 0
const STEPPED = 1
const TABLE = 2

/** A table sorted for searching: the nearest entry's rank is the number of thresholds below. */
export interface SortedTable {
  readonly values: Float32Array
  readonly codes: Uint8Array
  readonly thresholds: Float32Array
}

export function sortTable(table: Float32Array): SortedTable {
  const codes: number[] = []
  const seen = new Set<number>()
  for (let code = 0; code < table.length; code++) {
    // −0 and repeated entries: the first code stands for all.
    const value = table[code] + 0
    if (!Number.isFinite(value) || seen.has(value)) continue
    seen.add(value)
    codes.push(code)
  }
  codes.sort((a, b) => table[a] - table[b])
  const values = Float32Array.from(codes, (code) => table[code] + 0)
  const thresholds = Float32Array.from({ length: codes.length - 1 }, (_, i) => {
    // Exact in f64. The rank counts thresholds that v exceeds, so a tie goes down; where the upper
    // code is the even one the threshold moves below the middle.
    const middle = (values[i] + values[i + 1]) / 2
    const near = Math.fround(middle)
    if (near !== middle) return near < middle ? near : before(near)
    return codes[i + 1] % 2 === 0 && codes[i] % 2 !== 0 ? before(near) : near
  })
  return { values, codes: Uint8Array.from(codes), thresholds }
}

/** The next smaller f32. */
function before(x: number): number {
  const view = new DataView(new ArrayBuffer(4))
  if (x === 0) return -(2 ** -149)
  view.setFloat32(0, x)
  view.setInt32(0, view.getInt32(0) + (x > 0 ? -1 : 1))
  return view.getFloat32(0)
}

/** A grid in memory, and which of its tables a weight has: one for all where it is not a lookup grid. */
export interface GridMemory {
  readonly at: number
  readonly tableRows: number
  readonly tableColumns: number
  readonly tablesAcross: number
}

/** Bytes of a descriptor. */
const SIZE = 36
/** Bytes that are read where a table's codes are, however few. */
const CODES_READ = 16

/**
 * Puts grids where the kernels find them. Integer and float grids are made once; the tables of lookup grids
 * are written for every call, since palettes are as many as matrices.
 */
export function gridMemory(device: Device) {
  const { memory, room } = device
  const known = new Map<string, number>()

  function writeInteger({ lowest, step, levels }: IntegerGrid, at: number): void {
    const whole = step === 1 && Number.isInteger(lowest)
    const largest = Math.max(Math.abs(lowest), Math.abs(lowest + step * (levels - 1)))
    memory.i32.set([whole ? WHOLE : STEPPED, 0, 0, levels, 0, 0, 0, 0], at / 4)
    memory.f32.set([lowest, step], at / 4 + 1)
    memory.f32[at / 4 + 8] = largest
  }

  /** The descriptors of tables at `at`, and behind them what they point to. */
  function writeTables(tables: readonly SortedTable[], at: number): void {
    let next = at + tables.length * SIZE
    for (const [i, { values, codes, thresholds }] of tables.entries()) {
      const [tableAt, thresholdsAt] = [next, next + 4 * values.length]
      const codesAt = thresholdsAt + 4 * thresholds.length
      next = Math.ceil((codesAt + codes.length) / 4) * 4
      memory.f32.set(values, tableAt / 4)
      memory.f32.set(thresholds, thresholdsAt / 4)
      memory.u8.set(codes, codesAt)
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const descriptor = (at + i * SIZE) / 4
      memory.u32.set(
        [TABLE, 0, 0, values.length, thresholdsAt, tableAt, codesAt, values.length],
        descriptor,
      )
      memory.f32[descriptor + 8] = largest
    }
  }

  function sorted(values: Float32Array): SortedTable {
    const table = sortTable(values)
    if (table.values.length === 0 || table.values.length > 256) {
      const entries = table.values.length
      throw new LowbitError('bad-grid', `a table of ${entries} entries cannot be rounded to`)
    }
    return table
  }

  const tableBytes = (tables: readonly SortedTable[]): number =>
    tables.reduce((sum, { values }) => sum + SIZE + 9 * values.length + 4, CODES_READ)

  function single(grid: IntegerGrid | FloatGrid): number {
    const name = JSON.stringify(grid)
    let at = known.get(name)
    if (at !== undefined) return at
    if (grid.kind === 'integer') {
      at = device.keep(SIZE)
      writeInteger(grid, at)
    } else {
      const tables = [sorted(gridValues(grid))]
      at = device.keep(tableBytes(tables))
      writeTables(tables, at)
    }
    known.set(name, at)
    return at
  }

  /** The grid for a weight of so many rows and columns. */
  return (grid: ScalarGrid, rows: number, columns: number): GridMemory => {
    if (grid.kind !== 'lookup') {
      return { at: single(grid), tableRows: rows, tableColumns: columns, tablesAcross: 1 }
    }
    const blocks = grid.blocks ?? { rows, columns }
    if ('elements' in blocks) {
      throw new LowbitError('bad-grid', 'tables for runs of elements cannot be rounded to')
    }
    const tables = gridTables(grid).map(sorted)
    const expected = blockCount(blocks, rows, columns)
    if (tables.length !== expected) {
      throw new LowbitError('bad-grid', `${tables.length} tables for ${expected} blocks`)
    }
    const at = room('lookup tables', tableBytes(tables))
    writeTables(tables, at)
    const tablesAcross = Math.ceil(columns / blocks.columns)
    return { at, tableRows: blocks.rows, tableColumns: blocks.columns, tablesAcross }
  }
}

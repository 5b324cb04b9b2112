/** Scalar grids as words for a device that rounds: ascending values and their codes, and the tables of each column. */

import { LowbitError } from '../errors.ts'
import { blockCount } from '../matrix/blocks.ts'
import { gridTables, gridValues } from '../matrix/grid.ts'
import type { ScalarGrid } from '../matrix/types.ts'
import type { FeedbackOptions, Rounding } from '../plugins/kernels.ts'

export interface GridWords {
  /** Finite values ascending, then their codes, table after table. */
  readonly words: Uint32Array
  readonly params: Readonly<Record<string, number>>
  /** The largest finite magnitude. */
  readonly largest: number
  /** Codes are below this. */
  readonly levels: number
}

/** What a kernel needs to know of a grid to round a weight of rows × columns to it. */
export function gridWords(grid: ScalarGrid, rows: number, columns: number): GridWords {
  if (grid.kind === 'integer') {
    const { lowest, step, levels } = grid
    checkLevels(levels)
    const ends = [lowest, lowest + step * (levels - 1)].map(Math.abs)
    return {
      words: Uint32Array.of(0),
      params: { ...ONE_TABLE, integer: 1, lowest, step, levels },
      ...{ largest: Math.max(...ends), levels },
    }
  }
  const several = grid.kind === 'lookup' ? grid.blocks : undefined
  const blocks = several ?? { rows, columns }
  if ('elements' in blocks) {
    throw new LowbitError('bad-grid', 'tables for runs of elements cannot be rounded to')
  }
  const tables = grid.kind === 'lookup' && several ? gridTables(grid) : [gridValues(grid)]
  if (tables.length !== blockCount(blocks, rows, columns)) {
    throw new LowbitError('bad-grid', `${tables.length} tables do not fit ${rows} × ${columns}`)
  }
  const sorted = tables.map(ascending)
  const [{ codes }] = sorted
  const entries = codes.length
  checkLevels(entries)
  const words = new Uint32Array(sorted.length * entries * 2)
  const floats = new Float32Array(words.buffer)
  for (const [i, table] of sorted.entries()) {
    floats.set(table.values, i * entries * 2)
    words.set(table.codes, i * entries * 2 + entries)
  }
  const largest = sorted.reduce(
    (most, { values }) => values.reduce((sofar, x) => Math.max(sofar, Math.abs(x)), most),
    0,
  )
  return {
    words,
    params: {
      ...{ ...ONE_TABLE, entries, even: grid.kind === 'float' ? 1 : 0 },
      ...{ grid_rows: blocks.rows, grid_columns: blocks.columns },
      grid_across: Math.ceil(columns / blocks.columns),
    },
    ...{ largest, levels: tables[0].length },
  }
}

const ONE_TABLE = {
  ...{ integer: 0, lowest: 0, step: 0, levels: 1, even: 0, entries: 1 },
  ...{ grid_rows: 1, grid_columns: 1, grid_across: 1 },
}

function checkLevels(levels: number): void {
  if (levels > 256) {
    throw new LowbitError('bad-grid', `codes are bytes, a grid of ${levels} is too large`)
  }
}

/** Finite values ascending; of equal ones the smaller code comes first. */
function ascending(values: Float32Array): { values: number[]; codes: number[] } {
  const codes = Array.from(values.keys()).filter((code) => Number.isFinite(values[code]))
  codes.sort((a, b) => values[a] - values[b] || a - b)
  return { values: codes.map((code) => values[code]), codes }
}

/** For each column its block of scales, and then its block of tables. */
export function columnBlocks(
  { grid, blockColumns, blockOf, tableOf }: Rounding & Partial<FeedbackOptions>,
  columns: number,
  across: number,
): Uint32Array {
  const wide = grid.kind === 'lookup' && grid.blocks && 'columns' in grid.blocks
  const tableColumns =
    wide && grid.blocks && 'columns' in grid.blocks ? grid.blocks.columns : columns
  const out = new Uint32Array(2 * columns)
  for (const given of [blockOf, tableOf]) {
    if (given && given.length !== columns) {
      throw new LowbitError('bad-shape', `${given.length} blocks for ${columns} columns`)
    }
  }
  for (let column = 0; column < columns; column++) {
    const block = blockOf ? blockOf[column] : Math.floor(column / blockColumns)
    const table = tableOf ? tableOf[column] : Math.floor(column / tableColumns)
    out[column] = block
    out[columns + column] = table
    if (table >= Math.ceil(columns / tableColumns)) {
      throw new LowbitError('bad-shape', `column ${column} has no table ${table}`)
    }
    if (blockOf && block >= across) {
      throw new LowbitError('bad-shape', `column ${column} needs block ${block} of ${across}`)
    }
  }
  return out
}

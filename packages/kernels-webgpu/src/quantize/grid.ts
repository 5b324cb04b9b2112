/** Scalar grids in WGSL: the nearest value to x + zero, and its code. */

import { blockCount, gridTables, gridValues, LowbitError, type ScalarGrid } from '@lowbit/core'
import type { Element } from '../gpu/shader.ts'

export interface GridTables {
  /** Finite values ascending, then their codes, table after table. */
  readonly words: Uint32Array
  readonly params: Readonly<Record<string, number>>
  /** The largest finite magnitude. */
  readonly largest: number
  /** Codes are below this. */
  readonly levels: number
}

export const GRID_PARAMS: Readonly<Record<string, Element>> = {
  ...{ integer: 'u32', lowest: 'f32', step: 'f32', levels: 'u32', even: 'u32' },
  ...{ entries: 'u32', grid_rows: 'u32', grid_columns: 'u32', grid_across: 'u32' },
}

/**
 * `nearest(x, zero, row, column)`: the code in `.code` and its value in `.value`. Integers of step 1 are rounded half
 * to even before zero and offset are added. Between two values of a float grid the even code wins, of a table the
 * smaller value.
 */
export const GRID_CODE = `
struct Rounded { code: u32, value: f32 }
fn nearest(x: f32, zero: f32, row: u32, column: u32) -> Rounded {
  if (p.integer == 1u) {
    let most = f32(p.levels - 1u);
    var index = 0.0;
    // Far out x would lose its fraction, and beyond 2^31 its way to an integer.
    if (p.step == 1.0) { index = round(clamp(x, -1.0e6, 1.0e6)) + zero - p.lowest; }
    else { index = round((clamp(x, -1.0e6, 1.0e6) + zero - p.lowest) / p.step); }
    index = clamp(index, 0.0, most);
    return Rounded(u32(index), p.lowest + p.step * index);
  }
  let table = ((row / p.grid_rows) * p.grid_across + column / p.grid_columns) * p.entries * 2u + p.grid_at;
  let target_value = x + zero;
  var low = 0u;
  var high = p.entries - 1u;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (bitcast<f32>(grid[table + middle]) <= target_value) { low = middle; } else { high = middle; }
  }
  let a = bitcast<f32>(grid[table + low]);
  let b = bitcast<f32>(grid[table + high]);
  let left = abs(a - target_value);
  let right = abs(b - target_value);
  let code_low = grid[table + p.entries + low];
  var upper = right < left;
  if (right == left && a != b) { upper = p.even == 1u && (code_low & 1u) == 1u; }
  // Far away both are equally near.
  if (target_value >= b) { upper = true; }
  if (target_value <= a) { upper = false; }
  if (upper && a != b) { return Rounded(grid[table + p.entries + high], b); }
  return Rounded(code_low, a);
}`

/** What a shader with GRID_CODE needs to know of a grid for a weight of rows × columns. */
export function gridTablesOf(grid: ScalarGrid, rows: number, columns: number): GridTables {
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

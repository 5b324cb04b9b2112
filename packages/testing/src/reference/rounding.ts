/** The code nearest to a number, for every scalar grid. */

import {
  blockCount,
  blockIndexer,
  encodeFloat,
  gridTables,
  gridValues,
  LowbitError,
  type ScalarGrid,
} from '@lowbit/core'

export interface GridRounder {
  /** The code whose value is nearest to x + zero. */
  nearest(x: number, zero: number): number
  /** What a code means. */
  readonly values: Float32Array
  /** The largest finite magnitude of the grid. */
  readonly largest: number
}

/** Half to even, as IEEE 754 and torch.round have it. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x)
  const rest = x - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor
}

const clamp = (x: number, low: number, high: number): number => Math.min(high, Math.max(low, x))

export function gridRounder(grid: ScalarGrid): GridRounder {
  return tableRounder(grid, gridValues(grid))
}

/** The rounder of each weight of a matrix: that of its table where a lookup grid has several. */
export function gridRounders(
  grid: ScalarGrid,
  rows: number,
  columns: number,
  tableOf?: Uint32Array,
): (row: number, column: number) => GridRounder {
  if (grid.kind !== 'lookup' || !grid.blocks) {
    const rounder = gridRounder(grid)
    return () => rounder
  }
  const { blocks } = grid
  if ('elements' in blocks) {
    throw new LowbitError('bad-grid', 'tables for runs of elements cannot be rounded to')
  }
  const rounders = gridTables(grid).map((values) => tableRounder(grid, values))
  if (rounders.length !== blockCount(blocks, rows, columns)) {
    throw new LowbitError('bad-grid', `${rounders.length} tables do not fit ${rows} × ${columns}`)
  }
  const across = Math.ceil(columns / blocks.columns)
  const wrong = tableOf && (tableOf.length !== columns || tableOf.some((block) => block >= across))
  if (wrong) throw new LowbitError('bad-shape', `tableOf does not name ${across} blocks`)
  const block = blockIndexer(blocks, columns)
  return (row, column) => rounders[block(row, tableOf ? tableOf[column] * blocks.columns : column)]
}

function tableRounder(grid: ScalarGrid, values: Float32Array): GridRounder {
  if (values.length > 256) {
    throw new LowbitError('bad-grid', `codes are bytes, a grid of ${values.length} is too large`)
  }
  const largest = values.reduce((most, x) => {
    return Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most
  }, 0)
  return { values, largest, nearest: nearestCode(grid, values) }
}

function nearestCode(grid: ScalarGrid, values: Float32Array): GridRounder['nearest'] {
  if (grid.kind === 'integer') {
    const { lowest, step, levels } = grid
    // With a step of 1 the number is rounded before zero and offset are added, so that ties go to the
    // even number and not to the even code.
    return (x, zero) =>
      step === 1
        ? clamp(roundHalfEven(x) + zero - lowest, 0, levels - 1)
        : clamp(roundHalfEven((x + zero - lowest) / step), 0, levels - 1)
  }
  if (grid.kind === 'float') return (x, zero) => encodeFloat(grid.format, x + zero)
  const [low, high] = [Math.min(...values), Math.max(...values)]
  return (far, zero) => {
    // Inside the table's range, or far away all entries would seem equally near.
    const x = clamp(far, low - zero, high - zero)
    let best = 0
    for (let code = 1; code < values.length; code++) {
      const nearer = Math.abs(values[code] - x - zero) - Math.abs(values[best] - x - zero)
      if (nearer < 0 || (nearer === 0 && values[code] < values[best])) best = code
    }
    return best
  }
}

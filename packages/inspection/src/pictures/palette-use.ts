/** What the codes of a matrix mean, and how often each of them is used. */

import {
  blockIndexer,
  gridLevels,
  gridTables,
  gridValues,
  type Matrix,
  type QuantizedMatrix,
  type ScalarGrid,
  type Stage,
  scaleValues,
  toFloat32,
  unpackCodes,
} from '@lowbit/core'

export interface UsedTables {
  /** Values of one entry. */
  readonly length: number
  readonly entries: number
  readonly tables: readonly Float32Array[]
  /** [table][entry]: how many codes of the stage are it. */
  readonly uses: readonly Float64Array[]
}

/** The first and the last stored column of a stage, and how many lie between. */
export function stageColumns(stage: Stage, { columns }: QuantizedMatrix) {
  const [from, to] = stage.columns ?? [0, columns]
  return { from, to, columns: to - from }
}

/** Tables of a stage in the grid's own units, scales left out. */
export function usedTables(stage: Stage, matrix: QuantizedMatrix): UsedTables {
  const { grid } = stage
  const { columns } = stageColumns(stage, matrix)
  const tables = tablesOf(stage)
  const entries = gridLevels(grid)
  const uses = tables.map(() => new Float64Array(entries))
  const { length, along } = stage.vector
  const codes = unpackCodes(stage.codes)
  const across = along === 'in' ? Math.ceil(columns / length) : columns
  const [down, right] = along === 'in' ? [1, length] : [length, 1]
  const table = tables.length > 1 ? tableIndexer(stage, columns) : () => 0
  for (let i = 0; i < codes.length; i++) {
    uses[table(Math.floor(i / across) * down, (i % across) * right)][codes[i]]++
  }
  return { length: grid.kind === 'codebook' ? grid.length : 1, entries, tables, uses }
}

function tablesOf({ grid }: Stage): readonly Float32Array[] {
  if (grid.kind === 'integer' || grid.kind === 'float') return [gridValues(grid)]
  if (grid.kind === 'lookup') return gridTables(grid)
  // A codebook is a lookup grid of all its numbers.
  return gridTables({ ...grid, kind: 'lookup', entries: grid.entries * grid.length })
}

function tableIndexer({ grid }: Stage, columns: number) {
  const blocks = 'blocks' in grid ? grid.blocks : undefined
  return blocks ? blockIndexer(blocks, columns) : () => 0
}

/**
 * Dense weights [rows, columns], row-major, in the units of a stage's grid: what its codes round, were it the only
 * stage. In the order of features; NaN for columns that the stage does not cover, and where a scale is 0.
 */
export function inGridUnits(
  weights: Float32Array,
  stage: Stage & { readonly grid: ScalarGrid },
  matrix: QuantizedMatrix,
): Float32Array {
  const { rows, columns, order, rowScale, columnScale, columnBias, sparse } = matrix
  const { from, to, columns: width } = stageColumns(stage, matrix)
  const left = weights.slice()
  if (sparse) {
    for (let i = 0; i < sparse.rows.length; i++) {
      left[sparse.rows[i] * columns + sparse.columns[i]] -= sparse.values.values[i]
    }
  }
  const reader = (scale: Stage['scale']) => {
    if (!scale) return undefined
    const values = scaleValues(scale, rows, width)
    const block = blockIndexer(scale.blocks, width)
    return (row: number, column: number): number => values[block(row, column)]
  }
  const [scale, zero, bias] = [reader(stage.scale), reader(stage.zero), reader(stage.bias)]
  const out = new Float32Array(weights.length).fill(Number.NaN)
  for (let row = 0; row < rows; row++) {
    for (let stored = from; stored < to; stored++) {
      const feature = order ? order[stored] : stored
      const column = stored - from
      let x = left[row * columns + feature]
      if (columnBias) x -= columnBias.values[feature]
      if (columnScale) x /= columnScale.values[feature]
      if (rowScale) x /= rowScale.values[row]
      if (bias) x -= bias(row, column)
      if (scale) x /= scale(row, column)
      if (zero) x += zero(row, column)
      out[row * columns + feature] = x
    }
  }
  return out
}

export function denseValues({ type, values }: Exclude<Matrix, QuantizedMatrix>): Float32Array {
  return type === 'f32' ? (values as Float32Array) : toFloat32(type, values as Uint16Array)
}

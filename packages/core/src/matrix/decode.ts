/**
 * The meaning of a QuantizedMatrix, written for reading. Kernels and formats are right when they agree
 * with this; nothing here is meant to be fast.
 */

import { unpackCodes } from '../bits/stream.ts'
import { LowbitError } from '../errors.ts'
import { blockCount, blockIndexer } from './blocks.ts'
import { gridLevels, gridValues } from './grid.ts'
import { rotateColumns, rotateRows } from './rotation.ts'
import type { Grid, Numbers, QuantizedMatrix, QuantizedNumbers, Scale, Stage } from './types.ts'

/**
 * The dense matrix, rows × columns, row-major:
 * R_outᵀ · (rowScale · (Σ stages, columns put back in order) · columnScale + columnBias + sparse) · R_in.
 */
export function decode(matrix: QuantizedMatrix): Float32Array<ArrayBuffer> {
  const { rows, columns, order } = matrix
  const out = new Float32Array(rows * columns)
  for (const stage of matrix.stages) {
    const [from, to] = stage.columns ?? [0, columns]
    const values = decodeStage(stage, rows, to - from)
    for (let row = 0; row < rows; row++) {
      for (let stored = from; stored < to; stored++) {
        const feature = order ? order[stored] : stored
        out[row * columns + feature] += values[row * (to - from) + stored - from]
      }
    }
  }
  const { rowScale, columnScale, columnBias, sparse, rotation } = matrix
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column
      if (rowScale) out[at] *= rowScale.values[row]
      if (columnScale) out[at] *= columnScale.values[column]
      if (columnBias) out[at] += columnBias.values[column]
    }
  }
  if (sparse) {
    for (let i = 0; i < sparse.values.values.length; i++) {
      out[sparse.rows[i] * columns + sparse.columns[i]] += sparse.values.values[i]
    }
  }
  if (rotation?.input) rotateColumns(out, rows, columns, rotation.input)
  if (rotation?.output) rotateRows(out, rows, columns, rotation.output)
  return out
}

/** One stage over its own columns: rows × columns values `scale · (grid(code) − zero) + bias`. */
export function decodeStage(stage: Stage, rows: number, columns: number): Float32Array {
  const { length, along } = stage.vector
  const codes = unpackCodes(stage.codes)
  const codeColumns = along === 'in' ? Math.ceil(columns / length) : columns
  const value = gridReader(stage.grid, rows, columns)
  const scale = stage.scale && scaleReader(stage.scale, rows, columns)
  const zero = stage.zero && scaleReader(stage.zero, rows, columns)
  const bias = stage.bias && scaleReader(stage.bias, rows, columns)
  const out = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const codeRow = along === 'in' ? row : Math.floor(row / length)
      const codeColumn = along === 'in' ? Math.floor(column / length) : column
      const element = along === 'in' ? column % length : row % length
      const code = codes[codeRow * codeColumns + codeColumn]
      let x = value(code, element, row, column)
      if (zero) x -= zero(row, column)
      if (scale) x *= scale(row, column)
      if (bias) x += bias(row, column)
      out[row * columns + column] = x
    }
  }
  return out
}

/** The value of a scale for each of its blocks, nested scales multiplied out. */
export function scaleValues(scale: Scale, rows: number, columns: number): Float32Array {
  const values = isNested(scale.values) ? decodeNumbers(scale.values) : scale.values.values
  const expected = blockCount(scale.blocks, rows, columns)
  if (values.length !== expected) {
    throw new LowbitError('bad-scale', `a scale has ${values.length} values for ${expected} blocks`)
  }
  return values
}

export function isNested(values: Numbers | QuantizedNumbers): values is QuantizedNumbers {
  return 'codes' in values
}

/** `scale · grid(code) + offset`, row-major. */
export function decodeNumbers(numbers: QuantizedNumbers): Float32Array {
  const { rows, columns } = numbers
  const values = gridValues(numbers.grid)
  const scale = scaleReader(numbers.scale, rows, columns)
  const offset = numbers.offset?.values[0] ?? 0
  const codes = unpackCodes(numbers.codes)
  const out = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column
      out[at] = values[codes[at]] * scale(row, column) + offset
    }
  }
  return out
}

function scaleReader(scale: Scale, rows: number, columns: number) {
  const values = scaleValues(scale, rows, columns)
  const block = blockIndexer(scale.blocks, columns)
  return (row: number, column: number): number => values[block(row, column)]
}

type GridReader = (code: number, element: number, row: number, column: number) => number

function gridReader(grid: Grid, rows: number, columns: number): GridReader {
  const levels = gridLevels(grid)
  const check = (code: number): void => {
    if (code >= levels) {
      throw new LowbitError('bad-code', `code ${code} means nothing in a grid of ${levels} values`)
    }
  }
  if (grid.kind === 'integer' || grid.kind === 'float') {
    const values = gridValues(grid)
    return (code) => {
      check(code)
      return values[code]
    }
  }
  const blocks = grid.blocks ?? { rows, columns }
  const block = blockIndexer(blocks, columns)
  const length = grid.kind === 'codebook' ? grid.length : 1
  const tableScale = grid.tableScale?.values
  const tables = grid.tables.values
  return (code, element, row, column) => {
    check(code)
    const table = block(row, column)
    const value = tables[(table * grid.entries + code) * length + element]
    return tableScale ? value * tableScale[table] : value
  }
}

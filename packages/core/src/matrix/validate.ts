/** Checks a QuantizedMatrix that comes from outside before anyone allocates or decodes by it. */

import { packedBytes, unpackCodes } from '../bits/stream.ts'
import { LowbitError } from '../errors.ts'
import { blockCount } from './blocks.ts'
import { isNested } from './decode.ts'
import { gridBits, gridLevels } from './grid.ts'
import type { Grid, QuantizedMatrix, Scale, Stage } from './types.ts'

/** Throws a LowbitError naming `tensor` and what does not fit. */
export function validateMatrix(matrix: QuantizedMatrix, tensor: string): void {
  const fail = (what: string): never => {
    throw new LowbitError('bad-tensor', what, { tensor })
  }
  const { rows, columns } = matrix
  if (!Number.isSafeInteger(rows) || !Number.isSafeInteger(columns) || rows < 1 || columns < 1) {
    fail(`a matrix of ${rows} × ${columns} is impossible`)
  }
  if (!Number.isSafeInteger(rows * columns)) fail(`${rows} × ${columns} weights are too many`)
  if (matrix.stages.length === 0 && !matrix.sparse) fail('a matrix needs at least one stage')
  for (const stage of matrix.stages) validateStage(stage, rows, columns, fail)
  const { order, rowScale, columnScale, columnBias, sparse, rotation } = matrix
  if (rowScale && rowScale.values.length !== rows) {
    fail(`rowScale has ${rowScale.values.length} entries for ${rows} rows`)
  }
  if (order) {
    if (order.length !== columns) fail(`order has ${order.length} entries for ${columns} columns`)
    const seen = new Uint8Array(columns)
    for (const feature of order) {
      if (feature >= columns || seen[feature]) fail('order is not a permutation of the columns')
      seen[feature] = 1
    }
  }
  for (const [name, numbers] of Object.entries({ columnScale, columnBias })) {
    if (numbers && numbers.values.length !== columns) {
      fail(`${name} has ${numbers.values.length} entries for ${columns} columns`)
    }
  }
  if (sparse) {
    const count = sparse.values.values.length
    if (sparse.rows.length !== count || sparse.columns.length !== count) {
      fail('sparse rows, columns and values differ in number')
    }
    if (sparse.rows.some((r) => r >= rows) || sparse.columns.some((c) => c >= columns)) {
      fail('a sparse entry lies outside the matrix')
    }
  }
  for (const [side, size] of [
    ['input', columns],
    ['output', rows],
  ] as const) {
    const part = rotation?.[side]
    if (!part) continue
    if (!Number.isInteger(Math.log2(part.block)) || size % part.block !== 0) {
      fail(`a rotation in blocks of ${part.block} does not fit ${size} ${side} features`)
    }
    if (part.signs.length < Math.ceil(size / 8)) fail(`the ${side} rotation lacks signs`)
  }
}

function validateStage(
  stage: Stage,
  rows: number,
  columns: number,
  fail: (what: string) => never,
): void {
  const [from, to] = stage.columns ?? [0, columns]
  if (
    !(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from < to && to <= columns)
  ) {
    fail(`a stage covers the columns ${from} to ${to} of ${columns}`)
  }
  const { length, along } = stage.vector
  if (!Number.isInteger(length) || length < 1) fail(`vectors of ${length} weights are impossible`)
  const width = to - from
  const expected =
    along === 'in' ? rows * Math.ceil(width / length) : Math.ceil(rows / length) * width
  const { codes, grid } = stage
  if (codes.count !== expected) fail(`a stage has ${codes.count} codes and needs ${expected}`)
  if (codes.bits < 1 || codes.bits > 16) fail(`codes of ${codes.bits} bits are impossible`)
  if (codes.data.length < packedBytes(codes.count, codes.bits)) {
    fail(`${codes.count} codes of ${codes.bits} bits are cut off`)
  }
  validateGrid(grid, codes.bits, rows, width, fail)
  if ((grid.kind === 'codebook' ? grid.length : 1) !== length) {
    fail(`vectors of ${length} weights need a codebook of that length`)
  }
  const levels = gridLevels(grid)
  if (levels < 2 ** codes.bits && unpackCodes(codes).some((code) => code >= levels)) {
    fail(`a code is outside the grid's ${levels} values`)
  }
  for (const scale of [stage.scale, stage.zero, stage.bias]) {
    if (scale) validateScale(scale, rows, width, fail)
  }
}

function validateGrid(
  grid: Grid,
  bits: number,
  rows: number,
  columns: number,
  fail: (what: string) => never,
): void {
  if (gridBits(grid) > bits)
    fail(`a grid of ${gridLevels(grid)} values needs more than ${bits} bits`)
  if (grid.kind === 'lookup' || grid.kind === 'codebook') {
    const tables = grid.blocks ? blockCount(grid.blocks, rows, columns) : 1
    const length = grid.kind === 'codebook' ? grid.length : 1
    const expected = tables * grid.entries * length
    if (grid.tables.values.length !== expected) {
      fail(`the tables hold ${grid.tables.values.length} numbers and need ${expected}`)
    }
    if (grid.tableScale && grid.tableScale.values.length !== tables) {
      fail(`${tables} tables have ${grid.tableScale.values.length} scales`)
    }
  }
}

function validateScale(
  scale: Scale,
  rows: number,
  columns: number,
  fail: (what: string) => never,
): void {
  const sizes = Object.values(scale.blocks)
  if (sizes.some((size) => !Number.isInteger(size) || size < 1)) fail('a scale has empty blocks')
  const expected = blockCount(scale.blocks, rows, columns)
  const { values } = scale
  if (!isNested(values)) {
    if (values.values.length !== expected) {
      fail(`a scale has ${values.values.length} values for ${expected} blocks`)
    }
    return
  }
  if (values.rows * values.columns !== expected || values.codes.count !== expected) {
    fail(`a nested scale has ${values.codes.count} codes for ${expected} blocks`)
  }
  if (values.codes.data.length < packedBytes(expected, values.codes.bits)) {
    fail('the codes of a nested scale are cut off')
  }
  validateGrid(values.grid, values.codes.bits, values.rows, values.columns, fail)
  validateScale(values.scale, values.rows, values.columns, fail)
}

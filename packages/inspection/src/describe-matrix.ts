/** A QuantizedMatrix in a few words: "int3, groups of 128, f16 scales, zero points". */

import {
  type Blocks,
  type Grid,
  gridBits,
  isNested,
  isQuantized,
  type Matrix,
  type QuantizedMatrix,
  type Scale,
  type Stage,
} from '@lowbit/core'

export function describeMatrix(matrix: Matrix): string {
  if (!isQuantized(matrix)) return matrix.type
  const parts = matrix.stages.map((stage) => describeStage(stage, matrix))
  return [
    parts.join(' + '),
    ...(matrix.order ? ['permuted columns'] : []),
    ...(matrix.rowScale ? ['scaled rows'] : []),
    ...(matrix.columnScale ? ['scaled columns'] : []),
    ...(matrix.sparse ? [`${matrix.sparse.rows.length} sparse weights`] : []),
    ...(matrix.rotation ? ['rotated'] : []),
  ].join(', ')
}

function describeStage(stage: Stage, matrix: QuantizedMatrix): string {
  const { vector, grid, scale, zero } = stage
  return [
    gridWords(grid),
    ...(vector.length > 1 ? [`vectors of ${vector.length}`] : []),
    ...(scale ? [blockWords(scale.blocks, matrix), scaleWords(scale)] : []),
    ...(zero ? ['zero points'] : []),
  ].join(', ')
}

function gridWords(grid: Grid): string {
  switch (grid.kind) {
    case 'integer':
      if (grid.levels === 2) return 'binary'
      return grid.levels === 3 ? 'ternary' : `int${grid.bits}`
    case 'float':
      return grid.format.name.replace('_', ' ')
    case 'lookup':
      return `${grid.entries} values`
    case 'codebook':
      return `codebook of ${grid.entries} × ${grid.length}`
  }
}

function blockWords(blocks: Blocks, { rows, columns }: QuantizedMatrix): string {
  if ('elements' in blocks) return `blocks of ${blocks.elements}`
  if (blocks.rows >= rows && blocks.columns >= columns) return 'one scale'
  if (blocks.rows === 1) {
    return blocks.columns >= columns ? 'per channel' : `groups of ${blocks.columns}`
  }
  return `blocks of ${blocks.rows} × ${blocks.columns}`
}

function scaleWords({ values }: Scale): string {
  if (!isNested(values)) return `${values.type} scales`
  return `${gridWords(values.grid)} scales of scales`
}

/** Bits of one code, for tables. */
export function codeBits(matrix: QuantizedMatrix): number {
  return matrix.stages.reduce((sum, { grid }) => sum + gridBits(grid), 0)
}

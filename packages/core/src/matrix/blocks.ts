/** Which block of a matrix a weight belongs to. */

import type { Blocks } from './types.ts'

/** The rows and columns of the matrix of blocks; blocks of elements form one row of the whole. */
export function blockGrid(
  blocks: Blocks,
  rows: number,
  columns: number,
): { rows: number; columns: number } {
  if ('elements' in blocks) {
    return { rows: 1, columns: Math.ceil((rows * columns) / blocks.elements) }
  }
  return { rows: Math.ceil(rows / blocks.rows), columns: Math.ceil(columns / blocks.columns) }
}

export function blockCount(blocks: Blocks, rows: number, columns: number): number {
  const grid = blockGrid(blocks, rows, columns)
  return grid.rows * grid.columns
}

/** A function (row, column) → index of the block. */
export function blockIndexer(
  blocks: Blocks,
  columns: number,
): (row: number, column: number) => number {
  if ('elements' in blocks) {
    const { elements } = blocks
    return (row, column) => Math.floor((row * columns + column) / elements)
  }
  const { rows: height, columns: width } = blocks
  const across = Math.ceil(columns / width)
  return (row, column) => Math.floor(row / height) * across + Math.floor(column / width)
}

/** One block for all. */
export const perTensor = (rows: number, columns: number): Blocks => ({ rows, columns })
/** One block for each row (output channel). */
export const perRow = (columns: number): Blocks => ({ rows: 1, columns })
/** One block for each `size` columns of each row. */
export const perGroup = (size: number): Blocks => ({ rows: 1, columns: size })

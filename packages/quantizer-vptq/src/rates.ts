/** Bits per weight → vectors and centroids. */

import type { VectorShape, VptqOptions } from './options.ts'

/**
 * Squared error of k-means on normal vectors of 1 … 8 weights, times 4^rate (the rate-distortion bound is 1):
 * what a longer vector gains. Measured at about 2 bits, on 40 samples an entry.
 */
const LOSS = [1.88, 1.78, 1.7, 1.64, 1.565, 1.51, 1.466, 1.44]

/** The search takes 2^bits steps a weight. */
const MOST_BITS = 13
const TABLE_BITS = { i8: 8, f16: 16, f32: 32 } as const
const SCALE_BITS = 16

export interface MatrixShape {
  readonly rows: number
  readonly columns: number
}

/**
 * The shape of least expected error whose counted bits per weight, over all the matrices, stay below `bits`;
 * undefined where not even the smallest codebook does.
 */
export function shapeForBits(
  options: Pick<VptqOptions, 'bits' | 'norm' | 'rotation' | 'tables' | 'tableType'>,
  matrices: readonly MatrixShape[],
): VectorShape | undefined {
  let best: VectorShape | undefined
  let least = Number.POSITIVE_INFINITY
  for (let code = 1; code <= MOST_BITS; code++) {
    for (let length = 1; length <= LOSS.length; length++) {
      const shape = { length, entries: 2 ** code }
      if (countedBits(shape, options, matrices) > options.bits) continue
      const loss = LOSS[length - 1] * 4 ** -(code / length)
      if (loss < least) [least, best] = [loss, shape]
    }
  }
  return best
}

function countedBits(
  { length, entries }: VectorShape,
  { norm, rotation, tables, tableType }: Parameters<typeof shapeForBits>[0],
  matrices: readonly MatrixShape[],
): number {
  const table = entries * length * TABLE_BITS[tableType] + (tableType === 'i8' ? 32 : 0)
  let weights = 0
  let bits = tables === 'checkpoint' ? table : table * matrices.length
  for (const { rows, columns } of matrices) {
    weights += rows * columns
    bits += Math.ceil(rows / length) * columns * Math.log2(entries)
    if (norm === 'deviation') bits += SCALE_BITS * (rows + columns)
    if (norm === 'range') bits += 2 * SCALE_BITS * columns
    if (rotation === 'input') bits += 8 * Math.ceil(columns / 8)
  }
  return bits / weights
}

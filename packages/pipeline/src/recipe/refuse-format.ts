/** Asks a format whether it can hold what a recipe makes, before the work instead of after the first block. */

import {
  type Format,
  type Kernels,
  LowbitError,
  type QuantizedMatrix,
  type Quantizer,
  type QuantizerPlugin,
  seededRandom,
} from '@lowbit/core'
import type { Recipe } from './recipe.ts'
import { makeQuantizer } from './resolve.ts'

/** Rows fit every layout; columns are two groups of the default size. */
const ROWS = 32
const COLUMNS = 256

/**
 * Throws where the layout can't hold what a rule makes. Reasons that lie in a matrix's shape come to
 * light only when it is written.
 */
export async function refuseFormat(
  recipe: Recipe,
  format: Format,
  quantizers: readonly QuantizerPlugin[],
  kernels: Kernels,
): Promise<void> {
  for (const { match: _, method, ...options } of recipe.rules) {
    if (method === 'none') continue
    const make = () => makeQuantizer(quantizers, method, options)
    const matrix = await quantizeSample(make, kernels)
    const reason = matrix && format.refuses(matrix)
    if (!reason) continue
    throw new LowbitError(
      'not-storable',
      `format ${format.name} can not store what ${method} makes: ${reason}; --format lowbit can`,
      { option: 'format' },
    )
  }
}

/** A small random matrix through a quantizer; undefined where the options don't go together. */
export async function quantizeSample(
  make: () => Quantizer,
  kernels: Kernels,
): Promise<QuantizedMatrix | undefined> {
  const random = seededRandom(1)
  const values = Float32Array.from({ length: ROWS * COLUMNS }, () => random() + random() - 1)
  const inputs = Float32Array.from({ length: 2 * COLUMNS * COLUMNS }, () => random() - 0.5)
  try {
    const quantizer = make()
    const weight = kernels.upload(values, ROWS, COLUMNS)
    const x = kernels.upload(inputs, 2 * COLUMNS, COLUMNS)
    const hessian = kernels.tensor(COLUMNS, COLUMNS)
    kernels.gram(hessian, x, 1 / (2 * COLUMNS))
    const matrix = await quantizer.quantize({ name: 'sample', weight, hessian, kernels, seed: 0 })
    kernels.free(weight, x, hessian)
    return matrix
  } catch (error) {
    if (error instanceof LowbitError) return undefined
    throw error
  }
}

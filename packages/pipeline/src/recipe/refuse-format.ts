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
const SAMPLE = { rows: 32, columns: 256 }

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

/** A random matrix, small by default, through a quantizer; undefined where the options don't go together. */
export async function quantizeSample(
  make: () => Quantizer,
  kernels: Kernels,
  { rows, columns } = SAMPLE,
): Promise<QuantizedMatrix | undefined> {
  const random = seededRandom(1)
  const values = Float32Array.from({ length: rows * columns }, () => random() + random() - 1)
  const inputs = Float32Array.from({ length: 2 * columns * columns }, () => random() - 0.5)
  try {
    const quantizer = make()
    const weight = kernels.upload(values, rows, columns)
    const x = kernels.upload(inputs, 2 * columns, columns)
    const hessian = kernels.tensor(columns, columns)
    kernels.gram(hessian, x, 1 / (2 * columns))
    const matrix = await quantizer.quantize({ name: 'sample', weight, hessian, kernels, seed: 0 })
    kernels.free(weight, x, hessian)
    return matrix
  } catch (error) {
    if (error instanceof LowbitError) return undefined
    throw error
  }
}

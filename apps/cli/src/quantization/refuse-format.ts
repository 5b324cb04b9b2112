/** Asks the format before the work instead of after the first block. */

import { type Format, type Kernels, LowbitError } from '@lowbit/core'
import { makeQuantizer, type Recipe } from '@lowbit/pipeline'
import { quantizeSample } from '../inspection/compatibility.ts'
import { QUANTIZERS } from '../plugins.ts'

/**
 * Throws where the layout can't hold what a rule makes. Reasons that lie in a matrix's shape come to
 * light only when it is written.
 */
export async function refuseFormat(
  recipe: Recipe,
  format: Format,
  kernels: Kernels,
): Promise<void> {
  for (const { match: _, method, ...options } of recipe.rules) {
    if (method === 'none') continue
    const make = () => makeQuantizer(QUANTIZERS, method, options)
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

/**
 * Round to nearest for a layer's input: a scale for each token, found as it arrives (dynamic), or one for the
 * whole tensor, found on calibration data (static).
 */

import {
  type ActivationScheme,
  definePlugin,
  gridName,
  type Kernels,
  LowbitError,
  makeGrid,
  namedGrid,
  type QuantizedActivations,
  type Tensor,
} from '@lowbit/core'
import * as z from 'zod'

export const activationOptions = z.object({
  bits: z.int().min(2).max(8).default(8).describe('bits of a code (grid int)'),
  grid: gridName.default('int').describe('values that a code can mean'),
  granularity: z
    .enum(['token', 'tensor'])
    .default('token')
    .describe('a scale for each token, or one for all (needs range)'),
  symmetric: z.boolean().default(true).describe('no zero points'),
  range: z
    .tuple([z.number(), z.number()])
    .optional()
    .describe('smallest and largest value seen in calibration; makes a tensor scheme static'),
})

export const activations = definePlugin(
  {
    name: 'activations',
    summary: 'round a layer’s input to few bits, per token or per tensor',
    source: 'LLM.int8 2208.07339 (dynamic per token); SmoothQuant 2211.10438 (static per tensor)',
    options: activationOptions,
  },
  (options): ActivationScheme => {
    const { granularity, symmetric, range } = options
    const refuse = (option: string, why: string): never => {
      throw new LowbitError('bad-option', `activations: ${why}`, { option })
    }
    const asymmetric = !symmetric
    if (asymmetric && !namedGrid(options.grid).asymmetric) {
      refuse('symmetric', `grid ${options.grid} has no zero points, only int has`)
    }
    if (granularity === 'token' && range) refuse('range', 'a token finds its own range')
    if (granularity === 'tensor' && !range) {
      refuse('range', 'one scale for all needs the range that calibration saw')
    }
    if (range && !(range[0] <= range[1] && range.every(Number.isFinite))) {
      refuse('range', 'is smallest and largest value, both finite')
    }
    const grid = makeGrid(options.grid, options.bits, asymmetric)
    const fitting = (blockRows: number, blockColumns: number) => ({
      ...{ grid, blockRows, blockColumns, asymmetric },
      ...{ search: { candidates: 1, step: 0.02 }, scaleType: 'f32' as const },
    })
    return {
      kind: 'activations',
      name: 'activations',
      options,
      range: range ? 'static' : 'dynamic',
      quantize(kernels: Kernels, x: Tensor): QuantizedActivations {
        const codes = kernels.tensor(x.rows, x.columns, 'u8')
        const rows = range ? 1 : x.rows
        const scale = kernels.tensor(rows, 1)
        const zero = asymmetric ? kernels.tensor(rows, 1) : undefined
        if (range) {
          // The scale of a tensor that holds just the ends of the calibrated range.
          const ends = kernels.upload(Float32Array.from(range), 1, 2)
          kernels.fit(scale, zero, ends, fitting(1, 2))
          kernels.free(ends)
        } else {
          kernels.fit(scale, zero, x, fitting(1, x.columns))
        }
        const blockRows = range ? x.rows : 1
        kernels.round(codes, undefined, x, scale, zero, {
          grid,
          blockRows,
          blockColumns: x.columns,
        })
        return { codes, scale, ...(zero && { zero }) }
      },
    }
  },
)

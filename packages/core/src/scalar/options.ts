/** The options that all element-wise quantizers share. */

import * as z from 'zod'
import { LowbitError } from '../errors.ts'
import { gridBits } from '../matrix/grid.ts'
import type { Blocks, ScalarGrid } from '../matrix/types.ts'
import { gridName, makeGrid, namedGrid } from './named-grid.ts'

export const scalarOptions = {
  bits: z.int().min(1).max(8).default(4).describe('bits of a code (grids int and nf)'),
  grid: gridName.default('int').describe('values that a code can mean'),
  granularity: z
    .enum(['tensor', 'channel', 'group'])
    .default('group')
    .describe('what shares a scale: the matrix, a row, or groupSize columns of a row'),
  groupSize: z
    .int()
    .min(1)
    .optional()
    .describe(
      'columns of a group; the last may be shorter (default 128, or what the grid asks for)',
    ),
  symmetric: z
    .boolean()
    .optional()
    .describe('no zero points (default: asymmetric for int, symmetric for the rest)'),
  scaleType: z.enum(['f16', 'bf16', 'f32']).default('f16').describe('type of the scales'),
  doubleQuantization: z
    .boolean()
    .default(false)
    .describe('scales in 8 bits with one f32 for each 256 of them (QLoRA, section 3)'),
}

export type ScalarOptions = z.output<z.ZodObject<typeof scalarOptions>>

/** Options with every choice made. */
export interface ScalarScheme {
  readonly grid: ScalarGrid
  readonly bits: number
  readonly asymmetric: boolean
  readonly groupSize: number
  readonly granularity: ScalarOptions['granularity']
  readonly fitType: 'f32' | 'f16' | 'bf16' | 'f8_e8m0'
  readonly nested: 'none' | 'double' | 'nvfp4'
  readonly label: string
}

/** Completes options and refuses those that contradict each other. */
export function scalarScheme(method: string, options: ScalarOptions): ScalarScheme {
  const refuse = (option: string, why: string): never => {
    throw new LowbitError('bad-option', `${method}: ${why}`, { option })
  }
  const named = namedGrid(options.grid)
  const asymmetric = options.symmetric === undefined ? !!named.asymmetric : !options.symmetric
  if (asymmetric && !named.asymmetric) {
    refuse('symmetric', `grid ${options.grid} has no zero points, only int has`)
  }
  if (options.grid === 'nf' && options.bits < 2) refuse('bits', 'NormalFloat needs at least 2 bits')
  const { granularity, doubleQuantization } = options
  if (named.scaleType && granularity !== 'group') {
    refuse('granularity', `grid ${options.grid} has a scale for each ${named.groupSize} columns`)
  }
  if (named.scaleType && options.groupSize && options.groupSize !== named.groupSize) {
    refuse('groupSize', `grid ${options.grid} has groups of ${named.groupSize}`)
  }
  if (granularity !== 'group' && options.groupSize) {
    refuse('groupSize', `a group size contradicts granularity ${granularity}`)
  }
  if (doubleQuantization && named.scaleType) {
    refuse('doubleQuantization', `grid ${options.grid} brings its own type of scale`)
  }
  if (doubleQuantization && granularity === 'tensor') {
    refuse('doubleQuantization', 'one scale for the whole matrix is not worth quantizing')
  }
  const grid = makeGrid(options.grid, options.bits, asymmetric)
  const bits = gridBits(grid)
  const groupSize = options.groupSize ?? named.groupSize ?? 128
  const nested = named.scaleType === 'f8_e4m3' ? 'nvfp4' : doubleQuantization ? 'double' : 'none'
  const where = {
    tensor: 'one scale',
    channel: 'per channel',
    group: `groups of ${groupSize}`,
  }[granularity]
  return {
    grid,
    bits,
    asymmetric,
    groupSize,
    granularity,
    nested,
    fitType:
      named.scaleType === 'f8_e8m0' ? 'f8_e8m0' : nested === 'none' ? options.scaleType : 'f32',
    label: `${options.grid}${named.bits ? '' : bits}, ${where}${asymmetric ? ', zero points' : ''}${
      nested === 'double' ? ', double quantization' : ''
    }`,
  }
}

/** The blocks that share a scale in a matrix of this size. */
export function schemeBlocks(
  scheme: ScalarScheme,
  rows: number,
  columns: number,
): { rows: number; columns: number } & Blocks {
  if (scheme.granularity === 'tensor') return { rows, columns }
  return {
    rows: 1,
    columns: scheme.granularity === 'channel' ? columns : Math.min(scheme.groupSize, columns),
  }
}

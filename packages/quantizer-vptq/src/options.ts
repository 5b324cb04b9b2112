/** What VPTQ can be told, and what it does when told little. */

import { LowbitError, shareOption } from '@lowbit/core'
import * as z from 'zod'
import { type MatrixShape, shapeForBits } from './rates.ts'

const entries = z.int().min(1).max(65536)

export const vptqOptions = z.object({
  bits: z
    .number()
    .min(1)
    .max(5)
    .default(2.25)
    .describe('counted bits per weight to stay below; chooses vectors and centroids'),
  vectorLength: z
    .int()
    .min(1)
    .max(16)
    .optional()
    .describe('weights of a vector: consecutive rows of one column'),
  centroids: entries.optional().describe('vectors of the codebook'),
  residualCentroids: z
    .int()
    .min(0)
    .max(65536)
    .default(0)
    .describe('vectors of a second codebook for what the first leaves'),
  outliers: shareOption
    .default(0)
    .describe('share of columns, those with the largest diag(H), in a codebook of their own (1%)'),
  outlierVectorLength: z.int().min(1).max(16).default(4).describe('weights of their vectors'),
  outlierCentroids: entries.default(4096).describe('vectors of their codebook'),
  groups: z
    .int()
    .min(1)
    .max(64)
    .default(1)
    .describe('groups of columns with a codebook of their own'),
  tables: z
    .enum(['checkpoint', 'matrix'])
    .default('checkpoint')
    .describe('what shares a codebook: all matrices of the rule, or each has its own'),
  tableType: z.enum(['i8', 'f16', 'f32']).default('i8').describe('type of the codebooks'),
  norm: z
    .enum(['deviation', 'range', 'none'])
    .default('deviation')
    .describe(
      'rows and columns by their deviation, columns by least and range (paper), or neither',
    ),
  rotation: z
    .enum(['input', 'none'])
    .default('input')
    .describe('whether inputs are turned by a random Hadamard rotation, which spreads outliers'),
  order: z
    .enum(['activation', 'none'])
    .default('activation')
    .describe('columns by falling diag(H), or as they are'),
  iterations: z.int().min(1).max(1000).default(15).describe('iterations of k-means'),
  sweeps: z
    .int()
    .min(0)
    .max(100)
    .default(4)
    .describe('sweeps of coordinate descent after the pass'),
  refits: z
    .int()
    .min(0)
    .max(100)
    .default(2)
    .describe(
      'times that scales (and codebooks of a matrix’s own) are fitted to the codes, each followed by the sweeps',
    ),
  updates: z
    .int()
    .min(0)
    .max(1000)
    .default(10)
    .describe(
      'steps that move a matrix’s own codebooks toward its output at each refit (with tables matrix)',
    ),
  damping: z
    .number()
    .min(0)
    .max(1)
    .default(0.05)
    .describe('share of the mean of diag(H) added to it; doubled by itself while H is singular'),
})

export type VptqOptions = z.output<typeof vptqOptions>

/** Length and number of the vectors of a codebook. */
export interface VectorShape {
  readonly length: number
  readonly entries: number
}

/** Options that go with each other; with the shape of its vectors once the matrices are known. */
export interface VptqScheme extends VptqOptions {
  readonly main: VectorShape
  readonly residual?: VectorShape
  readonly outlier?: VectorShape
  readonly label: string
}

/** What a matrix too small for its own codebook gets. */
const SMALLEST: VectorShape = { length: 4, entries: 16 }

/** Refuses options that contradict each other, and says what they come to for these matrices. */
export function vptqScheme(options: VptqOptions, matrices?: readonly MatrixShape[]): VptqScheme {
  const refuse = (option: string, why: string): never => {
    throw new LowbitError('bad-option', `vptq: ${why}`, { option })
  }
  const { vectorLength, centroids, residualCentroids, outliers } = options
  if ((vectorLength === undefined) !== (centroids === undefined)) {
    const [given, other] = vectorLength
      ? ['vectorLength', 'centroids']
      : ['centroids', 'vectorLength']
    refuse(other, `${given} needs ${other} beside it; or give bits alone`)
  }
  // Before the matrices are known a large square one stands for them.
  const main =
    vectorLength && centroids
      ? { length: vectorLength, entries: centroids }
      : (shapeForBits(options, matrices ?? [{ rows: 4096, columns: 4096 }]) ?? SMALLEST)
  if (main === SMALLEST && matrices && options.tables === 'checkpoint' && matrices.length > 1) {
    refuse('bits', `${options.bits} bits hold not even the scales and the smallest codebook`)
  }
  if (options.groups > 1 && options.tables === 'checkpoint') {
    refuse('groups', 'groups of columns have codebooks of their own: they need tables matrix')
  }
  const parts = [
    `${main.entries}${residualCentroids ? ` + ${residualCentroids}` : ''} vectors of ${main.length}`,
    ...(outliers > 0 ? [`${+(100 * outliers).toFixed(2)} % outlier columns`] : []),
    ...(options.groups > 1 ? [`${options.groups} groups`] : []),
    options.tables === 'checkpoint' ? 'shared tables' : 'tables of its own',
  ]
  return {
    ...options,
    main,
    ...(residualCentroids > 0 && { residual: { length: main.length, entries: residualCentroids } }),
    ...(outliers > 0 && {
      outlier: { length: options.outlierVectorLength, entries: options.outlierCentroids },
    }),
    label: parts.join(', '),
  }
}

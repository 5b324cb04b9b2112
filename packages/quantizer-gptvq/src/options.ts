/** GPTVQ's options, and the groups that meet a target of bits. */

import { LowbitError } from '@lowbit/core'
import * as z from 'zod'

export const gptvqOptions = z.object({
  bitsPerValue: z
    .number()
    .min(1)
    .max(8)
    .default(2.25)
    .describe('bits per weight with codebooks and scales; decides centroids and group size'),
  vectorLength: z
    .int()
    .min(1)
    .max(8)
    .optional()
    .describe(
      'weights of a vector: consecutive columns of one row (default: 4 below 3 bits, then 2)',
    ),
  centroids: z
    .int()
    .min(2)
    .max(65536)
    .optional()
    .describe('vectors of a codebook (default: as many as bitsPerValue leaves room for)'),
  groupSize: z
    .int()
    .min(1)
    .optional()
    .describe('weights that share a codebook (default: what bitsPerValue leaves room for)'),
  groupColumns: z.int().min(1).default(256).describe('columns of a group; its rows follow'),
  normalizeColumns: z
    .int()
    .min(0)
    .max(1024)
    .default(0)
    .describe('columns of a row that share a 4-bit scale in the log domain; 0: no such scales'),
  seeding: z
    .enum(['mahalanobis', 'kmeans++'])
    .default('mahalanobis')
    .describe('how the codebooks begin'),
  iterations: z.int().min(1).max(1000).default(30).describe('iterations of k-means'),
  updates: z
    .int()
    .min(0)
    .max(1000)
    .default(10)
    .describe('steps that move the codebooks toward the layer’s output after the pass'),
  rounds: z
    .int()
    .min(1)
    .max(20)
    .default(1)
    .describe('passes; those after the first take the codebooks that the updates left'),
  tableType: z.enum(['i8', 'f16', 'f32']).default('i8').describe('type of the codebooks'),
  damping: z
    .number()
    .min(0)
    .max(1)
    .default(0.05)
    .describe('share of the mean of diag(H) added to it; doubled by itself while H is singular'),
})

export type GptvqOptions = z.output<typeof gptvqOptions>

/** Options with every choice made. */
export interface GptvqScheme extends GptvqOptions {
  readonly length: number
  readonly entries: number
  /** Weights that share a codebook. */
  readonly size: number
  readonly label: string
}

/** f16, one for each codebook of integers. */
const FACTOR_BITS = 16
/** Bits of a scale in the log domain. */
export const LOG_BITS = 4
const TABLE_BITS = { i8: 8, f16: 16, f32: 32 } as const

/**
 * Bits per value: log2(k) / d for the codes, k · d · b / size for codebooks of b-bit numbers (section 4.4), and
 * what scales take. What the codes leave is the codebooks'.
 */
export function gptvqScheme(options: GptvqOptions): GptvqScheme {
  const refuse = (option: string, why: string): never => {
    throw new LowbitError('bad-option', `gptvq: ${why}`, { option })
  }
  const { bitsPerValue, tableType, normalizeColumns, groupColumns } = options
  const length = options.vectorLength ?? (bitsPerValue < 3 ? 4 : 2)
  if (groupColumns % length !== 0) {
    refuse(
      'groupColumns',
      `groups of ${groupColumns} columns can't be cut into vectors of ${length}`,
    )
  }
  if (normalizeColumns > 0 && normalizeColumns % length !== 0) {
    refuse(
      'normalizeColumns',
      `scales of ${normalizeColumns} columns cut through vectors of ${length}`,
    )
  }
  if (normalizeColumns > 0 && groupColumns % normalizeColumns !== 0) {
    refuse(
      'normalizeColumns',
      `${normalizeColumns} does not divide groups of ${groupColumns} columns`,
    )
  }
  const scales = normalizeColumns > 0 ? LOG_BITS / normalizeColumns : 0
  const codeBits = options.centroids
    ? Math.ceil(Math.log2(options.centroids))
    : Math.min(16, Math.floor((bitsPerValue - scales) * length - 1e-9))
  if (codeBits < 1)
    refuse('bitsPerValue', `${bitsPerValue} bits are too few for vectors of ${length}`)
  const entries = options.centroids ?? 2 ** codeBits
  const left = bitsPerValue - scales - codeBits / length
  if (options.groupSize === undefined && !(left > 0)) {
    refuse(
      'bitsPerValue',
      `${entries} centroids of ${length} take ${codeBits / length} bits and leave nothing for the codebooks; ask for more bits, or give groupSize`,
    )
  }
  const table = entries * length * TABLE_BITS[tableType] + (tableType === 'i8' ? FACTOR_BITS : 0)
  const size = options.groupSize ?? Math.ceil(table / left)
  return {
    ...options,
    ...{ length, entries, size },
    label: `${entries} vectors of ${length}, a codebook for each ${size} weights`,
  }
}

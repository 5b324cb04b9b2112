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

/** So much more than asked for a matrix may count: of small ones the last group of rows is a large part. */
const TOLERANCE = 1.1

interface Shape {
  readonly rows: number
  readonly columns: number
}

/**
 * Bits per value: log2(k) / d for the codes, k · d · b / size for codebooks of b-bit numbers (section 4.4), and
 * what scales take. What the codes leave is the codebooks'. A matrix smaller than the group that this asks for
 * would count more: it gets shorter vectors, or where their length was given fewer of them.
 */
export function gptvqScheme(options: GptvqOptions, shape?: Shape): GptvqScheme {
  const { bitsPerValue, vectorLength, centroids, groupSize } = options
  const first = schemeOf(options, vectorLength ?? (bitsPerValue < 3 ? 4 : 2))
  if (!shape || centroids || groupSize || fits(first, shape)) return first
  if (vectorLength === undefined) {
    for (let length = first.length / 2; length >= 1; length /= 2) {
      const scheme = fitting(options, length)
      if (scheme && fits(scheme, shape)) return scheme
    }
  }
  // Groups as large as can be, and as many vectors as they leave room for.
  const whole = shape.rows * groupShape(first, shape.rows, shape.columns).groupColumns
  for (let entries = first.entries; ; entries /= 2) {
    const scheme = schemeOf({ ...options, centroids: entries, groupSize: whole }, first.length)
    if (entries <= 2 || fits(scheme, shape)) return scheme
  }
}

/** Nothing where vectors of this length can't be. */
function fitting(options: GptvqOptions, length: number): GptvqScheme | undefined {
  try {
    return schemeOf(options, length)
  } catch {
    return undefined
  }
}

/** Whether a matrix of this shape counts about as many bits as asked for, or fewer. */
function fits(scheme: GptvqScheme, { rows, columns }: Shape): boolean {
  const { length, entries, tableType, normalizeColumns, bitsPerValue } = scheme
  const { groupColumns, groupRows } = groupShape(scheme, rows, columns)
  const tables = Math.ceil(rows / groupRows) * Math.ceil(columns / groupColumns)
  const codes = rows * Math.ceil(columns / length) * Math.ceil(Math.log2(entries))
  const scales = normalizeColumns > 0 ? rows * Math.ceil(columns / normalizeColumns) * LOG_BITS : 0
  const bits = codes + tables * tableBits(entries, length, tableType) + scales
  return bits <= TOLERANCE * bitsPerValue * rows * columns
}

const tableBits = (entries: number, length: number, type: GptvqOptions['tableType']): number =>
  entries * length * TABLE_BITS[type] + (type === 'i8' ? FACTOR_BITS : 0)

/** Rectangles of about scheme.size weights that share a codebook. */
export function groupShape(
  { groupColumns, size, length }: GptvqScheme,
  rows: number,
  columns: number,
): { groupColumns: number; groupRows: number } {
  const width = Math.min(groupColumns, Math.ceil(columns / length) * length)
  return { groupColumns: width, groupRows: Math.min(rows, Math.max(1, Math.ceil(size / width))) }
}

function schemeOf(options: GptvqOptions, length: number): GptvqScheme {
  const refuse = (option: string, why: string): never => {
    throw new LowbitError('bad-option', `gptvq: ${why}`, { option })
  }
  const { bitsPerValue, tableType, normalizeColumns, groupColumns } = options
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
  const size = options.groupSize ?? Math.ceil(tableBits(entries, length, tableType) / left)
  return {
    ...options,
    ...{ length, entries, size },
    label: `${entries} vectors of ${length}, a codebook for each ${size} weights`,
  }
}

/** The options of palettes, and what they come to when every choice is made. */

import { LowbitError, type Needs } from '@lowbit/core'
import * as z from 'zod'

/** Bits that a palette's codes may have, as Core ML has them. */
export const PALETTE_BITS: readonly number[] = [1, 2, 3, 4, 6, 8]
const MOST_ENTRIES = 256

/** The table of one block of weights, from its values and what each one's squared error counts. */
export type TableFunction = (weights: Float32Array, importance: Float32Array) => ArrayLike<number>

export const palettizeOptions = z.object({
  bits: z
    .int()
    .min(1)
    .max(8)
    .refine((bits) => PALETTE_BITS.includes(bits), {
      error: `must be one of ${PALETTE_BITS.join(', ')}`,
    })
    .optional()
    .describe('bits of a code (default 4; modes unique and custom find it themselves)'),
  mode: z
    .enum(['kmeans', 'uniform', 'unique', 'sensitive', 'dkm', 'gsm', 'hard', 'custom'])
    .default('kmeans')
    .describe(
      'exact k-means, evenly spaced values, every value that occurs, k-means weighted by Fisher information (SqueezeLLM), trained on the layer’s output by differentiable k-means (dkm; gsm with Gumbel noise; hard: entries alone learn), or a function of yours (libraries only)',
    ),
  granularity: z
    .enum(['per-tensor', 'per-grouped-channel'])
    .default('per-tensor')
    .describe('what shares a palette: the matrix, or groupSize channels'),
  groupSize: z
    .int()
    .min(1)
    .optional()
    .describe('channels that share a palette; the last group may be smaller (default 16)'),
  axis: z
    .int()
    .min(0)
    .max(1)
    .default(0)
    .describe('which channels are grouped, and along which vectors lie: 0 output, 1 input'),
  clusterDim: z
    .int()
    .min(1)
    .max(8)
    .refine((length) => [1, 2, 4, 8].includes(length), { error: 'must be one of 1, 2, 4, 8' })
    .default(1)
    .describe(
      'weights that one code stands for, consecutive along the axis (bits per code, not per weight)',
    ),
  perChannelScale: z
    .boolean()
    .default(false)
    .describe('a scale for each row, so that the palette is of w / max |w| of the row'),
  tableType: z
    .enum(['f32', 'f16', 'i8', 'u8'])
    .optional()
    .describe(
      'type of the palettes; i8 and u8 with an f32 factor each (default f16; f32 in mode unique)',
    ),
  importance: z
    .enum(['hessian', 'none'])
    .default('hessian')
    .describe('what a squared error counts when palettes are fitted: diag(H) of its column, or 1'),
  feedback: z
    .boolean()
    .optional()
    .describe(
      'assign weights as GPTQ does, each error fed into the columns not yet assigned (default: yes where importance is hessian)',
    ),
  sweeps: z
    .int()
    .min(0)
    .max(100)
    .default(4)
    .describe('sweeps of coordinate descent over the codes after the feedback pass'),
  rounds: z
    .int()
    .min(0)
    .max(50)
    .default(2)
    .describe('how often the palettes are refitted to the codes, and the codes to them (feedback)'),
  damping: z
    .number()
    .min(0)
    .max(1)
    .default(0.05)
    .describe('share of the mean of diag(H) added to it; doubled by itself while H is singular'),
  steps: z
    .int()
    .min(1)
    .max(100_000)
    .default(100)
    .describe('modes dkm, gsm and hard: steps of training'),
  rate: z
    .number()
    .min(1e-6)
    .max(10)
    .default(0.4)
    .describe(
      'of that training: how far a step moves a weight, in deviations of its error at first',
    ),
  temperature: z
    .number()
    .min(1e-3)
    .max(1000)
    .default(4)
    .describe(
      'of that training: how softly weights are assigned at first, in variances of their error; falls to 3 %',
    ),
  iterations: z
    .int()
    .min(0)
    .max(100)
    .default(3)
    .describe('of that training: iterations of soft k-means in a step'),
  outliers: z
    .number()
    .min(0)
    .max(0.1)
    .default(0)
    .describe(
      'share of the weights kept dense in f16, those that lose most without (80 bits each)',
    ),
  table: z
    .custom<TableFunction>((value) => typeof value === 'function', { error: 'must be a function' })
    .optional()
    .describe('mode custom: makes the table of a block from its weights and their importance'),
})

export type PalettizeOptions = z.output<typeof palettizeOptions>

/** Options with every choice made. */
export interface PaletteScheme extends PalettizeOptions {
  /** Unknown until the weights are seen in modes unique and custom. */
  readonly bits: number | undefined
  readonly tableType: 'f32' | 'f16' | 'i8' | 'u8'
  readonly feedback: boolean
  readonly needs: Needs
  readonly label: string
}

export function paletteScheme(options: PalettizeOptions): PaletteScheme {
  const { mode, granularity, groupSize, axis, importance, perChannelScale } = options
  const refuse = (option: string, why: string): never => {
    throw new LowbitError('bad-option', `palettize: ${why}`, { option })
  }
  const findsBits = mode === 'unique' || mode === 'custom'
  if (findsBits && options.bits !== undefined) {
    refuse('bits', `mode ${mode} finds the number of bits itself`)
  }
  if (mode === 'custom' && !options.table) {
    refuse('table', 'mode custom needs a function in `table`, which only a library call can give')
  }
  if (mode !== 'custom' && options.table) {
    refuse('table', `a function for tables needs mode custom, not ${mode}`)
  }
  if (groupSize && granularity === 'per-tensor') {
    refuse('groupSize', 'a group size needs --granularity per-grouped-channel')
  }
  const vectors = options.clusterDim > 1
  if (axis === 1 && granularity === 'per-tensor' && !vectors) {
    refuse('axis', 'an axis needs --granularity per-grouped-channel or a --cluster-dim above 1')
  }
  if (vectors) {
    const why = 'vector palettes (clusterDim above 1)'
    if (mode !== 'kmeans') refuse('mode', `${why} are found by k-means, not by mode ${mode}`)
    if (granularity !== 'per-tensor') refuse('granularity', `${why} belong to the whole matrix`)
    if (perChannelScale) refuse('perChannelScale', `${why} have no scales of rows`)
    if (options.outliers > 0) refuse('outliers', `${why} keep no outliers dense`)
    if (options.tableType === 'i8' || options.tableType === 'u8') {
      refuse('tableType', `${why} are stored in f16 or f32`)
    }
  }
  if (axis === 1 && perChannelScale) {
    refuse('perChannelScale', 'scales belong to output channels; they need axis 0')
  }
  if (axis === 1 && trains(mode)) {
    refuse('axis', `mode ${mode} trains palettes of the matrix or of groups of rows: axis 0`)
  }
  if (mode === 'unique' && (perChannelScale || options.feedback || options.outliers > 0)) {
    refuse('mode', 'mode unique keeps every weight as it is: no scales, feedback or outliers')
  }
  const exact = mode === 'unique'
  const feedback = options.feedback ?? (importance === 'hessian' && !exact && mode !== 'sensitive')
  const weighs = importance === 'hessian' && !['uniform', 'unique', 'sensitive'].includes(mode)
  const bits = findsBits ? undefined : (options.bits ?? 4)
  const plural = bits === 1 ? '' : 's'
  const each = vectors ? ` for ${options.clusterDim} weights` : ''
  const what = bits === undefined ? mode : `${bits} bit${plural}${each}`
  const shared =
    granularity === 'per-tensor'
      ? 'one palette'
      : `palettes of ${groupSize ?? DEFAULT_GROUP} ${axis === 0 ? 'rows' : 'columns'}`
  const extras = [
    ...(mode === 'kmeans' || findsBits ? [] : [mode]),
    ...(perChannelScale ? ['row scales'] : []),
    ...(feedback ? ['feedback'] : []),
    ...(options.outliers > 0 ? [`${100 * options.outliers} % outliers`] : []),
  ]
  return {
    ...options,
    bits,
    feedback,
    tableType: options.tableType ?? (exact ? 'f32' : 'f16'),
    needs: {
      ...((feedback || weighs || trains(mode)) && { hessian: true }),
      ...(mode === 'sensitive' && { fisher: true }),
    },
    label: [what, shared, ...extras].join(', '),
  }
}

/** Whether a mode learns from the layer's output. */
export const trains = (mode: PalettizeOptions['mode']): mode is 'dkm' | 'gsm' | 'hard' =>
  mode === 'dkm' || mode === 'gsm' || mode === 'hard'

/** Channels of a group: Core ML's documentation recommends 8 or 16. */
const DEFAULT_GROUP = 16

/** The rows and columns that share a palette in a matrix of this size. */
export function paletteBlocks(
  { granularity, groupSize = DEFAULT_GROUP, axis }: PaletteScheme,
  rows: number,
  columns: number,
): { rows: number; columns: number } {
  if (granularity === 'per-tensor') return { rows, columns }
  if (axis === 0) return { rows: Math.min(groupSize, rows), columns }
  return { rows, columns: Math.min(groupSize, columns) }
}

/** The fewest bits that tell `entries` values apart. */
export function bitsFor(entries: number): number {
  const bits = PALETTE_BITS.find((n) => 2 ** n >= entries)
  if (bits !== undefined) return bits
  throw new LowbitError('bad-input', `a palette has ${MOST_ENTRIES} values at most, not ${entries}`)
}

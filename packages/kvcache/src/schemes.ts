/** The schemes by name. */

import {
  type AnyPlugin,
  type CacheScheme,
  decodeFloat,
  definePlugin,
  FLOAT_FORMATS,
  LowbitError,
  normalFloat,
} from '@lowbit/core'
import * as z from 'zod'
import { codedCache, type GridChoice } from './coded-cache.ts'
import { positions, rotated, rotation, sinks, slide, window } from './options.ts'

export type CacheSchemePlugin = AnyPlugin<CacheScheme>

const group = (usual: number) =>
  z.int().min(8).max(1024).default(usual).describe('numbers that share a scale')
const range = z
  .number()
  .min(0.1)
  .max(1)
  .describe('share of a block’s range that codes of values cover; numbers outside go to its ends')
const outliers = z
  .number()
  .min(0)
  .max(0.25)
  .default(0)
  .describe('share of a token’s numbers kept beside the codes, those that lie farthest out')
const entries = z.array(z.number().min(0).max(1)).optional()
const tables = z
  .object({ keys: entries, values: entries })
  .optional()
  .describe('values between a block’s least number, 0, and its largest, 1, in place of even steps')
/**
 * Where the squared error is least at 2 bits (tooling/figures/cache-grids.ts). Of values alone: keys that lie far out are those
 * that much attention goes to, and lose more by it than the others gain.
 */
const usualRange = (bits: number): number => (bits === 2 ? 0.75 : 1)
const cacheBits = z
  .int()
  .min(2)
  .max(8)
  .refine((bits) => [2, 3, 4, 8].includes(bits), { error: 'must be one of 2, 3, 4, 8' })
  .transform((bits) => bits as GridChoice['bits'])

interface PerToken {
  readonly name: string
  readonly summary: string
  readonly grid: Omit<GridChoice, 'per' | 'group'>
  readonly group: number
  readonly window: number
  readonly rotation: 'hadamard' | 'none'
}

/** Keys and values alike, with scales for each token. */
function perToken({ name, summary, grid, ...usual }: PerToken) {
  return definePlugin(
    {
      ...{ name, summary },
      options: z.object({
        group: group(usual.group),
        window: window(usual.window),
        sinks,
        slide,
        range: range.default(grid.table ? 1 : usualRange(grid.bits)),
        outliers,
        rotation: rotation(usual.rotation),
        positions,
      }),
    },
    (options) => {
      const { group, range, outliers, rotation, ...kept } = options
      const choice: GridChoice = { ...grid, per: 'token', group, outliers }
      return codedCache(name, options, {
        ...{ keys: choice, values: { ...choice, range }, ...kept },
        rotate: rotated(rotation),
      })
    },
  )
}

/** What others are measured against: all in half the memory, nothing in codes. */
export const f16 = definePlugin(
  {
    ...{ name: 'f16', summary: 'halves instead of floats' },
    options: z.object({ window: window(0), sinks, slide }),
  },
  (options) => {
    const halves: GridChoice = { bits: 16, per: 'token', group: 1, symmetric: true }
    const kept = { keys: halves, values: halves, ...options }
    return codedCache('f16', options, { ...kept, rotate: rotated('none') })
  },
)

const integers = (bits: GridChoice['bits']) =>
  perToken({
    name: `int${bits}`,
    summary: `integers of ${bits} bits, a scale and a least value for each group of a token's channels`,
    grid: { bits, symmetric: false },
    group: bits === 8 ? 64 : 32,
    window: bits === 8 ? 0 : 128,
    rotation: bits === 8 ? 'none' : 'hadamard',
  })

export const int8 = integers(8)
export const int4 = integers(4)
export const int3 = integers(3)
export const int2 = integers(2)

/** The finite values of E4M3 in their order; the two codes of NaN repeat the ends. */
function e4m3(): Float32Array {
  const values = Float32Array.from({ length: 256 }, (_, code) =>
    decodeFloat(FLOAT_FORMATS.f8_e4m3, code),
  )
  const finite = [...values].filter(Number.isFinite).sort((a, b) => a - b)
  const left = 256 - finite.length
  const [least, most] = [finite[0], finite[finite.length - 1]]
  return Float32Array.from([
    ...new Array<number>(Math.ceil(left / 2)).fill(least),
    ...finite,
    ...new Array<number>(Math.floor(left / 2)).fill(most),
  ])
}

export const fp8 = perToken({
  name: 'fp8',
  summary: 'FP8 E4M3 with a scale for each token and head',
  grid: { bits: 8, symmetric: true, table: e4m3() },
  group: 64,
  window: 0,
  rotation: 'none',
})

export const nf4 = perToken({
  name: 'nf4',
  summary: 'NF4 (QLoRA) with a scale for each group',
  grid: { bits: 4, symmetric: true, table: normalFloat(4) },
  group: 32,
  window: 128,
  rotation: 'hadamard',
})

/** A table that was given, in order. */
function tableOf(
  given: readonly number[] | undefined,
  bits: number,
  name: string,
): Float32Array | undefined {
  if (given && given.length !== 2 ** bits) {
    throw new LowbitError(
      'bad-option',
      `a table of ${bits} bits has ${2 ** bits} values; that of ${name} has ${given.length}`,
      { option: 'tables' },
    )
  }
  return given && Float32Array.from(given).sort()
}

/** KIVI (Liu et al., ICML 2024, section 3): outliers of keys are channels, so keys have a scale for each channel. */
export const kivi = definePlugin(
  {
    name: 'kivi',
    summary: 'keys with a scale for each channel of a group of tokens, values for each token',
    source: 'Liu et al., ICML 2024',
    options: z.object({
      bits: cacheBits.default(2).describe('bits of a number: 2, 3, 4 or 8'),
      group: group(32),
      window: window(128),
      sinks,
      slide,
      range: range.optional().describe(`${range.description} (usually 0.75 at 2 bits, 1 above)`),
      outliers,
      tables,
      rotation: rotation('hadamard'),
      positions,
    }),
  },
  (options) => {
    const { bits, group, outliers } = options
    const [keys, values] = (['keys', 'values'] as const).map((name) =>
      tableOf(options.tables?.[name], bits, name),
    )
    const { range = values ? 1 : usualRange(bits) } = options
    return codedCache(
      'kivi',
      { ...options, range },
      {
        keys: { bits, per: 'channel', group, symmetric: false, outliers, table: keys },
        values: { bits, per: 'token', group, symmetric: false, range, outliers, table: values },
        ...{ window: options.window, sinks: options.sinks, slide: options.slide },
        positions: options.positions,
        rotate: rotated(options.rotation),
      },
    )
  },
)

export const CACHE_SCHEMES: readonly CacheSchemePlugin[] = [
  f16,
  int8,
  int4,
  int3,
  int2,
  fp8,
  nf4,
  kivi,
]

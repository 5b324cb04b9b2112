/** The schemes by name. */

import {
  type AnyPlugin,
  type CacheScheme,
  decodeFloat,
  definePlugin,
  FLOAT_FORMATS,
  normalFloat,
} from '@lowbit/core'
import * as z from 'zod'
import { codedCache, type GridChoice } from './coded-cache.ts'

export type CacheSchemePlugin = AnyPlugin<CacheScheme>

const window = (usual: number) =>
  z.int().min(0).max(1_000_000).default(usual).describe('newest tokens that stay in full')
const sinks = z
  .int()
  .min(0)
  .max(32)
  .default(4)
  .describe('first tokens that stay in full: all later ones look at them')
const slide = z
  .int()
  .min(0)
  .max(1_000_000)
  .default(0)
  .describe('newest tokens that are kept at all, besides the first few; 0 keeps all')
const group = (usual: number) =>
  z.int().min(8).max(1024).default(usual).describe('numbers that share a scale')
const rotation = (usual: 'hadamard' | 'none') =>
  z
    .enum(['hadamard', 'none'])
    .default(usual)
    .describe('whether heads are turned by a Hadamard matrix, which spreads outliers')
const rotated = (rotation: 'hadamard' | 'none') => ({
  keys: rotation === 'hadamard',
  values: rotation === 'hadamard',
})
const range = z
  .number()
  .min(0.1)
  .max(1)
  .describe('share of a block’s range that codes of values cover; numbers outside go to its ends')
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
        rotation: rotation(usual.rotation),
      }),
    },
    (options) => {
      const { group, window, sinks, slide, range, rotation } = options
      const choice: GridChoice = { ...grid, per: 'token', group }
      return codedCache(name, options, {
        ...{ keys: choice, values: { ...choice, range }, window, sinks, slide },
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
      rotation: rotation('hadamard'),
    }),
  },
  (options) => {
    const { bits, group, range = usualRange(bits) } = options
    return codedCache(
      'kivi',
      { ...options, range },
      {
        keys: { bits, per: 'channel', group, symmetric: false },
        values: { bits, per: 'token', group, symmetric: false, range },
        ...{ window: options.window, sinks: options.sinks, slide: options.slide },
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

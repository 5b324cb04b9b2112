/** Coupled channels: a scheme that is fitted to a model before it is used. */

import {
  type CacheSample,
  type CacheScheme,
  type CacheShape,
  definePlugin,
  digest,
  type Kernels,
} from '@lowbit/core'
import * as z from 'zod'
import { type CacheCodebooks, fitCodebook } from './codebooks.ts'
import { codedCache, type GridChoice } from './coded-cache.ts'
import { positions, sinks, slide, window } from './options.ts'
import { loadPositions } from './positions.ts'

interface Options {
  readonly bits: number
  readonly window: number
  readonly sinks: number
  readonly slide: number
  readonly positions: 'behind' | 'before'
}

/** With codebooks it can be created; `name`d by their digest, so that a saved cache knows them. */
function coupledCache(
  options: Options,
  codebooks?: readonly CacheCodebooks[],
  name?: string,
): CacheScheme {
  const { bits, window, sinks, slide, positions } = options
  const coupled = bits === 1 ? 8 : 4
  const grid: GridChoice = { bits: 8, per: 'token', group: 1, symmetric: true, coupled }
  const kept = {
    window,
    sinks,
    slide,
    rotate: { keys: false, values: false },
    positions,
    codebooks,
  }
  const given = { ...options, ...(name && { codebooks: name }) }
  return {
    ...codedCache('cq', given, { keys: grid, values: grid, ...kept }),
    async fit(kernels, shape, samples) {
      const found: CacheCodebooks[] = []
      for (let layer = 0; layer < shape.layers; layer++) {
        const { keys, values } = await samples(layer)
        const fit = (x: readonly CacheSample[]) => fitCodebook(kernels, x, coupled, sinks)
        const raw = positions === 'before' ? await beforeRope(kernels, keys, shape) : keys
        found.push({ keys: await fit(raw), values: await fit(values) })
      }
      return knowing(options, found)
    },
    ...(codebooks && { learnt: namedCodebooks(codebooks) }),
    async recall(learnt) {
      const found: CacheCodebooks[] = []
      for (let layer = 0; learnt.has(`${layer}.keys`); layer++) {
        const [keys, values] = ['keys', 'values'].map((name) => learnt.get(`${layer}.${name}`))
        found.push({ keys: keys!, values: values ?? new Float32Array() })
      }
      return knowing(options, found)
    },
  }
}

const namedCodebooks = (codebooks: readonly CacheCodebooks[]): ReadonlyMap<string, Float32Array> =>
  new Map(
    codebooks.flatMap(({ keys, values }, layer) => [
      [`${layer}.keys`, keys] as const,
      [`${layer}.values`, values] as const,
    ]),
  )

async function knowing(
  options: Options,
  codebooks: readonly CacheCodebooks[],
): Promise<CacheScheme> {
  const digests = await Promise.all(
    codebooks
      .flatMap(({ keys, values }) => [keys, values])
      .map(({ buffer, byteOffset, byteLength }) =>
        digest(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)),
      ),
  )
  return coupledCache(options, codebooks, await digest(new TextEncoder().encode(digests.join())))
}

/** Keys of texts as they were before RoPE; what they count stays with their places. */
async function beforeRope(
  kernels: Kernels,
  samples: readonly CacheSample[],
  shape: Omit<CacheShape, 'capacity'>,
): Promise<CacheSample[]> {
  const found: CacheSample[] = []
  for (const { numbers, width, ...rest } of samples) {
    const rows = numbers.length / width
    const { cos, sin, back } = loadPositions(kernels, shape, rows)
    const x = kernels.upload(numbers, rows, width)
    kernels.rope(x, cos, back, shape.headSize, 0)
    found.push({ numbers: (await kernels.read(x)).slice(), width, ...rest })
    kernels.free(x, cos, sin, back)
  }
  return found
}

/** CQ (Zhang et al., NeurIPS 2024): a code of 8 bits stands for 4 or 8 neighbouring channels of a head. */
export const cq = definePlugin(
  {
    name: 'cq',
    summary:
      'codes for 4 or 8 channels together, from codebooks fitted to the model’s keys and values',
    source: 'Zhang et al., NeurIPS 2024',
    options: z.object({
      bits: z.int().min(1).max(2).default(2).describe('bits of a number: 2 or 1'),
      window: window(128),
      sinks,
      slide,
      positions,
    }),
  },
  (options) => coupledCache(options),
)

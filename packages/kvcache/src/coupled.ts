/** Coupled channels: a scheme that is fitted to a model before it is used. */

import { type CacheSample, type CacheScheme, definePlugin, digest } from '@lowbit/core'
import * as z from 'zod'
import { type CacheCodebooks, fitCodebook } from './codebooks.ts'
import { codedCache, type GridChoice } from './coded-cache.ts'
import { sinks, slide, window } from './options.ts'

interface Options {
  readonly bits: number
  readonly window: number
  readonly sinks: number
  readonly slide: number
}

/** With codebooks it can be created; `name`d by their digest, so that a saved cache knows them. */
function coupledCache(
  options: Options,
  codebooks?: readonly CacheCodebooks[],
  name?: string,
): CacheScheme {
  const { bits, window, sinks, slide } = options
  const coupled = bits === 1 ? 8 : 4
  const grid: GridChoice = { bits: 8, per: 'token', group: 1, symmetric: true, coupled }
  const kept = { window, sinks, slide, rotate: { keys: false, values: false }, codebooks }
  const given = { ...options, ...(name && { codebooks: name }) }
  return {
    ...codedCache('cq', given, { keys: grid, values: grid, ...kept }),
    async fit(kernels, layers, samples) {
      const found: CacheCodebooks[] = []
      for (let layer = 0; layer < layers; layer++) {
        const { keys, values } = await samples(layer)
        const fit = (x: readonly CacheSample[]) => fitCodebook(kernels, x, coupled, sinks)
        found.push({ keys: await fit(keys), values: await fit(values) })
      }
      const digests = await Promise.all(
        found
          .flatMap(({ keys, values }) => [keys, values])
          .map(({ buffer }) => digest(new Uint8Array(buffer))),
      )
      return coupledCache(options, found, await digest(new TextEncoder().encode(digests.join())))
    },
  }
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
    }),
  },
  (options) => coupledCache(options),
)

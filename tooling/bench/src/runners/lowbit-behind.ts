/** lowbit's generation behind a cache that is full. */

import type { CacheScheme } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { f16, int4, int8, kivi } from '@lowbit/kvcache'
import { fullCache, loadDecoder } from '@lowbit/model'
import { fillCache } from '../fill-cache.ts'
import { BEHIND_TOKENS, promptTokens, serve, stopwatch } from './protocol.ts'

const CACHES: Readonly<Record<string, () => CacheScheme>> = {
  f32: fullCache,
  f16: () => f16(),
  int8: () => int8(),
  int4: () => int4(),
  kivi: () => kivi({ bits: 4 }),
}

await serve(async ({ model, threads, behind = { tokens: 0, cache: 'f32' } }) => {
  const kernels = await cpu({ threads, strict: false, wide: true })
  const checkpoint = await openFolder(nodeFolder(model))
  const decoder = await loadDecoder(checkpoint, kernels, { activations: 'int8' })
  const cache = decoder.cache(behind.tokens + BEHIND_TOKENS, CACHES[behind.cache]())
  fillCache(decoder, cache, behind.tokens)

  async function next(token: number): Promise<number> {
    const hidden = decoder.forward([token], cache)
    const logits = decoder.logits(hidden)
    const options = { temperature: 0, topK: 0, topP: 1, random: 0 }
    const made = await kernels.sample(kernels.rows(logits, 0, 1), options)
    kernels.free(hidden, logits)
    return made
  }

  return {
    async behind() {
      const watch = stopwatch()
      let [token] = promptTokens(1)
      for (let i = 0; i < BEHIND_TOKENS; i++) {
        token = await next(token)
      }
      const usage = watch.usage()
      cache.truncate(behind.tokens)
      return { ...usage, tokens: BEHIND_TOKENS }
    },
  }
})

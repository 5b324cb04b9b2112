/** lowbit's generation behind a cache that is full. */

import { type CacheScheme, seededRandom } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { f16, int4, int8, kivi } from '@lowbit/kvcache'
import { fullCache, loadDecoder } from '@lowbit/model'
import { BEHIND_TOKENS, promptTokens, serve, stopwatch } from './protocol.ts'

const CACHES: Readonly<Record<string, () => CacheScheme>> = {
  f32: fullCache,
  f16: () => f16(),
  int8: () => int8(),
  int4: () => int4(),
  kivi: () => kivi({ bits: 4 }),
}
const CHUNK = 256

await serve(async ({ model, threads, behind = { tokens: 0, cache: 'f32' } }) => {
  const kernels = await cpu({ threads, strict: false, wide: true })
  const checkpoint = await openFolder(nodeFolder(model))
  const decoder = await loadDecoder(checkpoint, kernels, { activations: 'int8' })
  const cache = decoder.cache(behind.tokens + BEHIND_TOKENS, CACHES[behind.cache]())
  // Keys and values of no text: what they are does not change how long they take, and reading one takes minutes.
  const { layers, keyValueHeads, headSize } = decoder.config
  const random = seededRandom(1)
  for (let from = 0; from < behind.tokens; from += CHUNK) {
    const rows = Math.min(CHUNK, behind.tokens - from)
    const width = keyValueHeads * headSize
    const values = Float32Array.from({ length: rows * width }, () => random() - 0.5)
    const some = kernels.upload(values, rows, width)
    for (let layer = 0; layer < layers; layer++) cache.append(layer, some, some)
    cache.advance(rows)
    kernels.free(some)
  }

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

import type { Cache, CacheSample, CacheScheme } from '@lowbit/core'
import type { Decoder } from '../decoder/decoder.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import { calibrationWindows, firstTokens } from './windows.ts'

export interface FitCacheOptions {
  readonly signal?: AbortSignal
  /** Windows that have run and layers that have been learnt from, of all. */
  readonly onProgress?: (done: number, total: number) => void | Promise<void>
}

/**
 * A scheme that has learnt from what the full cache keeps of some windows of text; schemes that learn nothing are given
 * back as they are. Windows should be about as long as what will be kept: keys change with their positions.
 */
export async function fitCache(
  decoder: Decoder,
  scheme: CacheScheme,
  windows: readonly (readonly number[])[],
  { signal, onProgress }: FitCacheOptions = {},
): Promise<CacheScheme> {
  if (!scheme.fit) return scheme
  const { kernels, cacheShape } = decoder
  const { layers, keyValueHeads, headSize } = cacheShape
  const total = windows.length + layers
  const caches: Cache[] = []
  try {
    for (const window of windows) {
      signal?.throwIfAborted()
      const cache = decoder.cache(window.length)
      caches.push(cache)
      kernels.free(decoder.forward(window, cache))
      await onProgress?.(caches.length, total)
    }
    return await scheme.fit(kernels, cacheShape, async (layer) => {
      signal?.throwIfAborted()
      await onProgress?.(windows.length + layer, total)
      const width = keyValueHeads * headSize
      const kept = async (name: string): Promise<CacheSample[]> => {
        const samples: CacheSample[] = []
        for (const cache of caches) {
          const tensor = cache.parts().get(`${layer}.${name}`)!
          samples.push({ numbers: (await kernels.read(tensor)).slice(), width })
        }
        return samples
      }
      return { keys: await kept('keys'), values: await kept('values') }
    })
  } finally {
    for (const cache of caches) cache.dispose()
  }
}

/** More tokens gain little (tooling/figures/cache-coupled.ts); longer windows cover more positions. */
const WINDOWS = 4
const LENGTH = 1024

/** The same of the first tokens of a text. */
export async function fitCacheToText(
  decoder: Decoder,
  tokenizer: Tokenizer,
  scheme: CacheScheme,
  text: string,
  options?: FitCacheOptions,
): Promise<CacheScheme> {
  const length = Math.min(LENGTH, decoder.config.context)
  const tokens = firstTokens(tokenizer, text, WINDOWS * length)
  return fitCache(decoder, scheme, calibrationWindows(tokens, WINDOWS, length), options)
}

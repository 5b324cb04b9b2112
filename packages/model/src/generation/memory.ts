/** A cache that knows its tokens: a prompt that begins as they do needs only its rest. */

import type { Cache, CacheScheme, Tensor } from '@lowbit/core'
import type { Decoder } from '../decoder/decoder.ts'

export interface Memory {
  readonly cache: Cache
  /** What is in the cache. */
  readonly tokens: readonly number[]
  /**
   * Forgets what a prompt does not share: the longest common beginning stays, but never the whole prompt, since its
   * last token must be run. Gives how many tokens stay; a cache that slides keeps all or nothing.
   */
  rewind(prompt: readonly number[]): number
  /** Runs tokens after those that are kept; gives their hidden states, which the caller frees. */
  forward(tokens: readonly number[]): Tensor
  dispose(): void
}

export interface MemoryOptions {
  /** Tokens at most; the model's context by default. */
  readonly capacity?: number
  readonly cache?: CacheScheme
  /** A cache that holds tokens already, which the memory takes over. */
  readonly held?: { readonly cache: Cache; readonly tokens: readonly number[] }
}

export function createMemory(decoder: Decoder, options: MemoryOptions = {}): Memory {
  const { capacity = decoder.config.context, held } = options
  const cache = held?.cache ?? decoder.cache(capacity, options.cache)
  const tokens = [...(held?.tokens ?? [])]
  return {
    cache,
    tokens,
    rewind(prompt) {
      const most = Math.min(tokens.length, prompt.length - 1)
      let shared = 0
      while (shared < most && tokens[shared] === prompt[shared]) shared++
      cache.truncate(shared)
      tokens.length = cache.length
      return cache.length
    },
    forward(more) {
      const hidden = decoder.forward(more, cache)
      tokens.push(...more)
      return hidden
    },
    dispose: () => cache.dispose(),
  }
}

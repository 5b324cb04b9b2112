/** A whole model in memory, ready to run. */

import type {
  Cache,
  CacheScheme,
  CacheShape,
  Checkpoint,
  Kernels,
  LoadOptions,
  Tensor,
} from '@lowbit/core'
import { LowbitError } from '@lowbit/core'
import { fullCache } from '../generation/full-cache.ts'
import { attendCached, type Block, type BlockContext, normalize, runBlock } from './block.ts'
import type { DecoderConfig } from './config.ts'
import { observed } from './identity.ts'
import {
  loadBlock,
  loadEmbedding,
  loadFinalNorm,
  loadHead,
  loadRope,
  openDecoder,
  unloadBlock,
} from './load.ts'
import { ropeTable } from './rope-table.ts'

export interface Decoder {
  readonly config: DecoderConfig
  readonly kernels: Kernels
  /** Bytes of weights in the kernels' memory. */
  readonly bytes: number
  /** The digest of config.json and of samples of all tensors: whether a saved cache is this model's. */
  identity(): Promise<string>
  /** What a cache must know of the model, … */
  readonly cacheShape: Omit<CacheShape, 'capacity'>
  /** … and an empty one for `capacity` tokens. */
  cache(capacity: number, scheme?: CacheScheme): Cache
  /**
   * Runs new tokens after those in the cache; gives the final norm's output, [tokens, hidden], which the
   * caller frees.
   */
  forward(tokens: ArrayLike<number>, cache: Cache): Tensor
  /** Logits of rows of hidden states, [rows, vocabulary], which the caller frees. */
  logits(hidden: Tensor): Tensor
  dispose(): void
}

export interface LoadDecoderOptions extends LoadOptions {
  /** Called after each loaded block. */
  readonly onProgress?: (done: number, total: number) => void | Promise<void>
  readonly signal?: AbortSignal
}

/** What a cache must know of a model. */
export function cacheShapeOf(config: DecoderConfig): Omit<CacheShape, 'capacity'> {
  const { layers, keyValueHeads, headSize, context } = config
  return {
    ...{ layers, keyValueHeads, headSize, context },
    rope: (positions) => ropeTable(config, positions),
  }
}

/** Reads every tensor of a checkpoint once and repacks it for the kernels. */
export async function loadDecoder(
  checkpoint: Checkpoint,
  kernels: Kernels,
  options: LoadDecoderOptions = {},
): Promise<Decoder> {
  const seen = observed(checkpoint)
  const opened = openDecoder(seen.checkpoint, kernels)
  const { config } = opened
  const cacheShape = cacheShapeOf(config)
  const before = kernels.bytes
  const embedding = await loadEmbedding(opened, options)
  const head = await loadHead(opened, embedding, options)
  const finalNorm = await loadFinalNorm(opened)
  const blocks: Block[] = []
  for (let layer = 0; layer < config.layers; layer++) {
    options.signal?.throwIfAborted()
    blocks.push(await loadBlock(opened, layer, options))
    await options.onProgress?.(layer + 1, config.layers)
  }
  const bytes = kernels.bytes - before
  let positions = Math.min(config.context, 2048)
  let angles = loadRope(opened, positions)

  /** Rope tables grow with the context that is really used. */
  function context(needed: number): BlockContext {
    if (needed > config.context) {
      throw new LowbitError(
        'context-too-long',
        `${needed} tokens are more than the model's context of ${config.context}`,
        { option: 'context' },
      )
    }
    if (needed > positions) {
      kernels.free(angles.cos, angles.sin)
      positions = Math.min(config.context, Math.max(needed, 2 * positions))
      angles = loadRope(opened, positions)
    }
    return { kernels, config, ...angles }
  }

  return {
    config,
    kernels,
    bytes,
    identity: seen.identity,
    cacheShape,
    cache(capacity, scheme = fullCache()) {
      return scheme.create(kernels, { ...cacheShape, capacity })
    },
    forward(tokens, cache) {
      const ids = Uint32Array.from(tokens)
      const bad = ids.find((id) => id >= config.vocabulary)
      if (bad !== undefined) {
        throw new LowbitError(
          'bad-token',
          `token ${bad} is outside the vocabulary of ${config.vocabulary}`,
        )
      }
      const here = context(cache.length + ids.length)
      const x = kernels.tensor(ids.length, config.hidden)
      kernels.gather(x, embedding, ids)
      blocks.forEach((block, layer) => {
        runBlock(here, block, x, attendCached(here, cache, layer))
      })
      cache.advance(ids.length)
      const out = kernels.tensor(ids.length, config.hidden)
      normalize(here, out, x, finalNorm)
      kernels.free(x)
      return out
    },
    logits(hidden) {
      const out = kernels.tensor(hidden.rows, config.vocabulary)
      kernels.matmul(out, hidden, head)
      return out
    },
    dispose() {
      for (const block of blocks) unloadBlock(kernels, block)
      if (head !== embedding) kernels.unload(head)
      kernels.unload(embedding)
      kernels.free(finalNorm.gain, angles.cos, angles.sin)
      if (finalNorm.bias) kernels.free(finalNorm.bias)
    },
  }
}

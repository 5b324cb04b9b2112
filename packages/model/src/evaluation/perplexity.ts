/** Perplexity over non-overlapping windows, and the divergence from a reference model on the way. */

import { type CacheScheme, LowbitError, type Tensor } from '@lowbit/core'
import type { Decoder } from '../decoder/decoder.ts'

export interface PerplexityOptions {
  /** Tokens of a window; every position of it but the first is scored. */
  readonly context: number
  /** Windows to score at most; all by default. */
  readonly windows?: number
  /** Another model with the same vocabulary: mean KL(reference ‖ model) over all positions. */
  readonly reference?: Decoder
  /**
   * How keys and values are kept. The text is scored as it would be generated, each token from the cache of those
   * before it; as many run at once as the cache says come to the same, or `step`. The reference keeps its own in full.
   */
  readonly cache?: CacheScheme
  readonly step?: number
  readonly signal?: AbortSignal
  /** Called after each window; a promise is waited for. */
  readonly onProgress?: (
    done: number,
    total: number,
    perplexitySoFar: number,
  ) => void | Promise<void>
}

export interface PerplexityResult {
  readonly perplexity: number
  /** Scored tokens. */
  readonly tokens: number
  readonly windows: number
  /** Nats per token; only with a reference. */
  readonly kl?: number
  /** The reference's own perplexity on the same text. */
  readonly referencePerplexity?: number
}

/** Rows of logits that are in memory at a time. */
const LOGIT_ROWS = 128

export async function perplexity(
  decoder: Decoder,
  tokens: ArrayLike<number>,
  options: PerplexityOptions,
): Promise<PerplexityResult> {
  const { context, reference } = options
  if (context < 2)
    throw new LowbitError('bad-option', 'a window needs at least 2 tokens', { option: 'context' })
  if (tokens.length < context) {
    throw new LowbitError(
      'text-too-short',
      `the text has ${tokens.length} tokens, one window needs ${context}; use a longer text or a smaller --context`,
      { option: 'text' },
    )
  }
  if (reference && reference.config.vocabulary !== decoder.config.vocabulary) {
    throw new LowbitError('bad-option', 'the reference has another vocabulary', {
      option: 'reference',
    })
  }
  const windows = Math.min(
    options.windows ?? Number.POSITIVE_INFINITY,
    Math.floor(tokens.length / context),
  )
  let loss = 0
  let referenceLoss = 0
  let kl = 0
  for (let w = 0; w < windows; w++) {
    options.signal?.throwIfAborted()
    const window = Array.prototype.slice.call(tokens, w * context, (w + 1) * context) as number[]
    const part = await scoreWindow(decoder, window, options)
    loss += part.loss
    referenceLoss += part.referenceLoss
    kl += part.kl
    await options.onProgress?.(w + 1, windows, Math.exp(loss / ((w + 1) * (context - 1))))
  }
  const scored = windows * (context - 1)
  return {
    perplexity: Math.exp(loss / scored),
    tokens: scored,
    windows,
    ...(reference && {
      kl: kl / (windows * context),
      referencePerplexity: Math.exp(referenceLoss / scored),
    }),
  }
}

async function scoreWindow(
  decoder: Decoder,
  window: number[],
  { reference, cache, step }: PerplexityOptions,
): Promise<{ loss: number; referenceLoss: number; kl: number }> {
  const hidden = cache ? steppedStates(decoder, window, cache, step) : hiddenStates(decoder, window)
  const other = reference && hiddenStates(reference, window)
  let loss = 0
  let referenceLoss = 0
  let kl = 0
  for (let from = 0; from < window.length; from += LOGIT_ROWS) {
    const to = Math.min(window.length, from + LOGIT_ROWS)
    // The last position has nothing to predict; its loss is computed on a stand-in and left out.
    const targets = Uint32Array.from({ length: to - from }, (_, i) => window[from + i + 1] ?? 0)
    const scored = Math.min(to, window.length - 1) - from
    const logits = rowLogits(decoder, hidden, from, to)
    loss += await sumLoss(decoder, logits, targets, scored)
    if (reference && other) {
      const expected = rowLogits(reference, other, from, to)
      referenceLoss += await sumLoss(reference, expected, targets, scored)
      kl += await sumDivergence(decoder, reference, expected, logits)
      reference.kernels.free(expected)
    }
    decoder.kernels.free(logits)
  }
  decoder.kernels.free(hidden)
  if (reference && other) reference.kernels.free(other)
  return { loss, referenceLoss, kl }
}

function hiddenStates(decoder: Decoder, window: readonly number[]): Tensor {
  const cache = decoder.cache(window.length)
  const hidden = decoder.forward(window, cache)
  cache.dispose()
  return hidden
}

/** The same with a cache that loses something, a few tokens at a time. */
function steppedStates(
  decoder: Decoder,
  window: readonly number[],
  scheme: CacheScheme,
  step: number | undefined,
): Tensor {
  const { kernels, config } = decoder
  const cache = decoder.cache(window.length, scheme)
  const hidden = kernels.tensor(window.length, config.hidden)
  try {
    for (let from = 0; from < window.length; ) {
      const count = step ?? Math.min(cache.steady, LOGIT_ROWS)
      const some = decoder.forward(window.slice(from, from + count), cache)
      kernels.copy(kernels.rows(hidden, from, from + some.rows), some)
      from += some.rows
      kernels.free(some)
    }
  } finally {
    cache.dispose()
  }
  return hidden
}

function rowLogits(decoder: Decoder, hidden: Tensor, from: number, to: number): Tensor {
  return decoder.logits(decoder.kernels.rows(hidden, from, to))
}

async function sumLoss(
  { kernels }: Decoder,
  logits: Tensor,
  targets: Uint32Array,
  scored: number,
): Promise<number> {
  const out = kernels.tensor(logits.rows, 1)
  kernels.crossEntropy(out, logits, targets)
  const losses = await kernels.read(out)
  kernels.free(out)
  return losses.subarray(0, scored).reduce((sum, x) => sum + x, 0)
}

/** On the model's kernels; logits of a reference on other kernels are carried over. */
async function sumDivergence(
  decoder: Decoder,
  reference: Decoder,
  expected: Tensor,
  logits: Tensor,
): Promise<number> {
  const { kernels } = decoder
  const here =
    reference.kernels === kernels
      ? expected
      : kernels.upload(await reference.kernels.read(expected), expected.rows, expected.columns)
  const out = kernels.tensor(logits.rows, 1)
  kernels.divergence(out, here, logits)
  const values = await kernels.read(out)
  kernels.free(out, ...(here === expected ? [] : [here]))
  return values.reduce((sum, x) => sum + x, 0)
}

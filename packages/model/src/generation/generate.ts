import type { CacheScheme } from '@lowbit/core'
import { LowbitError, seededRandom } from '@lowbit/core'
import type { Decoder } from '../decoder/decoder.ts'
import { createMemory, type Memory } from './memory.ts'

export interface GenerateOptions {
  /** New tokens at most. */
  readonly maxTokens?: number
  /** 0 (default) always takes the likeliest token. */
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly seed?: number
  /** Tokens that end the text; they are not part of it. */
  readonly stop?: readonly number[]
  readonly cache?: CacheScheme
  /** What earlier prompts have left, in place of `cache`: the beginning that they share is not run again. */
  readonly memory?: Memory
  readonly signal?: AbortSignal
  /** Called with each new token; a promise is waited for, so that a worker can hear that it is to stop. */
  readonly onToken?: (token: number) => void | Promise<void>
}

export interface Generation {
  readonly tokens: number[]
  readonly promptTokens: number
  /** Tokens of the prompt that the memory held already. */
  readonly reusedTokens: number
  /** Seconds until the first new token was known. */
  readonly prefillSeconds: number
  /** Seconds for all further tokens. */
  readonly decodeSeconds: number
  /** What ended it. */
  readonly reason: 'stop' | 'length' | 'aborted'
}

/** How many prompt tokens go through the model at once: bounds the memory of activations. */
const PROMPT_CHUNK = 512

/** Continues a prompt token by token. */
export async function generate(
  decoder: Decoder,
  prompt: readonly number[],
  options: GenerateOptions = {},
): Promise<Generation> {
  const { kernels, config } = decoder
  if (prompt.length === 0)
    throw new LowbitError('bad-option', 'the prompt is empty', { option: 'prompt' })
  if (prompt.length >= config.context) {
    throw new LowbitError(
      'context-too-long',
      `the prompt has ${prompt.length} tokens, the model's context is ${config.context}`,
      { option: 'prompt' },
    )
  }
  const most = Math.min(options.maxTokens ?? 128, config.context - prompt.length)
  const random = seededRandom(options.seed ?? 0)
  const memory =
    options.memory ??
    createMemory(decoder, { capacity: prompt.length + most, cache: options.cache })
  const tokens: number[] = []
  const started = performance.now()
  let firstAt = started
  let reason: Generation['reason'] = 'length'
  let reusedTokens = 0
  try {
    reusedTokens = memory.rewind(prompt)
    let hidden = memory.forward(prompt.slice(reusedTokens, reusedTokens + PROMPT_CHUNK))
    for (let from = reusedTokens + PROMPT_CHUNK; from < prompt.length; from += PROMPT_CHUNK) {
      kernels.free(hidden)
      hidden = memory.forward(prompt.slice(from, from + PROMPT_CHUNK))
    }
    for (;;) {
      const logits = decoder.logits(kernels.rows(hidden, hidden.rows - 1, hidden.rows))
      kernels.free(hidden)
      const token = await kernels.sample(logits, {
        temperature: options.temperature ?? 0,
        topK: options.topK ?? 0,
        topP: options.topP ?? 1,
        random: random(),
      })
      kernels.free(logits)
      if (tokens.length === 0) firstAt = performance.now()
      if (options.stop?.includes(token)) {
        reason = 'stop'
        break
      }
      tokens.push(token)
      await options.onToken?.(token)
      if (tokens.length >= most) break
      if (options.signal?.aborted) {
        reason = 'aborted'
        break
      }
      hidden = memory.forward([token])
    }
  } finally {
    if (!options.memory) memory.dispose()
  }
  return {
    tokens,
    promptTokens: prompt.length,
    reusedTokens,
    prefillSeconds: (firstAt - started) / 1000,
    decodeSeconds: (performance.now() - firstAt) / 1000,
    reason,
  }
}

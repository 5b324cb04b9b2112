/** Two models on one text: perplexity of both, and the divergence between them. */

import type { CacheScheme } from '@lowbit/core'
import {
  createMemory,
  type Decoder,
  fitCacheToText,
  generate,
  loadDecoder,
  loadTokenizer,
  type Memory,
  perplexity,
  type Tokenizer,
} from '@lowbit/model'
import { makeCache } from '@lowbit/pipeline'
import { CACHE_SCHEMES } from '../plugins.ts'
import { demoText } from './demo.ts'
import { openKernels } from './kernels.ts'
import { openModel } from './models.ts'
import type { CacheSection, ChatAnswer, Comparison, DeviceName, ModelSource } from './protocol.ts'

interface Loaded {
  readonly decoder: Decoder
  readonly tokenizer: Tokenizer
  /** What the last question has left, and the cache that it was asked with. */
  remembered?: { readonly cache: string; readonly memory: Memory }
  /** A scheme that was fitted to the model, and what to. */
  fitted?: { readonly cache: string; readonly scheme: CacheScheme }
}

/** Models in memory, by what they were opened from: a chat asks the same ones again and again. */
const loaded = new Map<string, Promise<Loaded>>()

/** An opened model that is asked for: ModelFacts has it. */
export interface Opening {
  readonly opening: string
  readonly source: ModelSource
}

const keyOf = ({ opening }: Opening, device: DeviceName): string => `${opening} ${device}`

/** Lets go of models that are not among these. */
async function keepOnly(keys: readonly string[]): Promise<void> {
  for (const [key, model] of loaded) {
    if (keys.includes(key)) continue
    loaded.delete(key)
    const { decoder } = await model
    decoder.dispose()
    decoder.kernels.dispose()
  }
}

function load(
  model: Opening,
  device: DeviceName,
  onProgress: (what: string, done: number) => void,
): Promise<Loaded> {
  const key = keyOf(model, device)
  let loading = loaded.get(key)
  if (!loading) {
    loading = loadNow(model.source, device, onProgress)
    loaded.set(key, loading)
    loading.catch(() => loaded.delete(key))
  }
  return loading
}

async function loadNow(
  source: ModelSource,
  device: DeviceName,
  onProgress: (what: string, done: number) => void,
): Promise<Loaded> {
  const { name, checkpoint } = await openModel(source)
  const kernels = await openKernels(device, false)
  const tokenizer = await loadTokenizer(checkpoint)
  const decoder = await loadDecoder(checkpoint, kernels, {
    onProgress: (done, total) => onProgress(`loading ${name}`, done / total),
  })
  await checkpoint.close()
  return { decoder, tokenizer }
}

export interface CompareRequest {
  readonly original: Opening
  readonly quantized: Opening
  readonly device: DeviceName
  /** The demo's evaluation text where it is left out. */
  readonly text?: string
  /** Windows at most. */
  readonly windows: number
  /** Tokens of a window at most. */
  readonly context: number
}

export async function compareModels(
  request: CompareRequest,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<Comparison> {
  const { original, quantized, device, windows } = request
  await keepOnly([keyOf(original, device), keyOf(quantized, device)])
  const reference = await load(original, device, onProgress)
  const { decoder, tokenizer } = await load(quantized, device, onProgress)
  const tokens = tokenizer.encode(request.text ?? (await demoText('evaluation')))
  const context = Math.min(request.context, decoder.config.context, tokens.length)
  const found = await perplexity(decoder, tokens, {
    ...{ context, windows, reference: reference.decoder, signal },
    async onProgress(done, total) {
      onProgress(`window ${done} of ${total}`, done / total)
      await new Promise((resolve) => setTimeout(resolve))
    },
  })
  return {
    perplexity: found.perplexity,
    referencePerplexity: found.referencePerplexity ?? Number.NaN,
    kl: found.kl ?? Number.NaN,
    tokens: found.tokens,
  }
}

/** Milliseconds. */
const SHOWN_EVERY = 60

export interface ChatRequest {
  readonly model: Opening
  /** All models that go on being asked: others are let go. */
  readonly keep: readonly Opening[]
  readonly device: DeviceName
  /** How keys and values are kept; in full where it is left out. */
  readonly cache?: CacheSection
  /** What schemes that learn are fitted to; the demo's calibration text where it is left out. */
  readonly cacheText?: string
  readonly prompt: string
  readonly asMessage: boolean
  readonly maxTokens: number
  readonly temperature: number
}

export async function answer(
  request: ChatRequest,
  onText: (tokens: readonly string[]) => void,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<ChatAnswer> {
  const { model, keep, device, prompt, maxTokens, temperature } = request
  await keepOnly([model, ...keep].map((one) => keyOf(one, device)))
  const asking = await load(model, device, onProgress)
  const { decoder, tokenizer } = asking
  const asked = request.asMessage
    ? tokenizer.applyTemplate([{ role: 'user', content: prompt }])
    : prompt
  const cache = JSON.stringify([request.cache ?? {}, request.cacheText ?? ''])
  const memory = await takeMemory(asking, request, cache, onProgress, signal)
  const ids: number[] = []
  let shown = performance.now()
  const { decodeSeconds, prefillSeconds, reusedTokens, tokens } = await generate(
    decoder,
    tokenizer.encode(asked),
    {
      ...{ maxTokens, temperature, stop: tokenizer.stop, signal, memory },
      async onToken(token) {
        ids.push(token)
        if (performance.now() - shown < SHOWN_EVERY) return
        shown = performance.now()
        onText(pieces(tokenizer, ids))
        // A word from the page, to stop, comes in between.
        await new Promise((resolve) => setTimeout(resolve))
      },
    },
  ).catch((error: unknown) => {
    memory.dispose()
    throw error
  })
  asking.remembered = { cache, memory }
  return {
    text: tokenizer.decode(tokens),
    tokens: pieces(tokenizer, tokens),
    tokensPerSecond: decodeSeconds > 0 ? (tokens.length - 1) / decodeSeconds : 0,
    prefillSeconds,
    reusedTokens,
  }
}

/** The memory of the last question where it was asked with the same cache; it comes back when the answer is whole. */
async function takeMemory(
  asking: Loaded,
  { cache: section, cacheText: text }: ChatRequest,
  cache: string,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<Memory> {
  const { remembered, decoder, tokenizer } = asking
  asking.remembered = undefined
  if (remembered?.cache === cache) return remembered.memory
  remembered?.memory.dispose()
  const scheme = makeCache({ cache: section }, CACHE_SCHEMES)
  if (!scheme?.fit) return createMemory(decoder, { cache: scheme })
  if (asking.fitted?.cache !== cache) {
    const learnt = text ?? (await demoText('calibration'))
    asking.fitted = {
      cache,
      scheme: await fitCacheToText(decoder, tokenizer, scheme, learnt, {
        signal,
        async onProgress(done, total) {
          onProgress(`fitting ${scheme.name}`, done / total)
          await new Promise((resolve) => setTimeout(resolve))
        },
      }),
    }
  }
  return createMemory(decoder, { cache: asking.fitted.scheme })
}

/** The text cut where tokens end: a character of several tokens belongs to the last of them. */
function pieces(tokenizer: Tokenizer, tokens: readonly number[]): string[] {
  const out: string[] = []
  let before = ''
  for (let i = 1; i <= tokens.length; i++) {
    const text = tokenizer.decode(tokens.slice(0, i))
    const whole = text.endsWith('\ufffd') && i < tokens.length ? before : text
    out.push(whole.slice(before.length))
    before = whole
  }
  return out
}

/** Zero-shot tasks, scored by likelihood as lm-evaluation-harness does. */

import { LowbitError } from '@lowbit/core'
import type { Decoder } from '../decoder/decoder.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'

/** One item: contexts and continuations of which one pair is right; a single pair is right when greedy decoding gives it. */
export interface TaskItem {
  readonly pairs: readonly { readonly context: string; readonly continuation: string }[]
  readonly answer: number
}

export interface TaskResult {
  readonly task: string
  readonly items: number
  /** Share of items whose likeliest pair is the right one (or whose only continuation is the greedy one). */
  readonly accuracy: number
  /** The same with each log-likelihood divided by the continuation's length in bytes; choices only. */
  readonly normalizedAccuracy?: number
}

/** Log-likelihood of a continuation, and whether greedy decoding would give it. */
export async function continuationScore(
  decoder: Decoder,
  context: readonly number[],
  continuation: readonly number[],
): Promise<{ logLikelihood: number; greedy: boolean }> {
  const { kernels, config } = decoder
  const all = [...context, ...continuation].slice(-config.context)
  const from = all.length - continuation.length - 1
  if (from < 0) throw new LowbitError('text-too-short', 'a continuation needs a context before it')
  const cache = decoder.cache(all.length)
  const hidden = decoder.forward(all.slice(0, -1), cache)
  cache.dispose()
  const logits = decoder.logits(kernels.rows(hidden, from, all.length - 1))
  kernels.free(hidden)
  const out = kernels.tensor(logits.rows, 1)
  kernels.crossEntropy(out, logits, Uint32Array.from(continuation))
  const losses = await kernels.read(out)
  let greedy = true
  for (let i = 0; i < continuation.length && greedy; i++) {
    const best = await kernels.sample(kernels.rows(logits, i, i + 1), {
      temperature: 0,
      topK: 0,
      topP: 1,
      random: 0,
    })
    greedy = best === continuation[i]
  }
  kernels.free(out, logits)
  return { logLikelihood: -losses.reduce((sum, x) => sum + x, 0), greedy }
}

export interface TaskOptions {
  readonly limit?: number
  readonly signal?: AbortSignal
  readonly onProgress?: (done: number, total: number) => void
}

export async function scoreTask(
  decoder: Decoder,
  tokenizer: Tokenizer,
  task: string,
  items: readonly TaskItem[],
  options: TaskOptions = {},
): Promise<TaskResult> {
  const used = items.slice(0, options.limit ?? items.length)
  if (used.length === 0)
    throw new LowbitError('bad-option', 'the task has no items', { option: 'task' })
  let right = 0
  let normalizedRight = 0
  for (const [i, item] of used.entries()) {
    options.signal?.throwIfAborted()
    const scores = []
    for (const { context, continuation } of item.pairs) {
      const tokens = splitTokens(tokenizer, context, continuation)
      const score = await continuationScore(decoder, tokens.context, tokens.continuation)
      scores.push({ ...score, perByte: score.logLikelihood / byteLength(continuation) })
    }
    if (scores.length === 1) {
      if (scores[0].greedy) right++
    } else {
      if (largest(scores.map((score) => score.logLikelihood)) === item.answer) right++
      if (largest(scores.map((score) => score.perByte)) === item.answer) normalizedRight++
    }
    options.onProgress?.(i + 1, used.length)
  }
  const choice = used[0].pairs.length > 1
  return {
    task,
    items: used.length,
    accuracy: right / used.length,
    ...(choice && { normalizedAccuracy: normalizedRight / used.length }),
  }
}

/** Tokens of the whole text, cut where the context ends: tokenizers may merge across the seam. */
function splitTokens(
  tokenizer: Tokenizer,
  context: string,
  continuation: string,
): { context: number[]; continuation: number[] } {
  const whole = tokenizer.encode(context + continuation)
  const length = Math.min(tokenizer.encode(context).length, whole.length - 1)
  return { context: whole.slice(0, length), continuation: whole.slice(length) }
}

/**
 * Reads a task from JSON lines. Three shapes are known: `{query, choices, gold}` (PIQA, ARC),
 * `{context_options, continuation, gold}` (WinoGrande), `{context, continuation}` (LAMBADA).
 */
export function parseTask(text: string, file: string): TaskItem[] {
  return text.split('\n').flatMap((line, number) => {
    if (line.trim() === '') return []
    const bad = (what: string): never => {
      throw new LowbitError('bad-task', `line ${number + 1}: ${what}`, { file })
    }
    let row: Record<string, unknown>
    try {
      row = JSON.parse(line) as Record<string, unknown>
    } catch {
      return bad('is not JSON')
    }
    const answer = Number(row.gold ?? 0)
    const texts = (value: unknown): string[] =>
      Array.isArray(value) && value.every((x) => typeof x === 'string')
        ? value
        : bad('has no texts')
    if (typeof row.query === 'string' && row.choices !== undefined) {
      const query = row.query.trimEnd()
      const context = query.startsWith('Question:') ? `${query}\nAnswer:` : query
      return [
        { pairs: texts(row.choices).map((x) => ({ context, continuation: ` ${x}` })), answer },
      ]
    }
    if (typeof row.continuation !== 'string') return bad('has neither choices nor a continuation')
    const continuation = ` ${row.continuation}`
    if (typeof row.context === 'string') {
      return [{ pairs: [{ context: row.context, continuation }], answer: 0 }]
    }
    return [
      { pairs: texts(row.context_options).map((context) => ({ context, continuation })), answer },
    ]
  })
}

const byteLength = (text: string): number => new TextEncoder().encode(text).length

function largest(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0)
}

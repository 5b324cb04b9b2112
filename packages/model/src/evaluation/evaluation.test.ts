import type { Kernels } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { demoFolder, readDemoText } from '@lowbit/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { calibrationWindows } from '../calibration/windows.ts'
import { type Decoder, loadDecoder } from '../decoder/decoder.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts'
import { continuationScore, parseTask, scoreTask } from './choices.ts'
import { perplexity } from './perplexity.ts'

let kernels: Kernels
let decoder: Decoder
let tokenizer: Tokenizer
let tokens: number[]

beforeAll(async () => {
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  kernels = await cpu({ threads: 2, strict: false })
  decoder = await loadDecoder(checkpoint, kernels)
  tokenizer = await loadTokenizer(checkpoint)
  tokens = tokenizer.encode(await readDemoText('evaluation'))
  await checkpoint.close()
})
afterAll(() => kernels.dispose())

it('perplexity of the first 8 windows is what transformers gives: 15.6298', async () => {
  const result = await perplexity(decoder, tokens, { context: 512, windows: 8 })
  expect(result.perplexity).toBeCloseTo(15.6298, 3)
  expect(result).toMatchObject({ tokens: 8 * 511, windows: 8 })
})

it('the divergence from itself is 0', async () => {
  const result = await perplexity(decoder, tokens, { context: 64, windows: 2, reference: decoder })
  expect(result.kl).toBeCloseTo(0, 6)
  expect(result.referencePerplexity).toBeCloseTo(result.perplexity, 6)
})

it('a text shorter than a window, and a window of one token, are refused', async () => {
  await expect(perplexity(decoder, tokens.slice(0, 10), { context: 64 })).rejects.toThrow(
    /10 tokens.*64/,
  )
  await expect(perplexity(decoder, tokens, { context: 1 })).rejects.toThrow(/at least 2/)
})

it('leaves nothing behind in the kernels’ memory', async () => {
  const before = kernels.bytes
  await perplexity(decoder, tokens, { context: 32, windows: 1, reference: decoder })
  expect(kernels.bytes).toBe(before)
})

it('a continuation’s likelihood is the sum over its tokens', async () => {
  const context = tokenizer.encode('And it came to pass')
  const continuation = tokenizer.encode(', that when the people saw it')
  const whole = await continuationScore(decoder, context, continuation)
  let sum = 0
  for (let i = 0; i < continuation.length; i++) {
    const part = await continuationScore(
      decoder,
      [...context, ...continuation.slice(0, i)],
      [continuation[i]],
    )
    sum += part.logLikelihood
  }
  expect(whole.logLikelihood).toBeCloseTo(sum, 3)
  expect(whole.greedy).toBe(true)
})

it('tasks in their three shapes are read and scored', async () => {
  const lines = [
    {
      query: 'In the beginning God created the',
      choices: ['heaven and the earth.', 'spoon zebra.'],
      gold: 0,
    },
    {
      context_options: ['And Jesus answered and', 'Purple spoon'],
      continuation: 'said unto them',
      gold: 0,
    },
    { context: 'In the beginning God created the heaven and the', continuation: 'earth' },
  ]
  const accuracies = []
  for (const line of lines) {
    const items = parseTask(`${JSON.stringify(line)}\n`, 'task.jsonl')
    accuracies.push((await scoreTask(decoder, tokenizer, 'task', items)).accuracy)
  }
  expect(accuracies).toEqual([1, 1, 1])
  expect(() => parseTask('{"a": 1}', 'task.jsonl')).toThrow(/line 1.*task.jsonl/)
  expect(() => parseTask('{', 'task.jsonl')).toThrow(/not JSON/)
})

it('calibration windows: whole ones, one short one from a short text, none is an error', () => {
  expect(calibrationWindows([1, 2, 3, 4, 5], 8, 2)).toEqual([
    [1, 2],
    [3, 4],
  ])
  expect(calibrationWindows([1, 2, 3], 8, 10)).toEqual([[1, 2, 3]])
  expect(() => calibrationWindows([], 8, 10)).toThrow(/no tokens/)
})

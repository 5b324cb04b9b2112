/** Prompts that begin alike. */

import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { demoFolder } from '@lowbit/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Decoder, loadDecoder } from '../decoder/decoder.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts'
import { generate } from './generate.ts'
import { createMemory } from './memory.ts'

const kernels = await cpu({ threads: 1 })
let decoder: Decoder
let tokenizer: Tokenizer

beforeAll(async () => {
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  decoder = await loadDecoder(checkpoint, kernels)
  tokenizer = await loadTokenizer(checkpoint)
})
afterAll(() => kernels.dispose())

it('runs only what a prompt does not share, with the same answers', async () => {
  const memory = createMemory(decoder)
  const asked = [
    'And it came to pass in those days, that',
    'And it came to pass in the morning',
    'And it came to pass in the morning',
    'The king',
  ]
  const reused: number[] = []
  for (const text of asked) {
    const prompt = tokenizer.encode(text)
    const fresh = await generate(decoder, prompt, { maxTokens: 12 })
    const again = await generate(decoder, prompt, { maxTokens: 12, memory })
    expect(again.tokens).toEqual(fresh.tokens)
    expect(fresh.reusedTokens).toBe(0)
    expect(memory.tokens).toEqual([...prompt, ...again.tokens.slice(0, -1)])
    reused.push(again.reusedTokens)
  }
  const [first, second] = asked.map((text) => tokenizer.encode(text))
  const shared = first.findIndex((token, i) => token !== second[i])
  expect(shared).toBeGreaterThan(3)
  expect(reused).toEqual([0, shared, second.length - 1, 0])
  memory.dispose()
})

it('goes on where an answer has ended', async () => {
  const memory = createMemory(decoder)
  const prompt = tokenizer.encode('And it came')
  const { tokens } = await generate(decoder, prompt, { maxTokens: 6, memory })
  const longer = [...prompt, ...tokens]
  const { reusedTokens } = await generate(decoder, longer, { maxTokens: 1, memory })
  expect(reusedTokens).toBe(longer.length - 1)
  memory.dispose()
})

it('tells models apart, and one model from itself by nothing', async () => {
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const again = await loadDecoder(checkpoint, kernels)
  const other = await loadDecoder(
    {
      ...checkpoint,
      async readVector(name) {
        const vector = await checkpoint.readVector(name)
        return name.includes('layers.3')
          ? { ...vector, values: vector.values.map((x) => x * 1.01) }
          : vector
      },
    },
    kernels,
  )
  expect(await again.identity()).toBe(await decoder.identity())
  expect(await other.identity()).not.toBe(await decoder.identity())
  again.dispose()
  other.dispose()
})

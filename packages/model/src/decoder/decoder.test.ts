import { type Checkpoint, type Kernels, LowbitError } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { openSafetensors } from '@lowbit/safetensors'
import { demoFolder, readDemoLogits, referenceKernels } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generate } from '../generation/generate.ts'
import { loadTokenizer } from '../tokenizer/tokenizer.ts'
import { decoderConfig } from './config.ts'
import { type Decoder, loadDecoder } from './decoder.ts'

let checkpoint: Checkpoint
beforeAll(async () => {
  checkpoint = await openFolder(nodeFolder(demoFolder()))
})
afterAll(() => checkpoint.close())

describe.each([
  ['reference', () => Promise.resolve(referenceKernels())],
  ['cpu, strict', () => cpu({ threads: 1, strict: true })],
  ['cpu, relaxed, 2 threads', () => cpu({ threads: 2, strict: false })],
])('the demo on %s', (_, make: () => Promise<Kernels>) => {
  let kernels: Kernels
  let decoder: Decoder
  beforeAll(async () => {
    kernels = await make()
    decoder = await loadDecoder(checkpoint, kernels)
  })
  afterAll(() => kernels.dispose())

  it('gives the logits of transformers in float32', async () => {
    const file = await openSafetensors(await readDemoLogits())
    const ids = new BigInt64Array((await file.read('input_ids')).slice().buffer)
    const expected = new Float32Array((await file.read('logits')).slice().buffer)
    const cache = decoder.cache(ids.length)
    const hidden = decoder.forward(Array.from(ids, Number), cache)
    const logits = decoder.logits(hidden)
    const got = await kernels.read(logits)
    const worst = got.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i])), 0)
    expect(worst).toBeLessThan(1e-3)
    kernels.free(hidden, logits)
    cache.dispose()
  })

  it('continues greedily as transformers does', async () => {
    const tokenizer = await loadTokenizer(checkpoint)
    const prompt = tokenizer.encode('And it came to pass')
    const { tokens, reason } = await generate(decoder, prompt, { maxTokens: 40 - prompt.length })
    expect(tokenizer.decode(tokens)).toBe(
      ', that when the people saw it, they said, He is not able to go into the land of the Canaanites, and to the land of Canaan, and to'.slice(
        0,
        tokenizer.decode(tokens).length,
      ),
    )
    expect(tokens.length).toBe(40 - prompt.length)
    expect(reason).toBe('length')
  })

  it('gives the same in one go, token by token, and in uneven parts', async () => {
    const tokens = [5, 100, 2000, 7, 7, 300, 41, 9]
    const last = async (parts: readonly number[]): Promise<Float32Array> => {
      const cache = decoder.cache(tokens.length)
      let at = 0
      let out = new Float32Array()
      for (const size of parts) {
        const hidden = decoder.forward(tokens.slice(at, at + size), cache)
        out = (await kernels.read(kernels.rows(hidden, size - 1, size))).slice()
        kernels.free(hidden)
        at += size
      }
      cache.dispose()
      return out
    }
    const whole = await last([8])
    for (const parts of [
      [1, 1, 1, 1, 1, 1, 1, 1],
      [3, 1, 4],
      [7, 1],
    ]) {
      const other = await last(parts)
      other.forEach((x, i) => {
        expect(Math.abs(x - whole[i])).toBeLessThan(1e-4)
      })
    }
  })

  it('refuses tokens outside the vocabulary and contexts that are too long', () => {
    const cache = decoder.cache(600)
    expect(() => decoder.forward([2048], cache)).toThrow(/2048 is outside the vocabulary/)
    expect(() => decoder.forward(new Array(513).fill(1), cache)).toThrow(/context of 512/)
    cache.dispose()
    const small = decoder.cache(2)
    expect(() => decoder.forward([1, 2, 3], small)).toThrow(/holds 2 tokens, 3 are needed/)
    small.dispose()
  })
})

describe('config.json', () => {
  const good = {
    model_type: 'llama',
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 128,
    vocab_size: 100,
  }
  it('fills in what older files leave out', () => {
    const config = decoderConfig(good)
    expect(config).toMatchObject({
      headSize: 16,
      ropeTheta: 10_000,
      tied: false,
      activation: 'silu',
    })
  })
  it('reads rope_parameters of newer files', () => {
    const config = decoderConfig({
      ...good,
      rope_parameters: {
        rope_theta: 5e5,
        rope_type: 'llama3',
        factor: 8,
        original_max_position_embeddings: 8192,
      },
    })
    expect(config).toMatchObject({ ropeTheta: 5e5, ropeScaling: { type: 'llama3', factor: 8 } })
  })
  it.each([
    [{ sliding_window: 32 }, 32],
    [{ sliding_window: 32, use_sliding_window: false }, 128],
    [{ sliding_window: null }, 128],
    [{ sliding_window: 4096 }, 128],
  ])('%o: a context of %i', (change, context) => {
    expect(decoderConfig({ ...good, ...change }).context).toBe(context)
  })
  it.each([
    [{ model_type: 'mamba' }, /mamba.*it runs: llama/],
    [{ hidden_size: -3 }, /hidden_size/],
    [{ hidden_size: 63 }, /even size/],
    [{ num_key_value_heads: 3 }, /can't share 3/],
    [{ num_hidden_layers: 1e9 }, /num_hidden_layers/],
    [{ sliding_window: -1 }, /sliding_window/],
    [{ hidden_act: 'sine' }, /hidden_act sine/],
    [{ rope_scaling: { type: 'yarn' } }, /yarn is not supported/],
  ])('refuses %o', (change, message) => {
    expect(() => decoderConfig({ ...good, ...change })).toThrow(message)
    expect(() => decoderConfig({ ...good, ...change })).toThrow(LowbitError)
  })
})

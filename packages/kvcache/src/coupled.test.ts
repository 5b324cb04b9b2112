/** Coupled channels: what codebooks learn, what they refuse, and what they lose on the demo. */

import { type CacheSample, type CacheScheme, LowbitError, seededRandom } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import {
  calibrationWindows,
  fitCache,
  fullCache,
  loadDecoder,
  loadTokenizer,
  perplexity,
} from '@lowbit/model'
import { demoFolder, randomValues, readDemoText } from '@lowbit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { cq, fitCodebook, int8, loadCache, saveCache } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const shape = { layers: 2, keyValueHeads: 2, headSize: 16, capacity: 300 }
const WIDTH = 32

/** Keys and values of so many tokens, of a few kinds with some noise. */
function numbersOf(tokens: number, seed: number): Float32Array {
  const [kinds, random] = [randomValues(40 * WIDTH, seededRandom(7)), seededRandom(seed)]
  return Float32Array.from({ length: tokens * WIDTH }, (_, i) => {
    const kind = (Math.floor(i / WIDTH) * 13 + seed) % 40
    return kinds[kind * WIDTH + (i % WIDTH)] + 0.05 * (random() - 0.5)
  })
}

const sample = (tokens: number, seed: number): CacheSample => ({
  numbers: numbersOf(tokens, seed),
  width: WIDTH,
})

const fitted = (scheme: CacheScheme, seed = 1): Promise<CacheScheme> =>
  scheme.fit!(kernels, shape, async (layer) => ({
    keys: [sample(300, seed + layer), sample(90, seed + 9)],
    values: [sample(300, seed + 20 + layer)],
  }))

/** What attention puts out behind `tokens` tokens that came in chunks. */
async function outputs(cache: ReturnType<CacheScheme['create']>, chunks: readonly number[]) {
  const found: number[] = []
  for (const [i, n] of chunks.entries()) {
    const [k, v, q] = [1, 2, 3].map((j) => kernels.upload(numbersOf(n, 50 + i + j), n, WIDTH))
    const out = kernels.tensor(n, WIDTH)
    for (let layer = 0; layer < shape.layers; layer++) {
      cache.append(layer, k, v)
      cache.attend(layer, out, q, { heads: 2, keyValueHeads: 2, headSize: 16, scale: 0.25 })
      found.push(...(await kernels.read(out)))
    }
    cache.advance(n)
    kernels.free(k, v, q, out)
  }
  return found
}

const CHUNKS = [60, 1, 1, 40, 3, 1, 20, 1]

describe('codebooks', () => {
  it('are the vectors that there are, where there are no more than entries', async () => {
    const numbers = randomValues(200 * 8, seededRandom(2))
    const before = kernels.bytes
    const found = await fitCodebook(kernels, [{ numbers, width: 8 }], 4)
    expect(kernels.bytes).toBe(before)
    expect(found.length).toBe(2 * 256 * 4)
    const entries = new Set(
      Array.from({ length: 512 }, (_, i) => [...found.subarray(4 * i, 4 * i + 4)].join()),
    )
    for (let at = 0; at < numbers.length; at += 4) {
      expect(entries.has([...numbers.subarray(at, at + 4)].join())).toBe(true)
    }
  })

  it('come nearer to vectors that count more, and leave out first tokens', async () => {
    const numbers = randomValues(600 * 8, seededRandom(3))
    numbers.fill(1e6, 0, 8 * 4)
    const weights = numbers.map((_, i) => (i < 300 * 8 ? 100 : 1))
    const off = (found: Float32Array): number => {
      let sum = 0
      for (let at = 4 * 8; at < 300 * 8; at += 8) {
        const distances = Array.from({ length: 256 }, (_, code) =>
          found
            .subarray(8 * code, 8 * code + 8)
            .reduce((a, x, i) => a + (x - numbers[at + i]) ** 2, 0),
        )
        sum += Math.min(...distances)
      }
      return sum
    }
    const alike = await fitCodebook(kernels, [{ numbers, width: 8 }], 8, 4)
    const weighted = await fitCodebook(kernels, [{ numbers, weights, width: 8 }], 8, 4)
    expect(off(weighted)).toBeLessThan(0.5 * off(alike))
    expect(Math.max(...alike)).toBeLessThan(100)
    const none = fitCodebook(kernels, [{ numbers: numbers.subarray(0, 32), width: 8 }], 8, 4)
    await expect(none).rejects.toThrow(/more than 4 tokens/)
  })
})

describe.each([2, 1])('cq of %i bits', (bits) => {
  it('is the full cache in the window, and near to it beyond', async () => {
    const whole = fullCache().create(kernels, shape)
    const expected = await outputs(whole, CHUNKS)
    whole.dispose()
    const off = async (window: number): Promise<number> => {
      const before = kernels.bytes
      const cache = (await fitted(cq({ bits, window }))).create(kernels, shape)
      const found = await outputs(cache, CHUNKS)
      cache.dispose()
      expect(kernels.bytes).toBe(before)
      return Math.max(...found.map((x, i) => Math.abs(x - expected[i])))
    }
    expect(await off(1000)).toBeLessThan(1e-6)
    const [near, far] = [await off(64), await off(0)]
    expect(far).toBeGreaterThan(1e-4)
    expect(Math.max(near, far)).toBeLessThan(0.2)
  })

  it('says what it takes', async () => {
    const scheme = await fitted(cq({ bits, window: 0, sinks: 0 }))
    const { bytes } = scheme.size(shape, 256)
    const codebooks = 2 * 2 * WIDTH * 256 * 4
    expect(bytes).toBe(codebooks + (256 * 2 * 2 * WIDTH * bits) / 8)
    expect(cq({ bits, window: 0, sinks: 0 }).size(shape, 256).bytes).toBe(bytes)
  })
})

it('goes on as if it had never been saved, with its own codebooks alone', async () => {
  const scheme = await fitted(cq({ window: 16 }))
  const origin = { kernels, model: 'a model', scheme, shape }
  const cache = scheme.create(kernels, shape)
  await outputs(cache, CHUNKS)
  const bytes = await saveCache(cache, new Array(cache.length).fill(5), origin)
  const loaded = await loadCache(bytes, { ...origin, capacity: 300 })
  expect(await outputs(loaded.cache, [1, 40, 1])).toEqual(await outputs(cache, [1, 40, 1]))
  cache.truncate(50)
  expect((await outputs(cache, [3])).every(Number.isFinite)).toBe(true)
  loaded.cache.dispose()
  cache.dispose()
  const again = { ...origin, scheme: await fitted(cq({ window: 16 })), capacity: 300 }
  ;(await loadCache(bytes, again)).cache.dispose()
  const other = { ...again, scheme: await fitted(cq({ window: 16 }), 2) }
  await expect(loadCache(bytes, other)).rejects.toThrow(/is a cache of cq .*, not of cq/)
})

it('refuses to be used before it is fitted, and for another model', async () => {
  expect(() => cq().create(kernels, shape)).toThrow(/is fitted to a model before it is used/)
  const scheme = await fitted(cq())
  for (const other of [{ layers: 3 }, { keyValueHeads: 1 }]) {
    expect(() => scheme.create(kernels, { ...shape, ...other })).toThrow(/fitted to another model/)
  }
  expect(() => cq({ bits: 3 })).toThrow(LowbitError)
})

describe('on the demo', () => {
  it('loses little at 2 bits and more at 1', async () => {
    const checkpoint = await openFolder(nodeFolder(demoFolder()))
    const decoder = await loadDecoder(checkpoint, kernels)
    const tokenizer = await loadTokenizer(checkpoint)
    const windows = calibrationWindows(
      tokenizer.encode((await readDemoText('calibration')).slice(0, 8000)),
      4,
      256,
    )
    const tokens = tokenizer.encode((await readDemoText('evaluation')).slice(0, 4000)).slice(0, 256)
    const options = { context: 256, windows: 1, reference: decoder }
    const steps: string[] = []
    const losses: number[] = []
    for (const bits of [2, 1]) {
      const scheme = await fitCache(decoder, cq({ bits, window: 16 }), windows, {
        onProgress: (done, total) => void steps.push(`${done} of ${total}`),
      })
      losses.push((await perplexity(decoder, tokens, { ...options, cache: scheme })).kl ?? 0)
    }
    expect(losses[0]).toBeGreaterThan(1e-6)
    expect(losses[0]).toBeLessThan(0.01)
    expect(losses[1]).toBeGreaterThan(losses[0])
    expect(losses[1]).toBeLessThan(0.03)
    expect(steps.slice(0, 5)).toEqual([1, 2, 3, 4, 4].map((done) => `${done} of 10`))
    const same = int8()
    expect(await fitCache(decoder, same, windows)).toBe(same)
    decoder.dispose()
  })
})

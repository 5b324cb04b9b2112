/** Caches to bytes and back, and everything that must not come back. */

import { type CacheLayout, type CacheScheme, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { fullCache } from '@lowbit/model'
import { openSafetensors, writeSafetensors } from '@lowbit/safetensors'
import { randomValues } from '@lowbit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { CACHE_SCHEMES, f16, int4, int8, kivi, loadCache, saveCache } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const shape = { layers: 2, keyValueHeads: 1, headSize: 16, context: 1000 }
const capacity = 400
const model = 'a model'

async function step(cache: ReturnType<CacheScheme['create']>, n: number, seed: number) {
  const random = seededRandom(seed)
  const found: number[] = []
  for (let layer = 0; layer < shape.layers; layer++) {
    const tensors = [16, 16, 32].map((width) =>
      kernels.upload(randomValues(n * width, random), n, width),
    )
    const out = kernels.tensor(n, 32)
    cache.append(layer, tensors[0], tensors[1])
    cache.attend(layer, out, tensors[2], { heads: 2, keyValueHeads: 1, headSize: 16, scale: 0.25 })
    found.push(...(await kernels.read(out)))
    kernels.free(...tensors, out)
  }
  cache.advance(n)
  return found
}

async function filled(scheme: CacheScheme, tokens: number) {
  const cache = scheme.create(kernels, { ...shape, capacity })
  await step(cache, 50, 1)
  for (let i = 50; i < tokens; i++) await step(cache, 1, i)
  return { cache, tokens: Array.from({ length: tokens }, (_, i) => i * 7) }
}

const some = int8({ window: 40, group: 16 })

async function savedBytes(scheme: CacheScheme = some, tokens = 150): Promise<Uint8Array> {
  const { cache, tokens: ids } = await filled(scheme, tokens)
  const bytes = await saveCache(cache, ids, { kernels, model, scheme, shape })
  cache.dispose()
  return bytes
}

const SCHEMES: readonly (readonly [string, CacheScheme])[] = [
  ['full', fullCache()],
  ...CACHE_SCHEMES.map((make) => {
    const options = make === f16 ? { window: 40 } : { window: 40, group: 16 }
    return [make.name, make(options as never)] as const
  }),
  ['a sliding one', int4({ window: 32, slide: 64, group: 16 })],
  ['one that codes nothing', kivi({ window: 32, slide: 32 })],
]

it.each(SCHEMES)('%s goes on as if it had never been saved', async (_, scheme) => {
  for (const count of [50, 150]) {
    const { cache, tokens } = await filled(scheme, count)
    const origin = { kernels, model, scheme, shape }
    const bytes = await saveCache(cache, tokens, origin)
    const loaded = await loadCache(bytes, { ...origin, capacity })
    expect(loaded.tokens).toEqual(tokens)
    expect(loaded.cache.length).toBe(count)
    for (const n of [1, 20, 1, 1, 40, 1]) {
      expect(await step(loaded.cache, n, n)).toEqual(await step(cache, n, n))
    }
    loaded.cache.dispose()
    cache.dispose()
  }
})

it('is as large as what it holds', async () => {
  const [eight, two] = [
    await savedBytes(int8({ group: 16 }), 390),
    await savedBytes(kivi({ window: 0, group: 16 }), 390),
  ]
  expect(two.length).toBeLessThan(0.6 * eight.length)
  expect(eight.length).toBeLessThan(390 * 16 * 2 * shape.layers * 2)
})

describe('refuses', () => {
  const origin = { kernels, model, scheme: some, shape, capacity }

  it.each([
    ['another model', { model: 'another' }, /another model/],
    ['another shape', { shape: { ...shape, layers: 3 } }, /another model/],
    [
      'another scheme',
      { scheme: int4({ window: 40, group: 16 }) },
      /cache of int8 .*, not of int4/,
    ],
    ['other options', { scheme: int8({ window: 41, group: 16 }) }, /"window":40.*"window":41/],
    ['less room', { capacity: 149 }, /holds 150 tokens; there is room for 149/],
  ])('%s', async (_, change, message) => {
    const before = kernels.bytes
    const bytes = await savedBytes()
    await expect(loadCache(bytes, { ...origin, ...change })).rejects.toThrow(message)
    expect(kernels.bytes).toBe(before)
  })

  it('another version', async () => {
    const file = await openSafetensors(await savedBytes())
    const entries = [...file.tensors.values()].map(({ name, dtype, shape }) => ({
      ...{ name, dtype, shape },
      data: () => file.read(name),
    }))
    const metadata = { ...Object.fromEntries(file.metadata), version: '2' }
    const parts: number[] = []
    for await (const part of writeSafetensors(entries, { metadata })) parts.push(...part)
    await expect(loadCache(Uint8Array.from(parts), origin)).rejects.toThrow(
      /version 2; this lowbit reads version 1/,
    )
  })

  it('one cut short, anywhere', async () => {
    const bytes = await savedBytes()
    for (const length of [0, 7, 8, 100, 2000, bytes.length >> 1, bytes.length - 1]) {
      await expect(loadCache(bytes.slice(0, length), origin)).rejects.toThrow(/damaged/)
    }
  })

  it('a flipped bit, anywhere', async () => {
    const bytes = await savedBytes()
    let accepted = 0
    for (let at = 0; at < bytes.length; at += 97) {
      bytes[at] ^= 1 << (at % 8)
      const cache = await loadCache(bytes, origin).catch(() => undefined)
      if (cache) accepted++
      bytes[at] ^= 1 << (at % 8)
    }
    expect(bytes.length).toBeGreaterThan(20_000)
    expect(accepted).toBe(0)
    bytes[bytes.length - 5] ^= 4
    await expect(loadCache(bytes, origin)).rejects.toThrow(/damaged: its checksum/)
  })

  it('any other file', async () => {
    const parts: number[] = []
    for await (const part of writeSafetensors([])) parts.push(...part)
    await expect(loadCache(Uint8Array.from(parts), origin)).rejects.toThrow(/no saved cache/)
  })

  it('tokens that are not in the cache', async () => {
    const { cache } = await filled(some, 60)
    await expect(saveCache(cache, [1, 2], origin)).rejects.toThrow(/60 tokens is not .* 2/)
    cache.dispose()
  })

  it('a layout that its scheme never has', async () => {
    const cache = some.create(kernels, { ...shape, capacity })
    const layouts: CacheLayout[] = [
      { length: 100, coded: 31, forgotten: 32 },
      { length: 100, coded: 128, forgotten: 0 },
      { length: 100 },
    ]
    for (const layout of layouts) {
      expect(() => cache.prepare(layout)).toThrow(/kept as/)
    }
    cache.dispose()
  })

  it('a window longer than the context, by name', () => {
    const make = () => kivi({ window: 1001 }).create(kernels, { ...shape, capacity })
    expect(make).toThrow(/window of 1001 tokens is longer than the model's context of 1000/)
  })
})

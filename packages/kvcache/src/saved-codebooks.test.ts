/** Codebooks to bytes and back, and everything that must not come back. */

import { type CacheSample, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { openSafetensors, writeSafetensors } from '@lowbit/safetensors'
import { randomValues } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cq, int8, loadCodebooks, saveCodebooks } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const shape = { layers: 2, keyValueHeads: 1, headSize: 16 }
const model = 'a model'
const origin = { model, shape, scheme: cq({ bits: 1, window: 8 }) }

const sample = (seed: number): CacheSample[] => [
  { numbers: randomValues(300 * 16, seededRandom(seed)), width: 16 },
]
const fit = () =>
  origin.scheme.fit!(kernels, shape, async (layer) => ({
    keys: sample(layer),
    values: sample(layer + 10),
  }))

let bytes: Uint8Array
beforeAll(async () => {
  bytes = await saveCodebooks({ ...origin, scheme: await fit() })
})

/** The values of a cache's tensors behind 60 tokens. */
async function kept(scheme: typeof origin.scheme): Promise<number[][]> {
  const cache = scheme.create(kernels, { ...shape, capacity: 64 })
  const x = kernels.upload(randomValues(60 * 16, seededRandom(4)), 60, 16)
  for (let layer = 0; layer < shape.layers; layer++) cache.append(layer, x, x)
  cache.advance(60)
  const found: number[][] = []
  for (const tensor of cache.parts().values()) {
    if (tensor.type === 'u32') found.push([...(await kernels.readWords(tensor))])
  }
  cache.dispose()
  kernels.free(x)
  return found
}

it('are the same again, in any window, and have the same name', async () => {
  const [fitted, loaded] = [await fit(), await loadCodebooks(bytes, origin)]
  expect(loaded.options).toEqual(fitted.options)
  const codes = await kept(loaded)
  expect(codes.flat().some((word) => word !== 0)).toBe(true)
  expect(codes).toEqual(await kept(fitted))
  const wide = await loadCodebooks(bytes, {
    ...origin,
    scheme: cq({ bits: 1, window: 32, sinks: 0 }),
  })
  expect(wide.options).toMatchObject({ window: 32, codebooks: fitted.options.codebooks })
  expect(await saveCodebooks({ ...origin, scheme: loaded })).toEqual(bytes)
})

describe('refuses', () => {
  it.each([
    ['another model', { model: 'another' }, /fitted to another model/],
    ['another shape', { shape: { ...shape, layers: 3 } }, /fitted to another model/],
    ['another scheme', { scheme: int8() }, /codebooks of cq .*, not of int8/],
    ['other bits', { scheme: cq() }, /"bits":1.*"bits":2/],
    ['other positions', { scheme: cq({ bits: 1, positions: 'before' }) }, /"behind".*"before"/],
  ])('%s', async (_, change, message) => {
    const loading = loadCodebooks(bytes, { ...origin, ...change }, 'books.safetensors')
    await expect(loading).rejects.toMatchObject({
      ...{ code: 'bad-cache', message: expect.stringMatching(message) },
    })
    await expect(loading).rejects.toThrow(/^books.safetensors: /)
  })

  it('another version, and any other file', async () => {
    const file = await openSafetensors(bytes)
    const entries = [...file.tensors.values()].map(({ name, dtype, shape }) => ({
      ...{ name, dtype, shape },
      data: () => file.read(name),
    }))
    for (const [change, message] of [
      [{ version: '2' }, /version 2; this lowbit reads version 1/],
      [{ format: 'lowbit-cache' }, /is no file of a cache’s codebooks/],
    ] as const) {
      const metadata = { ...Object.fromEntries(file.metadata), ...change }
      const parts: number[] = []
      for await (const part of writeSafetensors(entries, { metadata })) parts.push(...part)
      await expect(loadCodebooks(Uint8Array.from(parts), origin)).rejects.toThrow(message)
    }
  })

  it('one cut short or with a flipped bit, anywhere', async () => {
    for (const length of [0, 7, 8, 100, 2000, bytes.length >> 1, bytes.length - 1]) {
      await expect(loadCodebooks(bytes.slice(0, length), origin)).rejects.toThrow(/damaged/)
    }
    let accepted = 0
    for (let at = 0; at < bytes.length; at += 499) {
      const damaged = bytes.map((byte, i) => (i === at ? byte ^ (1 << (at % 8)) : byte))
      if (await loadCodebooks(damaged, origin).catch(() => undefined)) accepted++
    }
    expect(bytes.length).toBeGreaterThan(60_000)
    expect(accepted).toBe(0)
  })

  it('to save what was never fitted', async () => {
    await expect(saveCodebooks(origin)).rejects.toThrow(/no codebooks/)
  })
})

/** Keys that are coded before RoPE. */

import { type CacheScheme, type CacheShape, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { fullCache } from '@lowbit/model'
import { randomValues } from '@lowbit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { cq, int4, kivi, loadCache, saveCache } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const HALF = 8
const WIDTH = 32
const shape: CacheShape = {
  ...{ layers: 2, keyValueHeads: 2, headSize: 2 * HALF, capacity: 300 },
  rope(positions) {
    const angles = Float32Array.from({ length: positions * HALF }, (_, i) =>
      Math.fround(Math.floor(i / HALF) / 10 ** ((i % HALF) / 2)),
    )
    return { cos: angles.map(Math.cos), sin: angles.map(Math.sin) }
  },
}

/** Feeds tokens that have all but the same key before RoPE and one of five values, and gives what attention puts out. */
async function fed(cache: ReturnType<CacheScheme['create']>, chunks: readonly number[]) {
  const random = seededRandom(cache.length + 3)
  const key = randomValues(WIDTH, seededRandom(1))
  const kinds = randomValues(5 * WIDTH, seededRandom(2))
  const { cos, sin } = shape.rope!(shape.capacity)
  const angles = [cos, sin].map((values) => kernels.upload(values, shape.capacity, HALF))
  const found: number[] = []
  for (const n of chunks) {
    const raw = Float32Array.from(
      { length: n * WIDTH },
      (_, i) => key[i % WIDTH] + 0.01 * (random() - 0.5),
    )
    const k = kernels.upload(raw, n, WIDTH)
    kernels.rope(k, angles[0], angles[1], 2 * HALF, cache.length)
    const mixed = Float32Array.from({ length: n * WIDTH }, (_, i) => {
      const kind = (cache.length + Math.floor(i / WIDTH)) % 5
      return kinds[kind * WIDTH + (i % WIDTH)]
    })
    const v = kernels.upload(mixed, n, WIDTH)
    const q = kernels.upload(randomValues(n * WIDTH, random), n, WIDTH)
    const out = kernels.tensor(n, WIDTH)
    for (let layer = 0; layer < shape.layers; layer++) {
      cache.append(layer, k, v)
      cache.attend(layer, out, q, { heads: 2, keyValueHeads: 2, headSize: 16, scale: 0.5 })
      found.push(...(await kernels.read(out)))
    }
    cache.advance(n)
    kernels.free(k, v, q, out)
  }
  kernels.free(...angles)
  return found
}

const CHUNKS = [70, 1, 1, 60, 3, 1, 20, 1]

/** How far a scheme is from the full cache; squares. */
async function apart(scheme: CacheScheme): Promise<number> {
  const before = kernels.bytes
  const [full, cache] = [fullCache(), scheme].map((each) => each.create(kernels, shape))
  const expected = await fed(full, CHUNKS)
  const found = await fed(cache, CHUNKS)
  for (const each of [full, cache]) each.dispose()
  expect(kernels.bytes).toBe(before)
  return found.reduce((sum, x, i) => sum + (x - expected[i]) ** 2, 0)
}

describe.each(['hadamard', 'none'] as const)('rotation %s', (rotation) => {
  it('keys that are alike before RoPE lose next to nothing then', async () => {
    const rest = { bits: 8, rotation, window: 8, group: 16 } as const
    const [behind, before] = [
      await apart(kivi({ ...rest, bits: 2 })),
      await apart(kivi({ ...rest, bits: 2, positions: 'before' })),
    ]
    expect(before).toBeLessThan(0.9 * behind)
    expect(await apart(kivi({ ...rest, positions: 'before' }))).toBeLessThan(0.02)
    expect(await apart(kivi({ ...rest, window: 200, positions: 'before' }))).toBeLessThan(1e-6)
    const [int4Behind, int4Before] = [
      await apart(int4({ rotation, window: 8 })),
      await apart(int4({ rotation, window: 8, positions: 'before' })),
    ]
    expect(int4Before).toBeLessThan(1.5 * int4Behind)
  })

  it('are cut anywhere, and go on as they were', async () => {
    const scheme = kivi({ bits: 8, rotation, window: 8, group: 16, positions: 'before' })
    const [full, cache] = [fullCache(), scheme].map((each) => each.create(kernels, shape))
    await fed(full, [150])
    await fed(cache, [150])
    for (const to of [140, 101, 40, 3]) {
      full.truncate(to)
      cache.truncate(to)
      const [expected, found] = [await fed(full, [5]), await fed(cache, [5])]
      const off = Math.max(...found.map((x, i) => Math.abs(x - expected[i])))
      expect(off, `cut at ${to}`).toBeLessThan(0.03)
    }
    full.dispose()
    cache.dispose()
  })
})

it('go on as if they had never been saved', async () => {
  const scheme = kivi({ window: 8, group: 16, positions: 'before' })
  const origin = { kernels, model: 'a model', scheme, shape }
  const cache = scheme.create(kernels, shape)
  await fed(cache, CHUNKS)
  const bytes = await saveCache(cache, new Array(cache.length).fill(5), origin)
  const loaded = await loadCache(bytes, { ...origin, capacity: 300 })
  expect(await fed(loaded.cache, [1, 40, 1])).toEqual(await fed(cache, [1, 40, 1]))
  loaded.cache.dispose()
  cache.dispose()
  const behind = { ...origin, scheme: kivi({ window: 8, group: 16 }), capacity: 300 }
  await expect(loadCache(bytes, behind)).rejects.toThrow(/"before".* not of .*"behind"/)
})

it('codebooks are fitted to keys as they are coded', async () => {
  const cache = fullCache().create(kernels, shape)
  await fed(cache, [200])
  const samples = async (layer: number) => {
    const [keys, values] = await Promise.all(
      ['keys', 'values'].map(async (name) => [
        {
          numbers: (await kernels.read(cache.parts().get(`${layer}.${name}`)!)).slice(),
          width: WIDTH,
        },
      ]),
    )
    return { keys, values }
  }
  const fitted = (positions: 'before' | 'behind') =>
    cq({ window: 8, positions }).fit!(kernels, shape, samples)
  const [behind, before] = [
    await apart(await fitted('behind')),
    await apart(await fitted('before')),
  ]
  cache.dispose()
  expect(before).toBeLessThan(behind)
})

it('refuses what it cannot turn', async () => {
  expect(() => kivi({ slide: 160, positions: 'before' }).create(kernels, shape)).toThrow(
    /set slide to 0/,
  )
  const { rope: _, ...without } = shape
  expect(() => kivi({ positions: 'before' }).create(kernels, without)).toThrow(
    /set positions to behind/,
  )
  const [less, more] = (['behind', 'before'] as const).map(
    (positions) => kivi({ positions }).size(shape, 300).bytes,
  )
  expect(more - less).toBe(3 * 300 * HALF * 4)
})

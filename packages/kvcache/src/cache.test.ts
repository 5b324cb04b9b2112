/** Caches in few bits against the full one: on random heads, and on the demo. */

import { type Cache, type CacheScheme, LowbitError, seededRandom } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import {
  type Decoder,
  fullCache,
  generate,
  loadDecoder,
  loadTokenizer,
  perplexity,
} from '@lowbit/model'
import { demoFolder, randomValues, readDemoText } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CACHE_SCHEMES, f16, fp8, int4, int8, kivi } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const SHAPE = { layers: 2, keyValueHeads: 2, headSize: 16, capacity: 400 }
const HEADS = 4
const WIDTH = 32

/** Feeds chunks of these sizes and gives what each attention put out. */
async function outputs(
  scheme: CacheScheme,
  chunks: readonly number[],
  seed = 1,
): Promise<Float32Array[]> {
  const before = kernels.bytes
  const random = seededRandom(seed)
  const cache = scheme.create(kernels, SHAPE)
  const found: Float32Array[] = []
  for (const n of chunks) {
    for (let layer = 0; layer < SHAPE.layers; layer++)
      found.push(await step(cache, layer, n, random))
    cache.advance(n)
  }
  cache.dispose()
  expect(kernels.bytes).toBe(before)
  return found
}

async function step(cache: Cache, layer: number, n: number, random: () => number) {
  const tensors = [WIDTH, WIDTH, HEADS * 16].map((width) =>
    kernels.upload(randomValues(n * width, random), n, width),
  )
  const [k, v, q] = tensors
  const out = kernels.tensor(n, HEADS * 16)
  cache.append(layer, k, v)
  cache.attend(layer, out, q, { heads: HEADS, keyValueHeads: 2, headSize: 16, scale: 0.25 })
  const values = (await kernels.read(out)).slice()
  kernels.free(...tensors, out)
  return values
}

const apart = (a: readonly Float32Array[], b: readonly Float32Array[]): number => {
  let [error, power] = [0, 0]
  for (const [i, values] of a.entries()) {
    for (let j = 0; j < values.length; j++) {
      error += (values[j] - b[i][j]) ** 2
      power += b[i][j] ** 2
    }
  }
  return error / power
}

const CODED = CACHE_SCHEMES.filter((plugin) => plugin !== f16)

const CHUNKS = [70, 1, 1, 90, 3, 1, 1, 1, 40, 100, 1, 1]

describe.each(CODED.map((plugin) => [plugin.name, plugin] as const))('%s', (_, plugin) => {
  it('is the full cache while all is in the window, through any chunks', async () => {
    const scheme = plugin({ window: 1000, group: 16 } as never)
    expect(apart(await outputs(scheme, CHUNKS), await outputs(fullCache(), CHUNKS))).toBeLessThan(
      1e-9,
    )
  })

  it('loses as much as its bits say, and less with a window', async () => {
    const full = await outputs(fullCache(), CHUNKS)
    const bare = apart(await outputs(plugin({ window: 0, group: 16 } as never), CHUNKS), full)
    const kept = apart(await outputs(plugin({ window: 150, group: 16 } as never), CHUNKS), full)
    const bits = Number(/\d/.exec(plugin.name)?.[0] ?? 2)
    expect(bare).toBeLessThan({ 8: 2e-3, 4: 0.03, 3: 0.1, 2: 0.6 }[bits]!)
    expect(bare).toBeGreaterThan(1e-9)
    expect(kept).toBeLessThan(bare)
  })

  it('forgets and goes on', async () => {
    const random = seededRandom(4)
    const cache = plugin({ window: 40, group: 16 } as never).create(kernels, SHAPE)
    const run = async (n: number) => {
      const found = [await step(cache, 0, n, random), await step(cache, 1, n, random)]
      cache.advance(n)
      return found
    }
    await run(200)
    for (const to of [190, 100, 50, 3, 0]) {
      cache.truncate(to)
      expect(cache.length).toBe(to)
      const [out] = await run(5)
      expect(out.every(Number.isFinite)).toBe(true)
    }
    cache.dispose()
  })
})

describe('sliding', () => {
  /** Attention over the sinks and what of the newest is kept, by plain loops over all that was fed. */
  async function expected(chunks: readonly number[], kept: (length: number) => number[]) {
    const random = seededRandom(1)
    const [keys, values]: [number[][], number[][]] = [[], []]
    let out: number[] = []
    for (const n of chunks) {
      const fed = [WIDTH, WIDTH, HEADS * 16].map((width) => randomValues(n * width, random))
      const rows = (x: Float32Array, width: number) =>
        Array.from({ length: n }, (_, i) => [...x.subarray(i * width, (i + 1) * width)])
      const seen = kept(keys.length)
      keys.push(...rows(fed[0], WIDTH))
      values.push(...rows(fed[1], WIDTH))
      const here = [...seen, keys.length - 1]
      const q = rows(fed[2], HEADS * 16)[n - 1]
      out = Array.from({ length: HEADS }, (_, head) => {
        const [from, at] = [head * 16, Math.floor(head / 2) * 16]
        const part = (x: number[], i: number) => x.slice(i, i + 16)
        const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0)
        const e = here.map((t) => Math.exp(dot(part(q, from), part(keys[t], at)) / 4))
        const sum = e.reduce((a, b) => a + b)
        const shares = e.map((x) => x / sum)
        return Array.from({ length: 16 }, (_, d) =>
          here.reduce((all, t, i) => all + shares[i] * values[t][at + d], 0),
        )
      }).flat()
    }
    return Float32Array.from(out)
  }

  it.each([
    [{ window: 0, slide: 64 }, 64],
    [{ window: 32, slide: 96 }, 96],
    [{ window: 64, slide: 64 }, 64],
    [{ window: 100, slide: 1 }, 100],
  ])('%j attends over the sinks and the newest', async (options, least) => {
    const scheme = int8({ ...options, sinks: 3, group: 16 })
    const single = { ...SHAPE, layers: 1 }
    const cache = scheme.create(kernels, single)
    const random = seededRandom(1)
    const chunks = [...new Array<number>(300).fill(1), 40, 1, 7, 1, 1]
    let got = new Float32Array()
    for (const n of chunks) {
      got = (await step(cache, 0, n, random)) as Float32Array<ArrayBuffer>
      cache.advance(n)
    }
    // In batches of 32: between `least` and 31 more are kept.
    const kept = (length: number) => {
      const gone = Math.max(0, Math.floor((length - 3 - least) / 32) * 32)
      return Array.from({ length }, (_, i) => i).filter((i) => i < 3 || i >= 3 + gone)
    }
    const wanted = await expected(chunks, kept)
    expect(cache.length).toBe(350)
    expect(apart([got], [wanted])).toBeLessThan(2e-3)
    expect(got.length).toBe(wanted.length)
    const held = cache.bytes
    for (let i = 0; i < 50; i++) {
      await step(cache, 0, 1, random)
      cache.advance(1)
    }
    expect(cache.bytes).toBe(held)
    cache.truncate(399)
    expect(cache.length).toBe(0)
    cache.dispose()
  })
})

it('takes memory as tokens come', async () => {
  const cache = int8().create(kernels, { ...SHAPE, capacity: 1_000_000 })
  const sizes = [cache.bytes]
  const random = seededRandom(6)
  for (let i = 0; i < 6; i++) {
    for (const layer of [0, 1]) await step(cache, layer, 100, random)
    cache.advance(100)
    sizes.push(cache.bytes)
  }
  const dense = 600 * WIDTH * 4 * 2 * SHAPE.layers
  expect(sizes[6]).toBeGreaterThan(sizes[1])
  expect(sizes[6]).toBeLessThan(dense)
  cache.dispose()
})

it.each([
  ['full', fullCache()],
  ['kivi', kivi({ bits: 3, window: 40 })],
  ['fp8', fp8()],
  ['sliding', int4({ window: 10, slide: 90 })],
])('%s knows beforehand what it will hold', async (_, scheme) => {
  const cache = scheme.create(kernels, SHAPE)
  const random = seededRandom(6)
  for (let n = 0; n < 250; n++) {
    const held = [...cache.parts()]
    const of = (part: string) => held.filter(([name]) => name.endsWith(part))
    const bytes = held.reduce((sum, [, { rows, columns, type }]) => {
      return sum + rows * columns * { f32: 4, u32: 4, u16: 2, u8: 1 }[type]
    }, 0)
    const rows = (part: string) => of(part).reduce((sum, [, tensor]) => sum + tensor.rows, 0)
    const size = scheme.size(SHAPE, n)
    expect(size.bytes).toBe(bytes)
    expect(size.codedNumbers).toBe(rows('.codes') * WIDTH)
    expect(size.tokens * 4).toBe(rows('.keys') + rows('.values') + rows('.codes'))
    for (const layer of [0, 1]) await step(cache, layer, 1, random)
    cache.advance(1)
  }
  cache.dispose()
})

it('a cut cache attends as one that never saw more', async () => {
  const make = () => int8({ window: 16, sinks: 2 }).create(kernels, SHAPE)
  const [cut, plain] = [make(), make()]
  for (const cache of [cut, plain]) {
    const random = seededRandom(8)
    for (const n of [100, 1, 1]) {
      for (const layer of [0, 1]) await step(cache, layer, n, random)
      cache.advance(n)
    }
  }
  const random = seededRandom(9)
  for (const layer of [0, 1]) await step(cut, layer, 60, random)
  cut.advance(60)
  cut.truncate(102)
  const [a, b] = [await step(cut, 0, 2, seededRandom(5)), await step(plain, 0, 2, seededRandom(5))]
  expect(apart([a], [b])).toBeLessThan(1e-4)
  cut.dispose()
  plain.dispose()
})

it('f16 loses what halves lose, and takes half the memory', async () => {
  const lost = apart(await outputs(f16(), CHUNKS), await outputs(fullCache(), CHUNKS))
  expect(lost).toBeGreaterThan(1e-9)
  expect(lost).toBeLessThan(1e-6)
  const bytes = [8192, 4096].map((tokens) => f16().size(SHAPE, tokens).bytes)
  expect(bytes[0] - bytes[1]).toBe(4096 * WIDTH * 2 * 2 * SHAPE.layers)
})

describe('refuses', () => {
  it('more tokens than it holds, by name', async () => {
    const cache = kivi().create(kernels, { ...SHAPE, capacity: 10 })
    await expect(step(cache, 0, 11, seededRandom(1))).rejects.toThrow(
      /holds 10 tokens, 11 are needed/,
    )
    cache.dispose()
  })

  it.each([
    [{ group: 12 }, /groups of 12/],
    [{ group: 24, rotation: 'none' }, /divide heads of 16|groups of 24|multiple of 8/],
    [{ bits: 5 }, /bits/],
    [{ window: -1 }, /window/],
  ])('%j', (options, message) => {
    expect(() => {
      const cache = kivi(options as never).create(kernels, {
        ...SHAPE,
        headSize: 40,
        keyValueHeads: 1,
      })
      cache.dispose()
    }).toThrow(message)
  })

  it('a rotation of heads that are no power of two', () => {
    const shape = { ...SHAPE, headSize: 24 }
    const make = () => kivi({ rotation: 'hadamard', group: 8 }).create(kernels, shape)
    expect(make).toThrow(LowbitError)
    expect(make).toThrow(/power of two, not of 24/)
  })
})

describe('on the demo', () => {
  let decoder: Decoder
  let tokens: number[]
  let prompt: number[]
  let full = 0

  beforeAll(async () => {
    const checkpoint = await openFolder(nodeFolder(demoFolder()))
    decoder = await loadDecoder(checkpoint, kernels)
    const tokenizer = await loadTokenizer(checkpoint)
    tokens = tokenizer.encode((await readDemoText('evaluation')).slice(0, 8000))
    prompt = tokenizer.encode('And it came to pass')
    full = (await perplexity(decoder, tokens, { context: 256, windows: 2 })).perplexity
  })

  it('the full cache, a token at a time, scores as the whole window at once', async () => {
    const stepped = await perplexity(decoder, tokens, {
      context: 256,
      windows: 2,
      cache: fullCache(),
      step: 1,
    })
    expect(stepped.perplexity / full).toBeCloseTo(1, 5)
  })

  it('int8 stays within 0.1 % of the perplexity, and the others diverge by their bits', async () => {
    const found = new Map<string, { perplexity: number; kl: number }>()
    for (const plugin of CODED) {
      const options = { context: 256, windows: 2, reference: decoder }
      const cache = plugin({ window: 0 } as never)
      const { perplexity: got, kl = 0 } = await perplexity(decoder, tokens, { ...options, cache })
      found.set(plugin.name, { perplexity: got / full - 1, kl })
    }
    const kl = (name: string): number => found.get(name)!.kl
    expect(Math.abs(found.get('int8')!.perplexity)).toBeLessThan(1e-3)
    expect(kl('int8')).toBeLessThan(1e-4)
    expect(kl('fp8')).toBeLessThan(1e-3)
    expect(kl('int4')).toBeLessThan(3e-3)
    expect(kl('nf4')).toBeLessThan(kl('int3'))
    expect(kl('int3')).toBeLessThan(kl('int2'))
    // KIVI's point: at 2 bits keys by channel lose less than keys by token.
    expect(kl('kivi')).toBeLessThan(kl('int2'))
  })

  it('what a cache lets run at once scores as one token at a time', async () => {
    for (const cache of [kivi({ window: 40 }), int4({ sinks: 3 }), int8({ slide: 70, sinks: 1 })]) {
      const run = (step?: number) =>
        perplexity(decoder, tokens, { context: 200, windows: 1, cache, step })
      const [at1, atOnce, tooMany] = [await run(1), await run(), await run(200)]
      const off = (other: typeof at1) => Math.abs(other.perplexity / at1.perplexity - 1)
      // Sums in another order tip a code now and then.
      expect(off(atOnce)).toBeLessThan(2e-4)
      expect(off(tooMany)).toBeGreaterThan(2 * off(atOnce))
    }
  })

  it('generates as the full cache does, with 8 bits', async () => {
    const options = { maxTokens: 48 }
    const [a, b] = [
      await generate(decoder, prompt, options),
      await generate(decoder, prompt, { ...options, cache: int8() }),
    ]
    expect(b.tokens.slice(0, 24)).toEqual(a.tokens.slice(0, 24))
  })
})

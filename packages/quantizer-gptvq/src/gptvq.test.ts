import { decode, measureMatrix, type QuantizedMatrix, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { describeQuantizer, hessianOf, randomActivations, randomWeight } from '@lowbit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { gptvq } from './gptvq.ts'
import { gptvqOptions, gptvqScheme } from './options.ts'

describeQuantizer(gptvq, {
  variants: [
    {},
    { vectorLength: 2, centroids: 8, groupSize: 64, groupColumns: 16 },
    { vectorLength: 1, bitsPerValue: 3.125, seeding: 'kmeans++', tableType: 'f16' },
    { vectorLength: 4, centroids: 16, normalizeColumns: 16, groupColumns: 32, updates: 0 },
    { vectorLength: 2, bitsPerValue: 2.25, rounds: 2, tableType: 'f32' },
  ],
})

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

interface Layer {
  readonly values: Float32Array
  readonly hessian: Float32Array
  readonly rows: number
  readonly columns: number
}

function randomLayer(seed: number, rows = 64, columns = 128): Layer {
  const random = seededRandom(seed)
  const hessian = hessianOf(randomActivations(4 * columns, columns, random), columns)
  return { values: randomWeight(rows, columns, random), hessian, rows, columns }
}

async function run({ values, hessian, rows, columns }: Layer, options: object) {
  const weight = kernels.upload(values, rows, columns)
  const measured = kernels.upload(hessian, columns, columns)
  const input = { name: 'w', weight, hessian: measured, kernels, seed: 0 }
  const matrix = await gptvq(options).quantize(input)
  kernels.free(weight, measured)
  return matrix
}

async function outputError(layer: Layer, matrix: QuantizedMatrix): Promise<number> {
  const { rows, columns } = layer
  const [w, q] = [layer.values, decode(matrix)].map((x) => kernels.upload(x, rows, columns))
  const h = kernels.upload(layer.hessian, columns, columns)
  const [lost, power] = [await kernels.distance(w, q, h), await kernels.distance(w, undefined, h)]
  kernels.free(w, q, h)
  return lost / power
}

describe('each step helps on layers with outlier channels', () => {
  const layers = [1, 2, 3, 4].map((seed) => randomLayer(seed))
  const mean = async (options: object): Promise<number> => {
    let sum = 0
    for (const layer of layers) sum += await outputError(layer, await run(layer, options))
    return sum / layers.length
  }
  const base = { vectorLength: 2, centroids: 16, groupSize: 2048, updates: 0 }

  it('the feedback pass beats nearest entries', async () => {
    let plain = 0
    for (const layer of layers) {
      // A diagonal Hessian feeds no error on.
      const hessian = layer.hessian.map((x, i) => (i % (layer.columns + 1) === 0 ? x : 0))
      plain += await outputError(layer, await run({ ...layer, hessian }, base))
    }
    expect(await mean(base)).toBeLessThan((plain / layers.length) * 0.8)
  })

  it('updated codebooks', async () => {
    expect(await mean({ ...base, updates: 10 })).toBeLessThan(await mean(base))
  })

  it('scales in the log domain, where rows differ', async () => {
    expect(await mean({ ...base, normalizeColumns: 32 })).toBeLessThan(await mean(base))
  })

  it('smaller groups', async () => {
    expect(await mean({ ...base, groupSize: 512 })).toBeLessThan(await mean(base))
  })
})

describe('bits', () => {
  it.each([
    // GPTVQ's table of group sizes, with an f16 factor for each codebook of integers.
    [2.125, 1, 4, 384],
    [2.25, 2, 16, 1088],
    [2.25, 4, 256, 32832],
    [3.125, 2, 64, 8320],
  ])(
    '%d bits with vectors of %d: %d entries, %d weights',
    (bitsPerValue, length, entries, size) => {
      const options = gptvqOptions.parse({ bitsPerValue, vectorLength: length })
      expect(gptvqScheme(options)).toMatchObject({ length, entries, size })
    },
  )

  it('are met where groups divide the matrix', async () => {
    const layer = randomLayer(7, 256, 256)
    const matrix = await run(layer, { vectorLength: 2, bitsPerValue: 2.5, groupColumns: 64 })
    const bits = measureMatrix(matrix).total / (256 * 256)
    expect(bits).toBeLessThanOrEqual(2.5)
    expect(bits).toBeGreaterThan(2.4)
  })
})

describe('a matrix smaller than a group', () => {
  it.each([
    // 4096 vectors of 4 would count 4.5 bits of 256 × 256.
    [{ bitsPerValue: 3.125, vectorLength: 4 }, 256, 256, { length: 4, entries: 1024 }],
    [{ bitsPerValue: 3.125 }, 256, 256, { length: 2, entries: 64 }],
    [{ bitsPerValue: 2.25 }, 256, 256, { length: 4, entries: 256 }],
    [{ bitsPerValue: 2.25 }, 64, 128, { length: 2, entries: 16 }],
    [{ bitsPerValue: 2.25 }, 1, 1, { length: 4, entries: 2 }],
  ] as const)('%j, %d × %d', async (options, rows, columns, expected) => {
    expect(gptvqScheme(gptvqOptions.parse(options), { rows, columns })).toMatchObject(expected)
    if (rows * columns < 256 || rows > 64) return
    const matrix = await run(randomLayer(5, rows, columns), options)
    const bits = measureMatrix(matrix).total / (rows * columns)
    expect(bits).toBeLessThanOrEqual(1.1 * options.bitsPerValue)
  })
})

describe('hard cases', () => {
  it('rows and columns that no group divides', async () => {
    const layer = randomLayer(3, 37, 53)
    const options = { vectorLength: 4, centroids: 8, groupSize: 200, groupColumns: 20 }
    expect(await outputError(layer, await run(layer, options))).toBeLessThan(0.5)
  })

  it('more centroids than vectors', async () => {
    const layer = randomLayer(3, 4, 16)
    const options = { vectorLength: 4, centroids: 256, groupSize: 64, tableType: 'f32' }
    expect(await outputError(layer, await run(layer, options))).toBeLessThan(1e-3)
  })

  it.each([
    [{ vectorLength: 3 }, /groupColumns.*vectors of 3|can't be cut into vectors of 3/],
    [{ normalizeColumns: 6 }, /cut through vectors of 4/],
    [{ normalizeColumns: 96 }, /does not divide groups/],
    [{ centroids: 512 }, /leave nothing for the codebooks/],
    [{ bitsPerValue: 0.5 }, /bitsPerValue/],
  ])('contradicting options %j', (options, message) => {
    expect(() => gptvq(options as never)).toThrow(message)
  })
})

import {
  decode,
  measureMatrix,
  type QuantizedMatrix,
  type Quantizer,
  seededRandom,
} from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { describeQuantizer, hessianOf, randomActivations, randomWeight } from '@lowbit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { shapeForBits } from './rates.ts'
import { vptq } from './vptq.ts'

describeQuantizer(vptq, {
  bits: [],
  variants: [
    { bits: 2.25 },
    { vectorLength: 4, centroids: 16, residualCentroids: 8, tables: 'matrix' },
    { vectorLength: 8, centroids: 32, outliers: '10%', outlierCentroids: 32, tableType: 'f16' },
    { vectorLength: 2, centroids: 16, norm: 'range', order: 'none', sweeps: 0, rotation: 'none' },
    { vectorLength: 3, centroids: 16, groups: 3, tables: 'matrix', norm: 'none', tableType: 'f32' },
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

function randomLayer(seed: number, rows = 96, columns = 128): Layer {
  const random = seededRandom(seed)
  const hessian = hessianOf(randomActivations(4 * columns, columns, random), columns)
  return { values: randomWeight(rows, columns, random), hessian, rows, columns }
}

async function run(quantizer: Quantizer, { values, hessian, rows, columns }: Layer) {
  const weight = kernels.upload(values, rows, columns)
  const measured = kernels.upload(hessian, columns, columns)
  const input = { name: 'w', weight, hessian: measured, kernels, seed: 0 }
  const matrix = await quantizer.quantize(input)
  kernels.free(weight, measured)
  return matrix
}

/** tr((W − Q)·H·(W − Q)ᵀ) / tr(W·H·Wᵀ) */
async function outputError(layer: Layer, matrix: QuantizedMatrix): Promise<number> {
  const { rows, columns } = layer
  const [w, q] = [layer.values, decode(matrix)].map((x) => kernels.upload(x, rows, columns))
  const h = kernels.upload(layer.hessian, columns, columns)
  const [lost, power] = [await kernels.distance(w, q, h), await kernels.distance(w, undefined, h)]
  kernels.free(w, q, h)
  return lost / power
}

const layers = [1, 2, 3, 4].map((seed) => randomLayer(seed))

/** Mean over the layers, whose tables are shared where the options say so. */
async function meanError(options: object): Promise<number> {
  let quantizer = vptq(options as never)
  if (quantizer.prepare) {
    const weights = layers.map(({ values, rows, columns }, i) => ({
      ...{ name: `${i}`, rows, columns },
      read: async () => kernels.upload(values, rows, columns),
    }))
    quantizer = await quantizer.prepare({ name: 'test', weights, kernels, seed: 0 })
  }
  let sum = 0
  for (const layer of layers) sum += await outputError(layer, await run(quantizer, layer))
  return sum / layers.length
}

describe('each step helps on layers with outlier channels', () => {
  const base = { vectorLength: 4, centroids: 64, refits: 0, sweeps: 0 }

  it('the feedback pass beats nearest entries', async () => {
    // A diagonal Hessian feeds no error on.
    const alone = layers.map((layer) => ({
      ...layer,
      hessian: layer.hessian.map((x, i) => (i % (layer.columns + 1) === 0 ? x : 0)),
    }))
    const quantizer = vptq({ ...base, tables: 'matrix', rotation: 'none' })
    let [fed, plain] = [0, 0]
    for (const [i, layer] of layers.entries()) {
      fed += await outputError(layer, await run(quantizer, layer))
      plain += await outputError(layer, await run(quantizer, alone[i]))
    }
    expect(fed).toBeLessThan(plain * 0.8)
  })

  it.each([
    ['coordinate descent', { sweeps: 4 }],
    ['refitted scales', { sweeps: 4, refits: 2 }],
    ['a residual codebook', { residualCentroids: 16 }],
    ['outlier columns', { outliers: '6%', outlierVectorLength: 2, outlierCentroids: 256 }],
  ])('%s', async (_, options) => {
    expect(await meanError({ ...base, ...options })).toBeLessThan(await meanError(base))
  })

  it('tables of its own that follow the output', async () => {
    for (const norm of ['deviation', 'none'] as const) {
      const refitted = { ...base, tables: 'matrix', norm, sweeps: 4, refits: 2 } as const
      const still = await meanError({ ...refitted, updates: 0 })
      expect(await meanError(refitted)).toBeLessThan(0.99 * still)
    }
  })

  it('scales of rows and columns', async () => {
    expect(await meanError(base)).toBeLessThan(await meanError({ ...base, norm: 'none' }))
  })

  it('more bits leave less error', async () => {
    const errors: number[] = []
    for (const bits of [1.5, 2, 2.5, 3]) errors.push(await meanError({ bits }))
    expect(errors).toEqual([...errors].sort((a, b) => b - a))
  })
})

describe('what is stored', () => {
  it('one part comes back in the natural order; outlier columns carry their order', async () => {
    const plain = await run(vptq({ vectorLength: 4, centroids: 16 }), layers[0])
    expect(plain.order).toBeUndefined()
    const parts = { vectorLength: 4, centroids: 16, outliers: 0.05, outlierCentroids: 64 }
    const matrix = await run(vptq(parts), layers[0])
    expect(matrix.stages.map(({ columns }) => columns)).toEqual([
      [0, 6],
      [6, 128],
    ])
    expect(new Set(matrix.order).size).toBe(128)
  })

  it('bits are counted below what was asked for, with all that belongs to them', () => {
    const matrices = [
      { rows: 576, columns: 576 },
      { rows: 192, columns: 576 },
      { rows: 1536, columns: 576 },
    ]
    for (const bits of [1.5, 2, 2.25, 3]) {
      const options = { bits, norm: 'deviation', rotation: 'input', tables: 'checkpoint' } as const
      const { length, entries } = shapeForBits({ ...options, tableType: 'i8' }, matrices)!
      expect(Math.log2(entries) / length).toBeLessThan(bits)
      expect(Math.log2(entries) / length).toBeGreaterThan(bits - 0.4)
    }
  })

  it('a shared table is counted once', async () => {
    const quantizer = vptq({ vectorLength: 4, centroids: 32 })
    const weights = layers.map(({ values, rows, columns }, i) => ({
      ...{ name: `${i}`, rows, columns },
      read: async () => kernels.upload(values, rows, columns),
    }))
    const prepared = await quantizer.prepare!({ name: 'test', weights, kernels, seed: 0 })
    const counted = new Set<string>()
    const tables: number[] = []
    for (const layer of layers) {
      tables.push(measureMatrix(await run(prepared, layer), counted).tables)
    }
    expect(tables[0]).toBeGreaterThan(0)
    expect(tables.slice(1)).toEqual([0, 0, 0])
  })
})

describe('hard cases', () => {
  it('more centroids than vectors: each vector is an entry', async () => {
    const layer = randomLayer(9, 8, 16)
    const options = {
      vectorLength: 8,
      centroids: 4096,
      tables: 'matrix',
      tableType: 'f32',
    } as const
    const matrix = await run(vptq({ ...options, rotation: 'none' }), layer)
    expect((matrix.stages[0].grid as { entries: number }).entries).toBe(16)
    expect(await outputError(layer, matrix)).toBeLessThan(1e-4)
  })

  it('a vector longer than the rows', async () => {
    const layer = randomLayer(9, 3, 40)
    const matrix = await run(vptq({ vectorLength: 8, centroids: 40, tables: 'matrix' }), layer)
    expect(decode(matrix).every(Number.isFinite)).toBe(true)
    expect(await outputError(layer, matrix)).toBeLessThan(0.05)
  })

  it.each([
    [{ vectorLength: 8 }, /centroids: vectorLength needs centroids|vectorLength needs centroids/],
    [{ centroids: 64 }, /centroids needs vectorLength/],
    [{ groups: 2 }, /tables matrix/],
    [{ outliers: '120%' }, /outliers.*share/],
    [{ vectorLength: 20, centroids: 4 }, /vectorLength/],
  ])('contradicting options %j', (options, message) => {
    expect(() => vptq(options as never)).toThrow(message)
  })
})

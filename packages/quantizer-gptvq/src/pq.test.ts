import { decode, seededRandom } from '@lowbit/core'
import { describeQuantizer, randomValues, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { pq } from './pq.ts'

describeQuantizer(pq, {
  variants: [
    {},
    { vectorLength: 2, centroids: 8, tableType: 'f16' },
    { vectorLength: 1, centroids: 16, normalize: false, tableType: 'f32' },
  ],
})

const kernels = referenceKernels()

async function error(rows: number, columns: number, options: object): Promise<number> {
  const values = randomValues(rows * columns, seededRandom(3))
  const weight = kernels.upload(values, rows, columns)
  const matrix = await pq(options).quantize({ name: 'w', weight, kernels, seed: 0 })
  kernels.free(weight)
  const decoded = decode(matrix)
  const lost = values.reduce((sum, x, i) => sum + (x - decoded[i]) ** 2, 0)
  return lost / values.reduce((sum, x) => sum + x * x, 0)
}

describe('product quantization', () => {
  it('longer vectors lose less at the same bits', async () => {
    const scalar = await error(64, 96, { vectorLength: 1, centroids: 4 })
    expect(await error(64, 96, { vectorLength: 4, centroids: 256 })).toBeLessThan(scalar)
  })

  it('a codebook for each part of a row loses less', async () => {
    const base = { vectorLength: 4, centroids: 32 }
    const one = await error(128, 64, base)
    expect(await error(128, 64, { ...base, subspaces: 4 })).toBeLessThan(one)
  })

  it('as many centroids as vectors lose nothing but the rounding of the table', async () => {
    const options = { vectorLength: 4, centroids: 4096, tableType: 'f32', normalize: false }
    expect(await error(10, 30, options)).toBeLessThan(1e-12)
  })

  it('more subspaces than vectors in a row', async () => {
    await expect(error(4, 16, { vectorLength: 4, subspaces: 5 })).rejects.toThrow(/4 vectors of 4/)
  })
})

/** What narrowed ranges, and outliers beside codes, are for. */

import { type CacheGrid, type CodedRows, codeColumns, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { afterAll, expect, it } from 'vitest'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const grid: CacheGrid = { bits: 2, symmetric: false, tokens: 32, channels: 1 }
const random = seededRandom(5)
const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())

/** Σ of the squared errors of these numbers, [64, 64]. */
async function lost(values: Float32Array, range: number, outliers = 0): Promise<number> {
  const coded: CodedRows = {
    grid: { ...grid, range },
    codes: kernels.tensor(64, codeColumns(grid, 64), 'u32'),
    scales: kernels.tensor(2, 128, 'u16'),
    ...(outliers > 0 && { outliers: kernels.tensor(64, 2 * outliers, 'u16') }),
  }
  const x = kernels.upload(values, 64, 64)
  kernels.encodeRows(coded, 0, x)
  kernels.decodeRows(x, coded, 0)
  const found = await kernels.read(x)
  kernels.free(x, coded.codes, coded.scales, ...(coded.outliers ? [coded.outliers] : []))
  return found.reduce((sum, value, i) => sum + (value - values[i]) ** 2, 0)
}

it('a narrower range lowers the error of 2 bits by a quarter at least, where numbers are normal', async () => {
  const values = Float32Array.from({ length: 64 * 64 }, normal)
  expect(await lost(values, 0.75)).toBeLessThan(0.75 * (await lost(values, 1)))
})

it('one outlier in 64 takes four fifths of the error where one in a hundred lies far out', async () => {
  const values = Float32Array.from({ length: 64 * 64 }, (_, i) =>
    i % 101 === 0 ? 40 * normal() : normal(),
  )
  expect(await lost(values, 1, 1)).toBeLessThan(0.2 * (await lost(values, 1)))
  expect(await lost(values, 0.75, 1)).toBeLessThan(await lost(values, 1, 1))
})

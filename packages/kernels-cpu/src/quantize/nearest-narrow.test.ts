import { seededRandom } from '@lowbit/core'
import { expect, it } from 'vitest'
import { cpu } from '../cpu.ts'

it.each([7, 8])('whole numbers first find what f32 finds, vectors of %d', async (d) => {
  const random = seededRandom(d)
  const [n, entries] = [203, 2051]
  const table = Float32Array.from({ length: entries * d }, () => random() - random())
  // Equal entries, of which the first counts; and one that is far from all others.
  table.copyWithin(1500 * d, 20 * d, 40 * d)
  table.fill(3, 77 * d, 78 * d)
  const x = Float32Array.from({ length: n * d }, () => 1.5 * (random() - random()))
  x.set(table.subarray(1505 * d, 1506 * d), 10 * d)
  x.fill(0, 30 * d, 31 * d)
  x.fill(1e6, 100 * d, 101 * d)
  x[150 * d] = Number.NaN
  const [narrow, plain] = await Promise.all(
    [true, false].map(async (wide) => {
      const kernels = await cpu({ threads: 1, wide })
      const codes = kernels.tensor(n, 1, 'u16')
      kernels.nearest(codes, kernels.upload(x, n, d), kernels.upload(table, entries, d))
      const found = await kernels.readCodes(codes)
      kernels.dispose()
      return [...found]
    }),
  )
  expect(narrow).toEqual(plain)
  expect(narrow[10]).toBe(25)
})

/** core's k-means, here because core itself has no kernels to run it on. */

import { kMeans, seededRandom } from '@lowbit/core'
import { expect, it } from 'vitest'
import { referenceKernels } from './reference/kernels.ts'

const kernels = referenceKernels()
const cluster = (values: number[], d: number, options: object = {}) =>
  kMeans(kernels, kernels.upload(Float32Array.from(values), values.length / d, d), {
    ...{ entries: 2, iterations: 20, random: seededRandom(1) },
    ...options,
  })

it('finds two heaps of points', async () => {
  const found = await cluster([0, 0, 0, 1, 1, 0, 10, 10, 10, 11, 11, 10], 2)
  const [a, b] = [found.slice(0, 2), found.slice(2)].sort((x, y) => x[0] - y[0])
  expect(a[0]).toBeCloseTo(1 / 3)
  expect(b[1]).toBeCloseTo(31 / 3)
})

it('weights pull centroids', async () => {
  const weights = kernels.upload(Float32Array.of(3, 1), 2, 1)
  expect((await cluster([0, 4], 1, { entries: 1, weights }))[0]).toBe(1)
})

it('more centroids than points: each point is one; constant points are one place', async () => {
  expect([...(await cluster([3, 1], 1, { entries: 5 }))].sort()).toEqual([1, 3])
  expect([...(await cluster([2, 2, 2, 2], 1))]).toEqual([2, 2])
})

it('a centroid without points moves to one that is far', async () => {
  // Both may begin at 0; then one of them has no points.
  for (let seed = 0; seed < 10; seed++) {
    const found = await cluster([0, 0, 0, 0, 0, 0, 9], 1, { random: seededRandom(seed) })
    expect([...found].sort()).toEqual([0, 9])
  }
})

/** Narrowed ranges against plain loops, and what they are for. */

import { type CacheGrid, codeColumns, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { randomValues } from '@lowbit/testing'
import { afterAll, expect, it } from 'vitest'
import { narrow } from './narrow.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const [rows, columns] = [48, 40]

it.each([
  [{ tokens: 16, channels: 1 }, 0.75],
  [{ tokens: 1, channels: 8 }, 0.6],
  [{ tokens: 1, channels: 40 }, 0.9],
])('blocks of %j to %f of their ranges', async (shape, range) => {
  const grid: CacheGrid = { bits: 2, symmetric: false, ...shape }
  const values = randomValues(rows * columns, seededRandom(3))
  const x = kernels.upload(values, rows, columns)
  const before = kernels.bytes
  narrow(kernels, x, grid, range)
  expect(kernels.bytes).toBe(before)
  const found = await kernels.read(x)
  let moved = 0
  for (let row = 0; row < rows; row += shape.tokens) {
    for (let column = 0; column < columns; column += shape.channels) {
      const places = Array.from({ length: shape.tokens * shape.channels }, (_, i) => {
        const [t, c] = [Math.floor(i / shape.channels), i % shape.channels]
        return (row + t) * columns + column + c
      })
      const block = places.map((at) => values[at])
      const [least, largest] = [Math.min(...block), Math.max(...block)]
      const [middle, half] = [(least + largest) / 2, ((largest - least) / 2) * range]
      for (const at of places) {
        const wanted = Math.min(middle + half, Math.max(middle - half, values[at]))
        expect(Math.abs(found[at] - wanted)).toBeLessThan(1e-5)
        if (wanted !== values[at]) moved++
      }
    }
  }
  expect(moved).toBeGreaterThan(50)
  kernels.free(x)
})

it('lowers the error of 2 bits by a quarter at least, where numbers are normal', async () => {
  const grid: CacheGrid = { bits: 2, symmetric: false, tokens: 32, channels: 1 }
  const random = seededRandom(5)
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const values = Float32Array.from({ length: 64 * 64 }, normal)
  const errors: number[] = []
  for (const range of [1, 0.75]) {
    const coded = {
      grid,
      codes: kernels.tensor(64, codeColumns(grid, 64), 'u32'),
      scales: kernels.tensor(2, 128, 'u16'),
    }
    const x = kernels.upload(values, 64, 64)
    narrow(kernels, x, grid, range)
    kernels.encodeRows(coded, 0, x)
    kernels.decodeRows(x, coded, 0)
    const found = await kernels.read(x)
    errors.push(found.reduce((sum, value, i) => sum + (value - values[i]) ** 2, 0))
    kernels.free(x, coded.codes, coded.scales)
  }
  expect(errors[1]).toBeLessThan(0.75 * errors[0])
})

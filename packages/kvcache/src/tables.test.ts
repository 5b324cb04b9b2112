/** Fitted tables against what they are fitted to. */

import { type CacheGrid, codeColumns, seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { afterAll, expect, it } from 'vitest'
import { fitCacheTable, kivi } from './index.ts'

const kernels = await cpu({ threads: 1 })
afterAll(() => kernels.dispose())

const grid = { bits: 2, tokens: 32, channels: 1 } as const
const WIDTH = 16
const random = seededRandom(3)
/** Most of each block lies near its least number. */
const numbers = Float32Array.from({ length: 128 * WIDTH }, () => random() ** 4)

/** Σ of squared errors, by their weights. */
async function lost(table?: Float32Array, weights?: Float32Array): Promise<number> {
  const whole: CacheGrid = { ...grid, symmetric: false, ...(table && { table }) }
  const coded = {
    grid: whole,
    codes: kernels.tensor(128, codeColumns(whole, WIDTH), 'u32'),
    scales: kernels.tensor(4, 2 * WIDTH, 'u16'),
  }
  const x = kernels.upload(numbers, 128, WIDTH)
  kernels.encodeRows(coded, 0, x)
  kernels.decodeRows(x, coded, 0)
  const found = await kernels.read(x)
  kernels.free(x, coded.codes, coded.scales)
  return found.reduce((sum, y, i) => sum + (weights?.[i] ?? 1) * (y - numbers[i]) ** 2, 0)
}

it('a fitted table loses less than even steps', async () => {
  const before = kernels.bytes
  const table = await fitCacheTable(kernels, [{ numbers, width: WIDTH }], grid)
  expect(kernels.bytes).toBe(before)
  expect([...table]).toEqual([...table].sort((a, b) => a - b))
  expect(table.length).toBe(4)
  expect(table[0]).toBeGreaterThanOrEqual(0)
  expect(table[3]).toBeLessThanOrEqual(1)
  expect(await lost(table)).toBeLessThan(0.75 * (await lost()))
})

it('weights say which errors count', async () => {
  const weights = numbers.map((x) => (x > 0.5 ? 100 : 1))
  const sample = { numbers, width: WIDTH }
  const plain = await fitCacheTable(kernels, [sample], grid)
  const weighted = await fitCacheTable(kernels, [{ ...sample, weights }], grid)
  expect(await lost(weighted, weights)).toBeLessThan(0.8 * (await lost(plain, weights)))
  expect(await lost(plain)).toBeLessThan(await lost(weighted))
})

it('refuses what can have no table', async () => {
  const equal = new Float32Array(64 * WIDTH).fill(3)
  await expect(fitCacheTable(kernels, [{ numbers: equal, width: WIDTH }], grid)).rejects.toThrow(
    /one block at least/,
  )
  const weights = new Float32Array(3)
  await expect(fitCacheTable(kernels, [{ numbers, weights, width: WIDTH }], grid)).rejects.toThrow(
    /3 weights/,
  )
  expect(() => kivi({ bits: 2, tables: { keys: [0, 0.5, 1] } })).toThrow(/4 values.* keys has 3/)
  expect(() => kivi({ bits: 2, tables: { keys: [0, 0.5, 1, 2] } })).toThrow(/tables/)
})

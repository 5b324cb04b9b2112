import {
  decode,
  equalMatrices,
  isQuantized,
  measureMatrix,
  packCodes,
  type QuantizedMatrix,
  seededRandom,
  signedGrid,
  toNumbers,
  unsignedGrid,
  validateMatrix,
} from '@lowbit/core'
import { randomOrder } from '@lowbit/testing'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { gptq, gptqV2 } from './gptq.ts'
import { lowbit } from './lowbit.ts'

/** Integer matrices of any size, bits, group size, with or without zero points and order. */
const matrices = fc
  .record({
    rows: fc.integer({ min: 1, max: 70 }),
    columns: fc.integer({ min: 1, max: 130 }),
    bits: fc.integer({ min: 1, max: 8 }),
    group: fc.integer({ min: 1, max: 140 }),
    asymmetric: fc.boolean(),
    ordered: fc.boolean(),
    seed: fc.integer({ min: 0, max: 1e6 }),
  })
  .map(({ rows, columns, bits, group, asymmetric, ordered, seed }): QuantizedMatrix => {
    const random = seededRandom(seed)
    const grid = asymmetric || bits === 1 ? unsignedGrid(bits) : signedGrid(bits)
    const blocks = { rows: 1, columns: Math.min(group, columns) }
    const count = rows * Math.ceil(columns / blocks.columns)
    const numbers = Array.from({ length: count }, () => random() + 0.01)
    const zeros = Array.from({ length: count }, () => Math.floor(random() * 2 ** bits))
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(randomIntegersBelow(rows * columns, 2 ** bits, random), bits),
          vector: { length: 1, along: 'in' },
          grid,
          scale: { blocks, values: toNumbers('f16', numbers) },
          ...((asymmetric || bits === 1) && {
            zero: { blocks, values: toNumbers(`u${bits}` as 'u4', zeros) },
          }),
        },
      ],
      ...(ordered && { order: randomOrder(columns, random) }),
    }
  })

const randomIntegersBelow = (count: number, below: number, random: () => number): Uint16Array =>
  Uint16Array.from({ length: count }, () => Math.floor(random() * below))

it('any integer matrix comes out of the native layout equal, and counts the bits that it stores', () => {
  fc.assert(
    fc.property(matrices, (matrix) => {
      validateMatrix(matrix, 'm')
      const stored = lowbit.write('m', matrix)
      const read = lowbit.read('m', stored, { config: {} })
      expect(isQuantized(read) && equalMatrices(read, matrix)).toBe(true)
      const bytes = [...stored].reduce(
        (sum, [name, raw]) => sum + (name === 'lowbit' ? 0 : raw.bytes.length),
        0,
      )
      // Each array is padded to whole bytes; the order is counted in 16 bits and stored in 32.
      const extra = matrix.order ? 2 * matrix.columns : 0
      expect(bytes - extra).toBeGreaterThanOrEqual(measureMatrix(matrix).total / 8)
      expect(bytes - extra).toBeLessThan(measureMatrix(matrix).total / 8 + 4)
    }),
    { numRuns: 150 },
  )
})

it('what a GPTQ layout accepts decodes to the same weights afterwards', () => {
  let accepted = 0
  fc.assert(
    fc.property(matrices, (matrix) => {
      for (const format of [gptq, gptqV2]) {
        if (format.refuses(matrix)) continue
        accepted++
        const config = format.config(new Map([['m', format.describe(matrix)]]))
        const read = format.read('m', format.write('m', matrix), { config })
        expect(isQuantized(read) && decode(read)).toEqual(decode(matrix))
      }
    }),
    { numRuns: 1500 },
  )
  expect(accepted).toBeGreaterThan(3)
})

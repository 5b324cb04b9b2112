/** Soft assignment and what else trains weights, held against the reference. */

import { seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal } from './bench.ts'

export function trainingContract(open: BenchOf, it: Declare): void {
  it.each([
    [1, 1, 1],
    [33, 8, 1],
    [70, 6, 3],
    [5, 256, 4],
    [9, 3, 16],
  ])('softAssign and its gradient: %i points, %i entries of %i', async (n, k, d) => {
    const random = seededRandom(71)
    const x = randomValues(n * d, random)
    const table = randomValues(k * d, random)
    const gradient = randomValues(n * k, random)
    for (const temperature of [0, 0.3, 1e-6, 50]) {
      for (const gumbel of [undefined, 3]) {
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const out = zeros(n, k)
          const options = { temperature, gumbel }
          kernels.softAssign(out, up(x, n, d), up(table, k, d), options)
          const attention = await kernels.read(out)
          const g = up(gradient, n, k)
          kernels.softmaxGradient(g, out, g, 1.5)
          return { attention, gradient: await kernels.read(g) }
        })
        const what = `temperature ${temperature}, noise ${gumbel}`
        // Logits of a low temperature are large: so are their last bits.
        const tolerance = temperature === 1e-6 ? 0.2 : 1e-5
        expectClose(actual.attention, expected.attention, what, tolerance)
        if (temperature === 0) expect(actual.gradient.every((value) => value === 0)).toBe(true)
        if (temperature !== 1e-6) expectClose(actual.gradient, expected.gradient, what, 2e-5)
      }
    }
  })

  it('Gumbel noise draws entries by their softmax', async () => {
    const { kernels, up, zeros } = open()
    const n = 4096
    const table = up([-0.4, 0.1, 0.9], 3, 1)
    const [out, plain] = [zeros(n, 3), zeros(1, 3)]
    kernels.softAssign(plain, up([0], 1, 1), table, { temperature: 0.7 })
    kernels.softAssign(out, zeros(n, 1), table, { temperature: 0.7, gumbel: 11 })
    const [wanted, drawn] = [await kernels.read(plain), await kernels.read(out)]
    const shares = [0, 0, 0]
    for (let i = 0; i < n; i++) {
      const row = [...drawn.subarray(i * 3, i * 3 + 3)]
      shares[row.indexOf(Math.max(...row))] += 1 / n
    }
    for (const [j, share] of shares.entries())
      expect(Math.abs(share - wanted[j])).toBeLessThan(0.03)
  })

  it.each([
    ['values of bf16', 40, 50, (value: number) => bfloat(value)],
    ['values of f32', 40, 50, (value: number) => value],
    [
      'more values than 11 bits leave room for',
      300,
      301,
      (value: number) => value * 2 ** (value * 5),
    ],
    ['one value', 3, 5, () => -0.37],
    [
      'zeros of both signs and far ends',
      2,
      3,
      (_: number, i: number) => [0, -0, 3.4e38, -3.4e38, 1e-45, 1e-40][i],
    ],
  ] as const)('distinct: %s', async (_, rows, columns, make) => {
    const random = seededRandom(72)
    const x = randomValues(rows * columns, random).map(make)
    const most = Math.min(65536, rows * columns)
    const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
      const [values, counts] = [zeros(most, 1), zeros(most, 1)]
      const codes = zeros(rows, columns, 'u16')
      const count = await kernels.distinct(values, counts, codes, up(x, rows, columns))
      return {
        count,
        values: (await kernels.read(values)).slice(0, count),
        counts: (await kernels.read(counts)).slice(0, count),
        codes: await kernels.readCodes(codes),
      }
    })
    expect(actual).toEqual(expected)
    expect(actual.counts.reduce((sum, each) => sum + each, 0)).toBe(rows * columns)
  })

  it('adam: several steps, odd sizes', async () => {
    for (const size of [1, 7, 1030]) {
      const random = seededRandom(73)
      const x = randomValues(size, random)
      const gradients = Array.from({ length: 4 }, () => randomValues(size, random))
      // Where nothing pulls, nothing moves.
      for (const g of gradients) g[size - 1] = 0
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const [w, mean, square] = [up(x, 1, size), zeros(1, size), zeros(1, size)]
        for (const [i, g] of gradients.entries()) {
          kernels.adam(w, mean, square, up(g, 1, size), { step: i + 1, rate: 0.01 })
        }
        return kernels.read(w)
      })
      expectClose(actual, expected, `${size} numbers`, 1e-6)
      expect(actual[size - 1]).toBe(x[size - 1])
    }
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const [x, table] = [zeros(4, 2), zeros(3, 2)]
    const options = { temperature: 1 }
    await expectRefusal('out', () => kernels.softAssign(zeros(4, 2), x, table, options))
    await expectRefusal('table', () => kernels.softAssign(zeros(4, 3), x, zeros(3, 1), options))
    await expectRefusal('entries', () =>
      kernels.softAssign(zeros(4, 257), x, zeros(257, 2), options),
    )
    await expectRefusal('temperature', () =>
      kernels.softAssign(zeros(4, 3), x, table, { temperature: -1 }),
    )
    await expectRefusal('gradient', () => kernels.softmaxGradient(x, x, table, 1))
    await expectRefusal('values', () =>
      kernels.distinct(zeros(7, 1), zeros(8, 1), zeros(4, 2, 'u16'), x),
    )
    await expectRefusal('codes', () =>
      kernels.distinct(zeros(8, 1), zeros(8, 1), zeros(4, 2, 'u8'), x),
    )
    await expectRefusal('moments', () => kernels.adam(x, x, table, x, { step: 1, rate: 1 }))
  })
}

/** The leading 16 bits of a float. */
function bfloat(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)
  bits[0] &= 0xffff0000
  return new Float32Array(bits.buffer)[0]
}

import { gridValues, seededRandom } from '@lowbit/core'
import { randomActivations, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { activations } from './activations.ts'

const kernels = referenceKernels()

/** Largest error of each row in steps of that row's scale. */
async function roundTrip(values: Float32Array, rows: number, columns: number, options: object) {
  const x = kernels.upload(values, rows, columns)
  const { codes, scale, zero } = activations(options).quantize(kernels, x)
  const [c, s] = [await kernels.readCodes(codes), await kernels.read(scale)]
  const z = zero && (await kernels.read(zero))
  return { c, s, z }
}

const values = randomActivations(9, 40, seededRandom(5))

describe('8-bit integers', () => {
  it.each([
    [{}, 9],
    [{ symmetric: false }, 9],
    [{ granularity: 'tensor', range: [-60, 60] }, 1],
    [{ granularity: 'tensor', range: [-20, 60], symmetric: false }, 1],
  ])('%o are within half a step, scales as many as asked', async (options, scales) => {
    const { c, s, z } = await roundTrip(values, 9, 40, options)
    expect(s).toHaveLength(scales)
    values.forEach((x, i) => {
      const row = scales === 1 ? 0 : Math.floor(i / 40)
      const value = s[row] * (z ? c[i] - z[row] : c[i] - 128)
      const inside = scales > 1 || Math.abs(x) < 20
      if (inside) expect(Math.abs(value - x)).toBeLessThanOrEqual(s[row] * 0.51)
    })
  })
})

it('a static range saturates what lies outside', async () => {
  const far = Float32Array.of(1000, -1000, 0, 1)
  const { c, s } = await roundTrip(far, 1, 4, { granularity: 'tensor', range: [-1, 1] })
  expect([...c].map((code) => Math.round((code - 128) * s[0]))).toEqual([1, -1, 0, 1])
})

it('FP8 per token', async () => {
  const { c, s } = await roundTrip(values, 9, 40, { grid: 'fp8_e4m3' })
  const table = gridValues({
    kind: 'float',
    format: { name: 'f8_e4m3', signed: true, exponent: 4, mantissa: 3, bias: 7, special: 'nan' },
  })
  values.forEach((x, i) => {
    const value = table[c[i]] * s[Math.floor(i / 40)]
    expect(Math.abs(value - x)).toBeLessThanOrEqual(
      Math.abs(x) * 0.07 + s[Math.floor(i / 40)] * 0.01,
    )
  })
})

it.each([
  [{ granularity: 'tensor' }, /needs the range/],
  [{ range: [0, 1] }, /finds its own range/],
  [{ granularity: 'tensor', range: [2, 1] }, /smallest and largest/],
  [{ grid: 'fp4', symmetric: false }, /no zero points/],
])('refuses %o', (options, message) => {
  expect(() => activations(options as never)).toThrow(message)
})

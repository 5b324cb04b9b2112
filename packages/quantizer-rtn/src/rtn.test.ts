import { decode, equalMatrices, measureMatrix, seededRandom } from '@lowbit/core'
import { describeQuantizer, randomWeight, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { rtn } from './rtn.ts'

describeQuantizer(rtn, {
  variants: [
    {},
    { bits: 3, groupSize: 32, symmetric: true },
    { bits: 8, granularity: 'channel' },
    { bits: 4, granularity: 'tensor' },
    { bits: 2, groupSize: 5, search: 20 },
    { grid: 'nf4' },
    { grid: 'nf4', doubleQuantization: true },
    { grid: 'nf', bits: 3, groupSize: 16 },
    { grid: 'fp8_e4m3', granularity: 'channel' },
    { grid: 'mxfp4' },
    { grid: 'mxfp6_e2m3' },
    { grid: 'mxfp8_e4m3' },
    { grid: 'nvfp4' },
    { grid: 'binary', groupSize: 16 },
    { grid: 'ternary', groupSize: 16 },
  ],
})

const kernels = referenceKernels()

async function quantize(values: Float32Array, rows: number, columns: number, options: object) {
  const weight = kernels.upload(values, rows, columns)
  const matrix = await rtn(options).quantize({ name: 'w', weight, kernels, seed: 0 })
  kernels.free(weight)
  return matrix
}

describe('figures worked out by hand', () => {
  it('asymmetric 2 bits: the range includes 0, the zero point is a code', async () => {
    const matrix = await quantize(Float32Array.of(1, 2, 3, 4), 1, 4, {
      bits: 2,
      scaleType: 'f32',
      search: 1,
    })
    // lo 0, hi 4, scale 4/3, zero 0: codes 1 (0.75), 1 (1.49999996 in f32), 2 (2.25), 3.
    expect([...decode(matrix)].map((x) => Math.round(x * 1e4) / 1e4)).toEqual([
      1.3333, 1.3333, 2.6667, 4,
    ])
  })

  it('MXFP4: the scale is a power of two that brings the largest into the top binade', async () => {
    const matrix = await quantize(Float32Array.of(0.7, -0.1, 0.3, 0), 1, 4, { grid: 'mxfp4' })
    // floor(log2 0.7) − floor(log2 6) = −1 − 2: scale 1/8; 5.6 → 6, −0.8 → −1, 2.4 → 2.
    expect([...decode(matrix)]).toEqual([0.75, -0.125, 0.25, 0])
  })

  it('binary: the scale is the mean of |w|', async () => {
    const matrix = await quantize(Float32Array.of(1, -2, 3, -4), 1, 4, {
      grid: 'binary',
      search: 1,
    })
    expect([...decode(matrix)]).toEqual([2.5, -2.5, 2.5, -2.5])
  })
})

describe('counted bits', () => {
  const values = randomWeight(4, 1024, seededRandom(1))
  it.each([
    [{ bits: 4, groupSize: 128 }, 4 + (16 + 4) / 128],
    [{ bits: 4, groupSize: 128, symmetric: true }, 4 + 16 / 128],
    [{ grid: 'mxfp4' }, 4 + 8 / 32],
    [{ grid: 'nvfp4' }, 4 + 8 / 16 + 32 / 4096],
    // 64 scales, 8 bits each, one f32 for the (only) block of 256 and one for the mean; 16 levels in f32.
    [{ grid: 'nf4', doubleQuantization: true }, 4 + 8 / 64 + (2 * 32 + 16 * 32) / 4096],
  ])('%o', async (options, bits) => {
    const matrix = await quantize(values, 4, 1024, options)
    expect(measureMatrix(matrix).total / 4096).toBeCloseTo(bits, 10)
  })
})

it('searching never makes the squared error larger, and mostly smaller', async () => {
  const values = randomWeight(8, 256, seededRandom(2))
  const errorOf = async (search: number): Promise<number> => {
    const decoded = decode(await quantize(values, 8, 256, { bits: 3, search }))
    return decoded.reduce((sum, x, i) => sum + (x - values[i]) ** 2, 0)
  }
  expect(await errorOf(40)).toBeLessThan((await errorOf(1)) * 0.95)
})

it('the same weight twice gives the same matrix', async () => {
  const values = randomWeight(3, 70, seededRandom(3))
  expect(equalMatrices(await quantize(values, 3, 70, {}), await quantize(values, 3, 70, {}))).toBe(
    true,
  )
})

describe('options that contradict each other', () => {
  it.each([
    [{ grid: 'nf4', symmetric: false }, /has no zero points/],
    [{ grid: 'mxfp4', granularity: 'channel' }, /has a scale for each 32 columns/],
    [{ grid: 'nvfp4', groupSize: 32 }, /has groups of 16/],
    [{ granularity: 'channel', groupSize: 64 }, /contradicts granularity channel/],
    [{ granularity: 'tensor', doubleQuantization: true }, /not worth quantizing/],
    [{ grid: 'nf', bits: 1 }, /at least 2 bits/],
    [{ grid: 'fp9' }, /is not a grid/],
    [{ bits: 9 }, /bits/],
    [{ groupSize: 0 }, /groupSize/],
  ])('%o', (options, message) => {
    expect(() => rtn(options as never)).toThrow(message)
  })
})

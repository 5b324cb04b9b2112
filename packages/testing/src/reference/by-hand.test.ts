/** The reference is right by itself: numbers worked out on paper, or by brute force. */

import { binaryGrid, seededRandom, signedGrid, ternaryGrid, unsignedGrid } from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import { randomHessian, randomValues } from '../random.ts'
import { referenceKernels } from './kernels.ts'
import { roundHalfEven } from './rounding.ts'

const kernels = referenceKernels()
const up = (values: readonly number[], rows: number, columns: number) =>
  kernels.upload(Float32Array.from(values), rows, columns)
const near = (actual: Float32Array, expected: readonly number[], digits = 6) => {
  expect(actual.length).toBe(expected.length)
  expected.forEach((value, i) => {
    expect(actual[i], `[${i}]`).toBeCloseTo(value, digits)
  })
}

describe('a decoder’s operations', () => {
  it('softmax and crossEntropy', async () => {
    const x = up([0, Math.log(3), 1000, 1000], 2, 2)
    const loss = kernels.tensor(2, 1)
    kernels.crossEntropy(loss, x, Uint32Array.of(0, 1))
    near(await kernels.read(loss), [Math.log(4), Math.log(2)])
    kernels.softmax(x)
    near(await kernels.read(x), [0.25, 0.75, 0.5, 0.5])
  })

  it('divergence: ½ log(½ / ¼) + ½ log(½ / ¾)', async () => {
    const out = kernels.tensor(1, 1)
    kernels.divergence(out, up([7, 7], 1, 2), up([0, Math.log(3)], 1, 2))
    near(await kernels.read(out), [0.5 * Math.log(2) + 0.5 * Math.log(2 / 3)])
  })

  it('rmsNorm of (3, 4): the mean square is 12.5', async () => {
    const out = kernels.tensor(1, 2)
    kernels.rmsNorm(out, up([3, 4], 1, 2), up([1, 2], 1, 2), 0)
    near(await kernels.read(out), [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)])
    kernels.rmsNorm(out, up([3, 4], 1, 2), up([1, 2], 1, 2), 3.5)
    near(await kernels.read(out), [0.75, 2])
  })

  it('layerNorm of (1, 3): centre 2, variance 1', async () => {
    const out = kernels.tensor(1, 2)
    kernels.layerNorm(out, up([1, 3], 1, 2), up([2, 5], 1, 2), up([10, 20], 1, 2), 0)
    near(await kernels.read(out), [8, 25])
  })

  it('rope turns (x0, x2) and (x1, x3) by the angles of their position', async () => {
    const x = up([1, 2, 0, 0, 1, 2, 3, 4], 2, 4)
    // Position 0 is skipped; 1 turns by 90° and 0°, 2 by 180° and 90°.
    const cos = up([9, 9, 0, 1, -1, 0], 3, 2)
    const sin = up([9, 9, 1, 0, 0, 1], 3, 2)
    kernels.rope(x, cos, sin, 4, 1)
    near(await kernels.read(x), [0, 2, 1, 0, -1, -4, -3, 2])
  })

  it('activations at 1', async () => {
    const [gate, up_, out] = [up([1], 1, 1), up([2], 1, 1), kernels.tensor(1, 1)]
    for (const [kind, value] of [
      ['silu', 0.7310585786],
      ['gelu', 0.8411919906],
      ['gelu_erf', 0.8413447461],
      ['relu', 1],
    ] as const) {
      kernels.activate(out, gate, up_, kind)
      near(await kernels.read(out), [2 * value])
    }
  })

  it('attention on 2 × 2: the first row sees only itself', async () => {
    const out = kernels.tensor(2, 2)
    const log3 = Math.log(3)
    kernels.attention(
      out,
      up([1, 1, log3, 0], 2, 2),
      up([0, 0, 1, 0], 2, 2),
      up([10, 20, 30, 40], 2, 2),
      { heads: 1, keyValueHeads: 1, headSize: 2, scale: 1, start: 0 },
    )
    // Scores of the second row: 0 and log 3, so weights ¼ and ¾.
    near(await kernels.read(out), [10, 20, 25, 35], 4)
  })

  it('grouped heads: heads 0 and 1 read the first keys, 2 and 3 the second', async () => {
    const out = kernels.tensor(1, 4)
    const shape = { heads: 4, keyValueHeads: 2, headSize: 1, scale: 1, start: 1 }
    const same = up([1, 1, 1, 1], 2, 2)
    kernels.attention(out, up([1, 1, 1, 1], 1, 4), same, up([2, 10, 4, 20], 2, 2), shape)
    near(await kernels.read(out), [3, 3, 15, 15])
  })
})

describe('quantizing', () => {
  const fitted = async (values: number[], options: Partial<Parameters<typeof kernels.fit>[3]>) => {
    const asymmetric = options.asymmetric ?? false
    const [scale, zero] = [kernels.tensor(1, 1), asymmetric ? kernels.tensor(1, 1) : undefined]
    kernels.fit(scale, zero, up(values, 1, values.length), {
      grid: signedGrid(4),
      blockRows: 1,
      blockColumns: values.length,
      search: { candidates: 1, step: 0.02 },
      scaleType: 'f32',
      ...options,
      asymmetric,
    })
    return [(await kernels.read(scale))[0], zero && (await kernels.read(zero))[0]]
  }

  it('half to even', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6].map((x) => roundHalfEven(x) + 0)).toEqual([
      0, 2, 2, 0, -2, 2, -3,
    ])
  })

  it('ranges', async () => {
    expect(await fitted([0.75, -1.5], {})).toEqual([Math.fround(3 / 15), undefined])
    expect(await fitted([-1, 2], { grid: unsignedGrid(2), asymmetric: true })).toEqual([1, 1])
    // Only positive weights: the range still begins at 0.
    expect(await fitted([3, 6], { grid: unsignedGrid(2), asymmetric: true })).toEqual([2, 0])
    expect(await fitted([-2, 4, 0], { grid: ternaryGrid() })).toEqual([4, undefined])
    expect(await fitted([-1, 4, 1], { grid: binaryGrid() })).toEqual([2, undefined])
  })

  it('types of scales', async () => {
    expect(await fitted([0.1], { grid: ternaryGrid(), scaleType: 'f16' })).toEqual([
      0.0999755859375,
      undefined,
    ])
    expect(await fitted([0.1], { grid: ternaryGrid(), scaleType: 'bf16' })).toEqual([
      0.10009765625,
      undefined,
    ])
    // ⌊log₂ 100⌋ = 6, ⌊log₂ 8⌋ = 3.
    expect(await fitted([100], { scaleType: 'f8_e8m0' })).toEqual([8, undefined])
    expect(await fitted([0], { scaleType: 'f16' })).toEqual([2 ** -24, undefined])
    expect(await fitted([1e9], { scaleType: 'f16' })).toEqual([65504, undefined])
  })

  it('a search finds the range that cuts an unimportant outlier', async () => {
    const importance = up([1, 1, 0], 1, 3)
    const search = { candidates: 2, step: 0.5 }
    const [scale] = await fitted([1, -1, 2], { grid: ternaryGrid(), importance, search })
    expect(scale).toBe(1)
  })

  it('codes with a zero point, and at the ends', async () => {
    const [codes, decoded] = [kernels.tensor(1, 5, 'u8'), kernels.tensor(1, 5)]
    kernels.round(
      codes,
      decoded,
      up([-1, 0.26, 0.74, 9, -9], 1, 5),
      up([0.5], 1, 1),
      up([1], 1, 1),
      {
        grid: unsignedGrid(2),
        blockRows: 1,
        blockColumns: 5,
      },
    )
    expect([...(await kernels.readCodes(codes))]).toEqual([0, 2, 2, 3, 0])
    expect([...(await kernels.read(decoded))]).toEqual([-0.5, 0.5, 0.5, 1, -0.5])
  })

  it('UᵀU of a 2 × 2 matrix, in both orders', async () => {
    // (2 1; 1 2)⁻¹ = ⅓ (2 −1; −1 2).
    const out = kernels.tensor(2, 2)
    expect(await kernels.factorInverse(out, up([1, 1, 1, 1], 2, 2), 1)).toBe(true)
    const u = Math.sqrt(2 / 3)
    near(await kernels.read(out), [u, -1 / 3 / u, 0, Math.sqrt(2 / 3 - 1 / 9 / u ** 2)])
    const lopsided = up([4, 0, 0, 1], 2, 2)
    expect(await kernels.factorInverse(out, lopsided, 0, Uint32Array.of(1, 0))).toBe(true)
    near(await kernels.read(out), [1, 0, 0, 0.5])
  })

  it('the feedback pass is OBQ in a fixed order', async () => {
    // Optimal brain quantization: round one weight, then move all that are left to where the quadratic
    // error is least: w_F ← w_F + H_FF⁻¹ · H_Fj · (w_j − q_j). No factor and no inverse of the whole.
    for (let seed = 0; seed < 20; seed++) {
      const random = seededRandom(seed)
      const h = randomHessian(3, random, { tokens: 9 })
      for (let i = 0; i < 3; i++) h[4 * i] += 0.1
      const start = [...randomValues(3, random)]
      const w = [...start]
      const round = (x: number): number => 0.25 * Math.max(-8, Math.min(7, roundHalfEven(x / 0.25)))
      const first = w[0] - round(w[0])
      const determinant = h[4] * h[8] - h[5] * h[7]
      w[1] += ((h[8] * h[1] - h[5] * h[2]) / determinant) * first
      w[2] += ((h[4] * h[2] - h[7] * h[1]) / determinant) * first
      w[2] += (h[5] / h[8]) * (w[1] - round(w[1]))

      const factor = kernels.tensor(3, 3)
      expect(await kernels.factorInverse(factor, kernels.upload(h, 3, 3), 0)).toBe(true)
      const weight = up(start, 1, 3)
      const grid = signedGrid(4)
      const options = { grid, blockRows: 1, blockColumns: 3, from: 0, to: 3 }
      const codes = kernels.tensor(1, 3, 'u8')
      kernels.feedback(codes, weight, factor, up([0.25], 1, 1), undefined, options)
      near(await kernels.read(weight), w.map(round))
    }
  })
})

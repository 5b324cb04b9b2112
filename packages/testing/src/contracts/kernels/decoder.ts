/** The operations between a decoder's matrices, and those on logits. */

import { type AttentionShape, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomIntegers, randomValues } from '../../random.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { type BenchOf, expectClose, expectNear, expectRefusal } from './bench.ts'

export function decoderContract(open: BenchOf, it: Declare): void {
  it('rmsNorm', async () => {
    for (const [rows, n] of [...ODD_SHAPES, [2, 513] as const]) {
      const random = seededRandom(n)
      const [x, gain] = [randomValues(rows * n, random), randomValues(n, random)]
      for (const size of [1e-4, 1, 1e4]) {
        const scaled = x.map((value) => value * size)
        const [actual, expected] = await open().both(({ kernels, up, zeros }) => {
          const out = zeros(rows, n)
          kernels.rmsNorm(out, up(scaled, rows, n), up(gain, 1, n), 1e-5)
          return kernels.read(out)
        })
        expectClose(actual, expected, `rmsNorm ${rows} × ${n}, ${size}`, 1e-5, n)
      }
    }
  })

  it('layerNorm, with and without bias', async () => {
    for (const [rows, n] of [...ODD_SHAPES, [2, 513] as const]) {
      const random = seededRandom(n)
      const x = randomValues(rows * n, random).map((value) => value + 3)
      const [gain, bias] = [randomValues(n, random), randomValues(n, random)]
      for (const b of [undefined, bias]) {
        const [actual, expected] = await open().both(({ kernels, up, zeros }) => {
          const out = zeros(rows, n)
          kernels.layerNorm(out, up(x, rows, n), up(gain, 1, n), b && up(b, 1, n), 1e-5)
          return kernels.read(out)
        })
        // A column of 1 is all centre: what is left is rounding over √ε.
        expectClose(actual, expected, `layerNorm ${rows} × ${n}`, n === 1 ? 1e-2 : 2e-5, n)
      }
    }
  })

  it('norms of zeros are zeros', async () => {
    const { kernels, up, zeros } = open()
    const [out, gain] = [zeros(2, 5), up([1, 1, 1, 1, 1], 1, 5)]
    kernels.rmsNorm(out, zeros(2, 5), gain, 1e-6)
    expect(await kernels.read(out)).toEqual(new Float32Array(10))
    kernels.layerNorm(out, zeros(2, 5), gain, undefined, 1e-6)
    expect(await kernels.read(out)).toEqual(new Float32Array(10))
  })

  it('add, rows by rows or one row to all', async () => {
    for (const [rows, n] of ODD_SHAPES) {
      const random = seededRandom(n)
      const [x, y] = [randomValues(rows * n, random), randomValues(rows * n, random)]
      for (const height of [rows, 1]) {
        const [actual, expected] = await open().both(({ kernels, up }) => {
          const out = up(x, rows, n)
          kernels.add(out, up(y.slice(0, height * n), height, n))
          return kernels.read(out)
        })
        expect(actual, `add ${rows} × ${n} + ${height} × ${n}`).toEqual(expected)
      }
    }
  })

  it.each([
    [1, 1, 2, 0],
    [3, 2, 8, 0],
    [5, 3, 10, 4],
    [1, 4, 64, 11],
  ])('rope: %i rows, %i heads of size %i, from %i on', async (rows, heads, size, start) => {
    const random = seededRandom(size)
    const x = randomValues(rows * heads * size, random)
    const angles = randomValues(16 * (size / 2), random, 3)
    const [actual, expected] = await open().both(({ kernels, up }) => {
      const tensor = up(x, rows, heads * size)
      const [cos, sin] = [Math.cos, Math.sin].map((f) => up(angles.map(f), 16, size / 2))
      kernels.rope(tensor, cos, sin, size, start)
      return kernels.read(tensor)
    })
    expectClose(actual, expected, 'rope', 1e-6)
  })

  it.each(['silu', 'gelu', 'gelu_erf', 'relu'] as const)('activate: %s', async (kind) => {
    const steep = [-1e30, -200, -89, -20, -1e-8, -0, 0, 1e-8, 20, 89, 200, 1e30]
    const gate = Float32Array.from([...randomValues(33, seededRandom(1), 3), ...steep])
    const up_ = randomValues(gate.length, seededRandom(2))
    for (const factor of [undefined, up_]) {
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const [g, u] = [up(gate, 1, gate.length), factor && up(factor, 1, gate.length)]
        const out = zeros(1, gate.length)
        kernels.activate(out, g, u, kind)
        kernels.activate(g, g, u, kind)
        return [await kernels.read(out), await kernels.read(g)]
      })
      expect(actual[1], 'in place').toEqual(actual[0])
      for (let i = 0; i < gate.length; i++) {
        const should = expected[0][i]
        const bound = 1e-5 * Math.abs(should) + 1e-6
        expectNear(actual[0][i], should, bound, `${kind}(${gate[i]})`)
      }
    }
  })

  it.each([
    [1, 0, 1, 1, 4],
    [7, 0, 4, 4, 8],
    [5, 3, 4, 2, 16],
    [1, 40, 6, 2, 10],
    [33, 5, 8, 1, 32],
    [70, 0, 2, 1, 64],
  ])('attention: %i rows from %i on, %i heads on %i of size %i', async (...shape) => {
    const [rows, start, heads, keyValueHeads, headSize] = shape
    const random = seededRandom(rows + start)
    const width = keyValueHeads * headSize
    // The cache has room for more than has been seen; what lies there must not matter.
    const length = start + rows + 3
    const q = randomValues(rows * heads * headSize, random)
    const [k, v] = [randomValues(length * width, random), randomValues(length * width, random)]
    k.fill(Number.NaN, (start + rows) * width)
    v.fill(Number.NaN, (start + rows) * width)
    const scale = 1 / Math.sqrt(headSize)
    const [actual, expected] = await open().both(({ kernels, up, zeros }) => {
      const out = zeros(rows, heads * headSize)
      const queries = up(q, rows, heads * headSize)
      kernels.attention(out, queries, up(k, length, width), up(v, length, width), {
        heads,
        keyValueHeads,
        headSize,
        scale,
        start,
      })
      return kernels.read(out)
    })
    expectClose(actual, expected, 'attention', 1e-5, heads * headSize)
  })

  it('attention with scores in the thousands', async () => {
    const { kernels, up, zeros } = open()
    const shape: AttentionShape = { heads: 1, keyValueHeads: 1, headSize: 1, scale: 1, start: 0 }
    const out = zeros(2, 1)
    kernels.attention(out, up([1, 100], 2, 1), up([-300, 300], 2, 1), up([5, 7], 2, 1), shape)
    expect([...(await kernels.read(out))]).toEqual([5, 7])
  })

  it('softmax, crossEntropy and divergence', async () => {
    for (const [rows, n] of [...ODD_SHAPES, [3, 2050] as const]) {
      const random = seededRandom(n)
      const targets = randomIntegers(rows, n, random)
      for (const size of [0.1, 5, 1000]) {
        const logits = randomValues(rows * n, random, size)
        const near = logits.map((value) => value + size * 0.01 * random())
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const x = up(logits, rows, n)
          const [loss, distance] = [zeros(rows, 1), zeros(rows, 1)]
          kernels.crossEntropy(loss, x, targets)
          kernels.divergence(distance, x, up(near, rows, n))
          kernels.softmax(x)
          return [await kernels.read(x), await kernels.read(loss), await kernels.read(distance)]
        })
        const what = `${rows} × ${n} logits of size ${size}`
        // Differences of logits of size 1000 carry a rounding of 1000 · 2^-24.
        const slack = 1e-6 * (1 + size)
        expectClose(actual[0], expected[0], `softmax of ${what}`, 2e-5 + slack, n)
        for (const [name, i] of [
          ['crossEntropy', 1],
          ['divergence', 2],
        ] as const) {
          for (let row = 0; row < rows; row++) {
            const should = expected[i][row]
            const bound = 1e-5 * Math.abs(should) + 3 * slack
            expectNear(actual[i][row], should, bound, `${name} of ${what}, row ${row}`)
          }
        }
      }
    }
  })

  it('logits far apart give no NaN', async () => {
    const { kernels, up, zeros } = open()
    const x = up([1e30, -1e30, 0, 3e4, 3e4, -3e4], 2, 3)
    const [loss, distance] = [zeros(2, 1), zeros(2, 1)]
    kernels.crossEntropy(loss, x, Uint32Array.of(0, 1))
    kernels.divergence(distance, x, x)
    kernels.softmax(x)
    expectClose(await kernels.read(x), [1, 0, 0, 0.5, 0.5, 0], 'softmax', 1e-6)
    expectClose(await kernels.read(loss), [0, Math.log(2)], 'crossEntropy', 1e-6)
    expect([...(await kernels.read(distance))]).toEqual([0, 0])
  })

  it('the sum of a softmax is 1', async () => {
    const { kernels, up } = open()
    const x = up(randomValues(32_000, seededRandom(3)), 1, 32_000)
    kernels.softmax(x)
    const sum = (await kernels.read(x)).reduce((total, p) => total + p, 0)
    expectNear(sum, 1, 1e-4, 'Σ')
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const shape: AttentionShape = { heads: 2, keyValueHeads: 1, headSize: 4, scale: 1, start: 0 }
    const attend = (rows: number, other: Partial<AttentionShape> = {}) =>
      kernels.attention(zeros(2, 8), zeros(2, 8), zeros(rows, 4), zeros(rows, 4), {
        ...shape,
        ...other,
      })
    const [x, gain] = [zeros(2, 4), zeros(1, 4)]
    await expectRefusal('rmsNorm gain', () => kernels.rmsNorm(zeros(2, 4), x, zeros(1, 3), 1))
    await expectRefusal('rmsNorm out', () => kernels.rmsNorm(zeros(1, 4), x, gain, 1))
    await expectRefusal('layerNorm bias', () =>
      kernels.layerNorm(zeros(2, 4), x, gain, zeros(1, 5), 1),
    )
    await expectRefusal('add', () => kernels.add(zeros(3, 4), zeros(2, 4)))
    await expectRefusal('add columns', () => kernels.add(zeros(3, 4), zeros(1, 3)))
    await expectRefusal('rope heads', () => kernels.rope(x, zeros(9, 3), zeros(9, 3), 6, 0))
    await expectRefusal('rope positions', () => kernels.rope(x, zeros(3, 2), zeros(3, 2), 4, 2))
    await expectRefusal('activate', () => kernels.activate(x, zeros(2, 3), undefined, 'relu'))
    await expectRefusal('activate up', () => kernels.activate(x, zeros(2, 4), gain, 'relu'))
    await expectRefusal('attention: too few keys', () => attend(1))
    await expectRefusal('attention: too few keys for the start', () => attend(3, { start: 2 }))
    await expectRefusal('attention: head size', () => attend(2, { headSize: 3 }))
    await expectRefusal('crossEntropy targets', () =>
      kernels.crossEntropy(zeros(2, 1), x, Uint32Array.of(1)),
    )
    await expectRefusal('a target that is no token', () =>
      kernels.crossEntropy(zeros(2, 1), x, Uint32Array.of(1, 4)),
    )
    await expectRefusal('divergence', () => kernels.divergence(zeros(2, 1), x, zeros(2, 3)))
    await expectRefusal('sample', () => kernels.sample(x, { ...GREEDY, temperature: 1 }))
  })
}

const GREEDY = { temperature: 0, topK: 0, topP: 1, random: 0.5 }

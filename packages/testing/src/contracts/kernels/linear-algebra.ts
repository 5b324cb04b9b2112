/** The linear algebra of calibration. */

import { rotateColumns, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomHessian, randomOrder, randomValues } from '../../random.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { type BenchOf, expectClose, expectNear, expectRefusal } from './bench.ts'

const SIZES = [1, 2, 3, 7, 16, 33, 65, 130]

export function linearAlgebraContract(open: BenchOf, it: Declare): void {
  it('rotations of rows, undone by their transpose', async () => {
    for (const [rows, columns, block] of [
      [1, 1, 1],
      [3, 12, 4],
      [5, 96, 32],
      [2, 512, 512],
    ]) {
      const random = seededRandom(columns)
      const x = randomValues(rows * columns, random)
      const signs = Uint8Array.from({ length: Math.ceil(columns / 8) }, () => random() * 256)
      const [actual, expected] = await open().both(async ({ kernels, up }) => {
        const tensor = up(x, rows, columns)
        kernels.rotate(tensor, { block, signs })
        return kernels.read(tensor)
      })
      expectClose(actual, expected, `blocks of ${block}`, 1e-5)
      // A weight of R·w for x of R·x gives w·x again: decode says what a rotation means.
      const back = actual.slice()
      rotateColumns(back, rows, columns, { block, signs })
      expectClose(back, x, 'turned back', 1e-5)
    }
  })

  it.each([
    [1, 1, 1],
    [7, 3, 5],
    [40, 33, 18],
    [130, 9, 70],
  ])('products of transposed matrices: %d tokens, %d × %d', async (tokens, m, n) => {
    const random = seededRandom(tokens)
    const [a, b, start] = [tokens * m, tokens * n, m * n].map((size) => randomValues(size, random))
    const [actual, expected] = await open().both(async ({ kernels, up }) => {
      const out = up(start, m, n)
      kernels.crossGram(out, up(a, tokens, m), up(b, tokens, n), 0.5)
      return kernels.read(out)
    })
    expectClose(actual, expected, 'out', 1e-5)
  })

  it('moments of columns, scaling and products of elements', async () => {
    for (const [rows, columns] of ODD_SHAPES) {
      const random = seededRandom(rows + columns)
      const [x, y] = [0, 1].map(() => randomValues(rows * columns, random))
      const [r, c, b] = [rows, columns, columns].map((n) => randomValues(n, random))
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const tensor = up(x, rows, columns)
        const moments = zeros(4, columns)
        kernels.columnMoments(moments, tensor)
        const [by, both] = [zeros(rows, columns), zeros(rows, columns)]
        kernels.scale(by, tensor, { columns: up(c, 1, columns) })
        kernels.scale(both, tensor, {
          ...{ rows: up(r, rows, 1), columns: up(c, 1, columns), bias: up(b, 1, columns) },
        })
        kernels.times(tensor, up(y, rows, columns))
        return Promise.all([moments, by, both, tensor].map((each) => kernels.read(each)))
      })
      for (const i of actual.keys()) expectClose(actual[i], expected[i], `result ${i}`, 1e-6)
    }
  })

  it.each([
    [1, 1, 1],
    [1, 7, 3],
    [5, 33, 17],
    [37, 70, 66],
    [3, 5, 130],
  ])('multiply: %i × %i by %i', async (t, k, n) => {
    const random = seededRandom(t)
    const [a, b] = [randomValues(t * k, random), randomValues(n * k, random)]
    const [actual, expected] = await open().both(({ kernels, up, zeros }) => {
      const out = zeros(t, n)
      kernels.multiply(out, up(a, t, k), up(b, n, k))
      return kernels.read(out)
    })
    expectClose(actual, expected, 'multiply')
  })

  it('multiply overwrites what was there', async () => {
    const { kernels, up } = open()
    const out = up([100], 1, 1)
    kernels.multiply(out, up([2, 3], 1, 2), up([4, 5], 1, 2))
    expect([...(await kernels.read(out))]).toEqual([23])
  })

  it.each([
    [1, 1],
    [1, 9],
    [40, 17],
    [5, 66],
    [300, 33],
  ])('gram: %i tokens of %i features, added in two steps', async (tokens, n) => {
    const random = seededRandom(n)
    const first = randomValues(tokens * n, random)
    const second = randomValues(tokens * n, random)
    const [actual, expected] = await open().both(({ kernels, up, zeros }) => {
      const hessian = zeros(n, n)
      kernels.gram(hessian, up(first, tokens, n), 0.5)
      kernels.gram(hessian, up(second, tokens, n), 2)
      return kernels.read(hessian)
    })
    expectClose(actual, expected, 'gram')
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < i; j++) {
        expect(Object.is(actual[i * n + j], actual[j * n + i]), `symmetric at ${i}, ${j}`).toBe(
          true,
        )
      }
    }
  })

  it('diagonal', async () => {
    const { kernels, up, zeros } = open()
    const out = zeros(1, 3)
    kernels.diagonal(out, up([1, 2, 3, 4, 5, 6, 7, 8, 9], 3, 3))
    expect([...(await kernels.read(out))]).toEqual([1, 5, 9])
  })

  it.each(SIZES)('permuteColumns of %i', async (n) => {
    const { kernels, up, zeros } = open()
    const x = randomValues(3 * n, seededRandom(n))
    const order = randomOrder(n, seededRandom(n + 1))
    const out = zeros(3, n)
    kernels.permuteColumns(out, up(x, 3, n), order)
    const expected = Array.from(x, (_, i) => x[Math.floor(i / n) * n + order[i % n]])
    expect([...(await kernels.read(out))]).toEqual(expected)
  })

  it('permuteColumns gathers fewer columns, and one of them twice', async () => {
    const { kernels, up, zeros } = open()
    const out = zeros(2, 3)
    kernels.permuteColumns(out, up([1, 2, 3, 4, 5, 6, 7, 8], 2, 4), Uint32Array.of(3, 1, 3))
    expect([...(await kernels.read(out))]).toEqual([4, 2, 4, 8, 6, 8])
  })

  it.each(SIZES)(
    'factorInverse of %i: UᵀU is the inverse, with and without an order',
    async (n) => {
      const { kernels, up, zeros } = open()
      const hessian = randomHessian(n, seededRandom(n))
      const tensor = up(hessian, n, n)
      const damping = 0.05 * mean(hessian, n)
      for (const order of [undefined, randomOrder(n, seededRandom(n))]) {
        const out = up(new Float32Array(n * n).fill(9), n, n)
        expect(await kernels.factorInverse(out, tensor, damping, order)).toBe(true)
        const u = await kernels.read(out)
        const at = (i: number): number => (order ? order[i] : i)
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < i; j++)
            expect(u[i * n + j], `below the diagonal at ${i}, ${j}`).toBe(0)
        }
        // UᵀU · (P·H·Pᵀ + damping·1) = 1.
        const damped = Float64Array.from(hessian, (_, i) => {
          const [row, column] = [Math.floor(i / n), i % n]
          return hessian[at(row) * n + at(column)] + (row === column ? damping : 0)
        })
        const product = times(gramOf(u, n), damped, n)
        for (let i = 0; i < n * n; i++) {
          const unit = Math.floor(i / n) === i % n ? 1 : 0
          expectNear(product[i], unit, 5e-3, `${order ? 'ordered' : 'plain'}: UᵀU·H [${i}]`)
        }
      }
      expect(await kernels.read(zeros(1, 1)), 'still alive').toEqual(new Float32Array(1))
      expect(await kernels.read(tensor), 'the Hessian is left alone').toEqual(hessian)
    },
  )

  it('factorInverse agrees with the reference', async () => {
    const n = 48
    const hessian = randomHessian(n, seededRandom(6))
    const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
      const out = zeros(n, n)
      await kernels.factorInverse(out, up(hessian, n, n), 0.01 * mean(hessian, n))
      return kernels.read(out)
    })
    expectClose(actual, expected, 'U', 1e-3)
  })

  it.each([
    ['zeros', new Float32Array(9), 0],
    ['ones (rank 1)', new Float32Array(9).fill(1), 0],
    ['a dead column', Float32Array.of(2, 0, 1, 0, 0, 0, 1, 0, 2), 0],
    ['negative', Float32Array.of(1, 0, 0, 0, -3, 0, 0, 0, 1), 1],
    ['NaN', Float32Array.of(1, 0, 0, 0, Number.NaN, 0, 0, 0, 1), 1],
  ])('factorInverse says no to a matrix of %s', async (_, hessian, damping) => {
    const { kernels, up, zeros } = open()
    expect(await kernels.factorInverse(zeros(3, 3), up(hessian, 3, 3), damping)).toBe(false)
  })

  it('damping mends a dead column', async () => {
    const { kernels, up, zeros } = open()
    const out = zeros(2, 2)
    expect(await kernels.factorInverse(out, up([3, 0, 0, 0], 2, 2), 1)).toBe(true)
    expectClose(await kernels.read(out), [0.5, 0, 0, 1], 'U')
  })

  it.each([
    [1, 1],
    [3, 7],
    [17, 65],
    [40, 130],
  ])('distance of %i × %i, with H and without, with b and without', async (rows, n) => {
    const random = seededRandom(rows)
    const [a, b] = [randomValues(rows * n, random), randomValues(rows * n, random)]
    const hessian = randomHessian(n, random)
    const [actual, expected] = await open().both(async ({ kernels, up }) => {
      const [p, q, h] = [up(a, rows, n), up(b, rows, n), up(hessian, n, n)]
      return [
        await kernels.distance(p, q),
        await kernels.distance(p, undefined),
        await kernels.distance(p, q, h),
        await kernels.distance(p, undefined, h),
        await kernels.distance(p, p, h),
      ]
    })
    actual.forEach((value, i) => {
      expectNear(value, expected[i], 1e-4 * expected[i], `distance ${i}`)
    })
    expect(actual[4]).toBe(0)
  })

  it('distance shows what is not finite', async () => {
    const { kernels, up } = open()
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const values = new Float32Array(70).fill(1)
      values[43] = bad
      expect(Number.isFinite(await kernels.distance(up(values, 7, 10), undefined))).toBe(false)
    }
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    await expectRefusal('multiply', () => kernels.multiply(zeros(1, 1), zeros(1, 2), zeros(1, 3)))
    await expectRefusal('multiply out', () =>
      kernels.multiply(zeros(2, 2), zeros(1, 3), zeros(2, 3)),
    )
    await expectRefusal('gram', () => kernels.gram(zeros(2, 2), zeros(4, 3), 1))
    await expectRefusal('diagonal', () => kernels.diagonal(zeros(1, 2), zeros(3, 3)))
    await expectRefusal('factorInverse', () => kernels.factorInverse(zeros(2, 2), zeros(3, 3), 1))
    await expectRefusal('permuteColumns', () =>
      kernels.permuteColumns(zeros(1, 2), zeros(1, 2), Uint32Array.of(0, 2)),
    )
    await expectRefusal('permuteColumns out', () =>
      kernels.permuteColumns(zeros(1, 2), zeros(1, 2), Uint32Array.of(0)),
    )
    await expectRefusal('distance', () => kernels.distance(zeros(2, 2), zeros(2, 3)))
    await expectRefusal('distance H', () => kernels.distance(zeros(2, 2), undefined, zeros(3, 3)))
  })
}

/** Mean of the diagonal. */
function mean(matrix: Float32Array, n: number): number {
  let sum = 0
  for (let i = 0; i < n; i++) sum += matrix[i * n + i]
  return sum / n
}

function gramOf(u: Float32Array, n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, index) => {
    const [i, j] = [Math.floor(index / n), index % n]
    let sum = 0
    for (let k = 0; k <= Math.min(i, j); k++) sum += u[k * n + i] * u[k * n + j]
    return sum
  })
}

function times(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const out = new Float64Array(n * n)
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      for (let j = 0; j < n; j++) out[i * n + j] += a[i * n + k] * b[k * n + j]
    }
  }
  return out
}

import { describe, expect, it } from 'vitest'
import {
  error,
  everyBuild,
  normals,
  permutation,
  product,
  seeded,
  using,
  withThreads,
} from '../plain-loops.ts'

/** A random positive definite matrix with correlations between neighbours. */
function hessian(seed: number, n: number): Float32Array<ArrayBuffer> {
  const random = seeded(seed)
  const tokens = n * 2 + 3
  const x = normals(random, n * tokens)
  for (let i = tokens; i < x.length; i++) x[i] = 0.6 * x[i - tokens] + 0.8 * x[i]
  return Float32Array.from(product(x, x, n, n, tokens))
}

describe.each(everyBuild)('linear algebra, %j', (options) => {
  it('multiplies', async () => {
    const random = seeded(1)
    await using(options, async (kernels) => {
      for (const [rows, columns, depth] of [
        [1, 1, 1],
        [5, 7, 3],
        [6, 8, 256],
        [13, 70, 515],
        [520, 9, 31],
        [100, 129, 257],
      ]) {
        const [a, b] = [normals(random, rows * depth), normals(random, columns * depth)]
        const out = kernels.tensor(rows, columns)
        kernels.multiply(out, kernels.upload(a, rows, depth), kernels.upload(b, columns, depth))
        const expected = product(a, b, rows, columns, depth)
        expect(error(await kernels.read(out), expected)).toBeLessThan(1e-6)
      }
    })
  })

  it('accumulates Gram matrices in both triangles', async () => {
    const random = seeded(2)
    await using(options, async (kernels) => {
      for (const [tokens, n] of [
        [1, 1],
        [3, 9],
        [70, 150],
        [40, 530],
      ]) {
        const x = normals(random, tokens * n)
        const turned = Float32Array.from({ length: n * tokens }, (_, i) => {
          return x[(i % tokens) * n + Math.floor(i / tokens)]
        })
        const before = Float32Array.from(product(turned, turned, n, n, tokens))
        const out = kernels.upload(before, n, n)
        kernels.gram(out, kernels.upload(x, tokens, n), 0.5)
        const actual = await kernels.read(out)
        const expected = before.map((value) => value * 1.5)
        expect(error(actual, expected)).toBeLessThan(1e-6)
        for (let i = 0; i < n; i += 7) {
          for (let j = 0; j < i; j++) expect(actual[i * n + j]).toBe(actual[j * n + i])
        }
      }
    })
  })

  it.each([1, 2, 5, 63, 64, 65, 150])('factors the inverse of %i²', async (n) => {
    const h = hessian(n, n)
    const order = permutation(seeded(n), n)
    await using(options, async (kernels) => {
      for (const permuted of [false, true]) {
        const out = kernels.tensor(n, n)
        const damping = 0.01 * h[0]
        const source = kernels.upload(h, n, n)
        expect(
          await kernels.factorInverse(out, source, damping, permuted ? order : undefined),
        ).toBe(true)
        const u = await kernels.read(out)
        // (UᵀU)·H must be 1: first V = U·H, then Uᵀ·V.
        const g = Float64Array.from({ length: n * n }, (_, at) => {
          const [i, j] = [Math.floor(at / n), at % n]
          return (
            h[(permuted ? order[i] : i) * n + (permuted ? order[j] : j)] + (i === j ? damping : 0)
          )
        })
        const v = product(u, g, n, n, n)
        const columnsOf = (m: ArrayLike<number>) =>
          Float64Array.from({ length: n * n }, (_, at) => m[(at % n) * n + Math.floor(at / n)])
        const identity = product(columnsOf(u), columnsOf(v), n, n, n)
        for (let i = 0; i < n; i++) {
          identity[i * n + i] -= 1
          for (let j = 0; j < i; j++) expect(u[i * n + j]).toBe(0)
        }
        expect(Math.max(...identity.map(Math.abs))).toBeLessThan(3e-4)
      }
    })
  })

  it('refuses what is not positive definite', async () => {
    await using(options, async (kernels) => {
      for (const n of [3, 100]) {
        const h = hessian(3, n)
        for (const bad of [-1, 0, Number.NaN, Number.POSITIVE_INFINITY]) {
          const broken = h.slice()
          broken[(n - 2) * n + n - 2] = bad
          const out = kernels.tensor(n, n)
          expect(await kernels.factorInverse(out, kernels.upload(broken, n, n), 0)).toBe(false)
        }
      }
    })
  })

  it('takes diagonals, permutes columns and measures distances', async () => {
    const random = seeded(4)
    await using(options, async (kernels) => {
      const [rows, n] = [9, 37]
      const [a, b] = [normals(random, rows * n), normals(random, rows * n)]
      const h = hessian(5, n)
      const [ta, tb, th] = [
        kernels.upload(a, rows, n),
        kernels.upload(b, rows, n),
        kernels.upload(h, n, n),
      ]
      const diagonal = kernels.tensor(1, n)
      kernels.diagonal(diagonal, th)
      expect(await kernels.read(diagonal)).toEqual(
        Float32Array.from({ length: n }, (_, i) => h[i * n + i]),
      )
      const order = permutation(random, n)
      const moved = kernels.tensor(rows, n)
      kernels.permuteColumns(moved, ta, order)
      const expected = a.map((_, at) => a[Math.floor(at / n) * n + order[at % n]])
      expect(await kernels.read(moved)).toEqual(expected)
      const d = a.map((value, i) => value - b[i])
      const dh = product(d, h, rows, n, n)
      const sum = (x: Float32Array, y: ArrayLike<number>) => x.reduce((s, v, i) => s + v * y[i], 0)
      expect(await kernels.distance(ta, tb)).toBeCloseTo(sum(d, d), 4)
      expect((await kernels.distance(ta, tb, th)) / sum(d, dh)).toBeCloseTo(1, 5)
      expect((await kernels.distance(ta, undefined)) / sum(a, a)).toBeCloseTo(1, 6)
    })
  })
})

it('gives the same bits for any number of threads', async () => {
  const results = await withThreads(async (kernels) => {
    const random = seeded(6)
    const n = 260
    const out = kernels.tensor(n, n)
    const x = kernels.upload(normals(random, 300 * n), 300, n)
    kernels.gram(out, x, 0.1)
    const factor = kernels.tensor(n, n)
    await kernels.factorInverse(factor, out, 0.5)
    const other = kernels.tensor(300, n)
    kernels.multiply(other, x, out)
    return [await kernels.read(out), await kernels.read(factor), await kernels.read(other)]
  })
  expect(results[1]).toEqual(results[0])
  expect(results[2]).toEqual(results[0])
})

import { seededRandom, type Tensor } from '@lowbit/core'
import { randomValues, referenceKernels } from '@lowbit/testing'
import { expect, it } from 'vitest'
import { aimWeight } from './aim.ts'

const kernels = referenceKernels()
const [rows, columns, tokens, lambda] = [5, 7, 40, 0.3]

/** out = a·b for plain arrays: [m, k] · [k, n]. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number) {
  return Float32Array.from({ length: m * n }, (_, i) => {
    let sum = 0
    for (let j = 0; j < k; j++) sum += a[Math.floor(i / n) * k + j] * b[j * n + (i % n)]
    return sum
  })
}

const turned = (a: ArrayLike<number>, m: number, n: number): Float32Array =>
  Float32Array.from({ length: m * n }, (_, i) => a[(i % m) * n + Math.floor(i / m)])

it.each([false, true])('solves the normal equations of its loss, residual: %s', async (adds) => {
  const random = seededRandom(4)
  const original = randomValues(tokens * columns, random)
  const now = original.map((x) => x + 0.3 * randomValues(1, random)[0])
  const lost = randomValues(tokens * rows, random, 0.2)
  const before = randomValues(rows * columns, random)
  const nowT = turned(now, tokens, columns)
  const hessian = product(nowT, now, columns, tokens, columns)
  const apart = original.map((x, i) => x - now[i])
  const drift = product(nowT, apart, columns, tokens, columns)
  const up = (values: Float32Array, m: number, n: number): Tensor => kernels.upload(values, m, n)
  const factor = kernels.tensor(columns, columns)
  const h = up(hessian, columns, columns)
  expect(await kernels.factorInverse(factor, h, lambda)).toBe(true)
  const across = kernels.tensor(columns, columns)
  kernels.transpose(across, factor)
  const weight = up(before, rows, columns)
  aimWeight(kernels, weight, {
    drift: up(drift, columns, columns),
    ...(adds && {
      residual: up(product(turned(lost, tokens, rows), now, rows, tokens, columns), rows, columns),
    }),
    factor,
    turned: across,
  })
  const after = await kernels.read(weight)
  // 0 = (W*·Xᵀ − W·X₀ᵀ − Rᵀ)·X + λ(W* − W)
  const wanted = product(before, turned(original, tokens, columns), rows, columns, tokens)
  const given = product(after, nowT, rows, columns, tokens)
  const lostT = turned(lost, tokens, rows)
  const error = given.map((x, i) => x - wanted[i] - (adds ? lostT[i] : 0))
  const slope = product(error, now, rows, tokens, columns)
  for (let i = 0; i < slope.length; i++) {
    expect(Math.abs(slope[i] + lambda * (after[i] - before[i]))).toBeLessThan(2e-3)
  }
})

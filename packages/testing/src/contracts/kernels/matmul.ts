/** Products with a loaded matrix, against core's decode. */

import {
  decode,
  FLOAT_FORMATS,
  floatGrid,
  isQuantized,
  type Matrix,
  perGroup,
  seededRandom,
  unsignedGrid,
} from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomIntegers, randomValues } from '../../random.ts'
import { denseValues } from '../../reference/matrices.ts'
import {
  denseSamples,
  type SampleMatrix,
  scalarSamples,
  structuredSamples,
  thinSamples,
} from '../../samples/matrices.ts'
import { scalarMatrix } from '../../samples/scalar.ts'
import { type Bench, type BenchOf, expectNear, expectRefusal } from './bench.ts'

/** Generation, speculation, and both sides of a tile. */
const X_ROWS = [1, 2, 5, 37]

/** Of Σ|x| · max|W|: some forty roundings in f32. */
const TOLERANCE = 5e-6

/**
 * Of Σ|x| · max|W| where x is rounded: 8 bits of the largest of a row of few, 11 bits with sums of 16 products, and 8 and
 * 4 bits. Then how far the norm of all may be off.
 */
const ROUNDED = { int8: 0.02, f16: 2 ** -9, bf16: 2 ** -7, fp8: 2 ** -4 }
const NORMS_OFF = { int8: 0.02, f16: 0.003, bf16: 0.01, fp8: 0.05 }

/** The samples' scales are made for weights of 0.1; what a zero point cancels was about that size. */
const SMALLEST_WEIGHT = 0.05

export function matmulContract(open: BenchOf, it: Declare): void {
  const scalars = scalarSamples()
  for (const grid of new Set(scalars.map((sample) => sample.grid))) {
    const samples = scalars.filter((sample) => sample.grid === grid)
    it(`multiplies ${grid}, in all divisions of scales`, async () => {
      for (const sample of samples) await expectProducts(open(), sample)
    })
  }

  const odd = structuredSamples()
  const names = new Set(odd.map(({ name }) => name.slice(0, name.lastIndexOf(','))))
  for (const name of names) {
    it(`multiplies: ${name}`, async () => {
      const samples = odd.filter((sample) => sample.name.startsWith(`${name},`))
      for (const sample of samples) await expectProducts(open(), sample)
    })
  }

  it('multiplies vectors of thin matrices', async () => {
    for (const sample of thinSamples()) await expectProducts(open(), sample)
  })

  it.each(['f32', 'f16', 'bf16'])('multiplies dense %s', async (type) => {
    const samples = denseSamples().filter(({ name }) => name.includes(` ${type},`))
    for (const sample of samples) await expectProducts(open(), sample)
  })

  it.each([
    [130, 260, 32],
    [70, 513, 128],
    [257, 96, 96],
  ])('multiplies int4 %i × %i in groups of %i, past any tile', async (rows, columns, group) => {
    const random = seededRandom(rows)
    const matrix = scalarMatrix(unsignedGrid(4), rows, columns, perGroup(group), random, {
      asymmetric: true,
    })
    await expectProducts(open(), { name: `int4 ${rows} × ${columns}`, matrix }, [1, 3, 70])
  })

  it.each(['int8', 'f16'] as const)('%s activations cost what they round', async (activations) => {
    // One division of scales of each grid: all of them are checked without rounding.
    const scalar = new Map(
      scalarSamples(7)
        .filter(isLarge)
        .map((one) => [one.grid, one]),
    )
    const others = [...structuredSamples(8), ...denseSamples(9)].filter(isLarge)
    const samples = [...scalar.values(), ...others].map((one) => ({ ...one, rows: [1, 37] }))
    const wide = { asymmetric: true }
    for (const bits of [1, 2, 4, 8]) {
      const grid = unsignedGrid(bits)
      const matrix = scalarMatrix(grid, 70, 330, perGroup(64), seededRandom(bits), wide)
      samples.push({ name: `int${bits} 70 × 330`, matrix, rows: X_ROWS })
    }
    for (const { rows, ...sample } of samples) {
      await expectRounded(open(), sample, activations, rows)
    }
  })

  it.each(['bf16', 'fp8'] as const)('%s activations cost what they round', async (activations) => {
    const coded = scalarSamples(7).filter(({ grid }) => grid === 'fp8 e4m3')
    for (const sample of activations === 'fp8' ? coded : denseSamples(9)) {
      if (isLarge(sample)) await expectRounded(open(), sample, activations, [1, 9, 37])
    }
  })

  it.each(['int8', 'f16', 'fp8'] as const)(
    '%s activations hide no number that is none',
    async (activations) => {
      const { kernels, up, zeros, keep } = open()
      const grid = activations === 'fp8' ? floatGrid(FLOAT_FORMATS.f8_e4m3) : unsignedGrid(4)
      const matrix = scalarMatrix(grid, 9, 96, perGroup(32), seededRandom(6))
      const weight = keep(kernels.load(matrix, { activations }))
      for (const [tokens, odd] of [
        [2, Number.NaN],
        [2, Number.POSITIVE_INFINITY],
        [7, Number.NaN],
        [7, Number.NEGATIVE_INFINITY],
      ]) {
        const x = randomValues(tokens * 96, seededRandom(7))
        x[96 + 40] = odd
        const out = zeros(tokens, 9)
        kernels.matmul(out, up(x, tokens, 96), weight)
        const found = await kernels.read(out)
        const what = `${weight.variant}, ${odd} in ${tokens} rows`
        expect(found.subarray(0, 9).every(Number.isFinite), what).toBe(true)
        expect(found.subarray(9, 18).some(Number.isFinite), what).toBe(false)
      }
    },
  )

  it('accumulate adds to what is there, and without it nothing is left', async () => {
    const { kernels, up, keep } = open()
    for (const { name, matrix } of [...structuredSamples(10), ...denseSamples(10)]) {
      const { rows, columns } = matrix
      const weight = keep(kernels.load(matrix))
      const x = randomValues(3 * columns, seededRandom(3))
      const start = randomValues(3 * rows, seededRandom(4))
      const input = up(x, 3, columns)
      const out = up(start, 3, rows)
      kernels.matmul(out, input, weight, { accumulate: true })
      const added = product(x, denseValues(matrix), 3, rows, columns).map((v, i) => v + start[i])
      expectProduct(await kernels.read(out), added, x, matrix, `${name}, accumulate`)
      kernels.matmul(out, input, weight)
      const plain = product(x, denseValues(matrix), 3, rows, columns)
      expectProduct(await kernels.read(out), plain, x, matrix, `${name}, again`)
    }
  })

  it('the same product gives the same bits', async () => {
    const { kernels, up, zeros, keep } = open()
    for (const { name, matrix } of structuredSamples(11)) {
      const weight = keep(kernels.load(matrix))
      const x = up(randomValues(5 * matrix.columns, seededRandom(5)), 5, matrix.columns)
      const [first, second] = [zeros(5, matrix.rows), zeros(5, matrix.rows)]
      kernels.matmul(first, x, weight)
      kernels.matmul(second, x, weight)
      expect(await kernels.read(second), name).toEqual(await kernels.read(first))
    }
  })

  it('gather decodes rows, some or all', async () => {
    const { kernels, zeros, keep } = open()
    const samples = [
      ...scalarSamples(12),
      ...structuredSamples(13),
      ...thinSamples(15),
      ...denseSamples(14),
    ]
    for (const { name, matrix } of samples) {
      const { rows, columns } = matrix
      const dense = denseValues(matrix)
      const largest = Math.max(norm(dense, Number.POSITIVE_INFINITY), SMALLEST_WEIGHT)
      const weight = keep(kernels.load(matrix))
      const all = zeros(rows, columns)
      kernels.gather(all, weight)
      const picked = randomIntegers(4, rows, seededRandom(rows))
      const some = zeros(4, columns)
      kernels.gather(some, weight, picked)
      // Neighbours, from a place that a layout in strips may start at.
      const first = rows > 8 ? 8 : 0
      const neighbours = zeros(rows - first, columns)
      const indices = Uint32Array.from({ length: rows - first }, (_, i) => first + i)
      kernels.gather(neighbours, weight, indices)
      const [whole, part] = [await kernels.read(all), await kernels.read(some)]
      expect(await kernels.read(neighbours), name).toEqual(whole.slice(first * columns))
      for (let i = 0; i < rows * columns; i++) {
        expectNear(whole[i], dense[i], 2e-6 * largest, `${name}: weight ${i}`)
      }
      picked.forEach((row, i) => {
        for (let k = 0; k < columns; k++) {
          const [is, should] = [part[i * columns + k], dense[row * columns + k]]
          expectNear(is, should, 2e-6 * largest, `${name}: picked row ${row}, column ${k}`)
        }
      })
    }
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros, keep } = open()
    const weight = keep(
      kernels.load({ rows: 3, columns: 4, type: 'f32', values: new Float32Array(12) }),
    )
    await expectRefusal('x', () => kernels.matmul(zeros(2, 3), zeros(2, 5), weight))
    await expectRefusal('out', () => kernels.matmul(zeros(2, 4), zeros(2, 4), weight))
    await expectRefusal('tokens', () => kernels.matmul(zeros(1, 3), zeros(2, 4), weight))
    await expectRefusal('gather', () => kernels.gather(zeros(2, 4), weight))
    await expectRefusal('a row that is not there', () =>
      kernels.gather(zeros(1, 4), weight, Uint32Array.of(3)),
    )
    await expectRefusal('codes as x', () => kernels.matmul(zeros(1, 3), zeros(1, 4, 'u8'), weight))
    await expectRefusal('a matrix with too few values', () =>
      kernels.load({ rows: 3, columns: 4, type: 'f32', values: new Float32Array(11) }),
    )
  })
}

const isLarge = ({ matrix }: SampleMatrix): boolean => matrix.rows > 12 && matrix.columns > 32

/** Products with x of so many rows, rounded. */
async function expectRounded(
  { kernels, up, zeros }: Bench,
  { name, matrix }: SampleMatrix,
  activations: keyof typeof ROUNDED,
  tokenCounts: readonly number[],
): Promise<void> {
  const { rows, columns } = matrix
  const weight = kernels.load(matrix, { activations })
  for (const tokens of tokenCounts) {
    const x = randomValues(tokens * columns, seededRandom(tokens))
    const out = zeros(tokens, rows)
    kernels.matmul(out, up(x, tokens, columns), weight)
    const what = `${name}, ${weight.variant}, x of ${tokens} rows`
    const actual = await kernels.read(out)
    const expected = product(x, denseValues(matrix), tokens, rows, columns)
    expectProduct(actual, expected, x, matrix, what, undefined, ROUNDED[activations])
    const off = norm(actual.map((value, i) => value - expected[i])) / norm(expected)
    if (!(off <= NORMS_OFF[activations])) {
      expect.fail(`${what}: ${(off * 100).toFixed(2)} % of the norm`)
    }
  }
  kernels.unload(weight)
}

async function expectProducts(
  { kernels, up, zeros }: Bench,
  { name, matrix }: SampleMatrix,
  tokenCounts = X_ROWS,
): Promise<void> {
  const { rows, columns } = matrix
  const dense = isQuantized(matrix) ? decode(matrix) : denseValues(matrix)
  const weight = kernels.load(matrix)
  expect(weight, name).toMatchObject({ rows, columns })
  for (const tokens of tokenCounts) {
    const x = randomValues(tokens * columns, seededRandom(tokens))
    const out = zeros(tokens, rows)
    kernels.matmul(out, up(x, tokens, columns), weight)
    const expected = product(x, dense, tokens, rows, columns)
    expectProduct(
      await kernels.read(out),
      expected,
      x,
      matrix,
      `${name}, x of ${tokens} rows`,
      dense,
    )
  }
  kernels.unload(weight)
}

function expectProduct(
  actual: Float32Array,
  expected: Float64Array,
  x: Float32Array,
  { rows, columns, ...rest }: Matrix,
  what: string,
  dense = denseValues({ rows, columns, ...rest } as Matrix),
  tolerance = TOLERANCE,
): void {
  const largest = Math.max(norm(dense, Number.POSITIVE_INFINITY), SMALLEST_WEIGHT)
  for (let i = 0; i < expected.length; i++) {
    const t = Math.floor(i / rows)
    const reach = norm(x.subarray(t * columns, (t + 1) * columns), 1)
    const bound = tolerance * (reach * largest + Math.abs(expected[i]))
    expectNear(actual[i], expected[i], bound, `${what}: out[${t}, ${i % rows}]`)
  }
}

function product(
  x: Float32Array,
  w: Float32Array,
  tokens: number,
  rows: number,
  columns: number,
): Float64Array {
  const out = new Float64Array(tokens * rows)
  for (let t = 0; t < tokens; t++) {
    for (let n = 0; n < rows; n++) {
      let sum = 0
      for (let k = 0; k < columns; k++) sum += x[t * columns + k] * w[n * columns + k]
      out[t * rows + n] = sum
    }
  }
  return out
}

/** The 1-, 2- or ∞-norm. */
function norm(values: Float32Array | Float64Array, order = 2): number {
  let sum = 0
  for (const value of values) {
    const size = Math.abs(value)
    sum = order === Number.POSITIVE_INFINITY ? Math.max(sum, size) : sum + size ** order
  }
  return order === 2 ? Math.sqrt(sum) : sum
}

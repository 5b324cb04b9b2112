/** The contract of a quantizer: whatever the weight, a matrix that means it, or an error that says why not. */

import {
  decode,
  equalMatrices,
  type Kernels,
  LowbitError,
  measureMatrix,
  type QuantizedMatrix,
  type Quantizer,
  type QuantizerPlugin,
  seededRandom,
  validateMatrix,
} from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import { hessianOf, randomActivations, randomWeight } from '../random.ts'
import { referenceKernels } from '../reference/kernels.ts'

export interface QuantizerContractOptions {
  /** Options to try, each with all tests; the defaults alone by default. */
  readonly variants?: readonly object[]
  /**
   * Values of the option `bits` of which each must leave less error than the one before, as far as the
   * method knows them; 2, 3, 4, 6, 8 by default. None where small samples fit into any codebook.
   */
  readonly bits?: readonly number[]
  /** The kernels to quantize with; the reference by default. */
  readonly make?: () => Kernels
}

const SHAPES = [
  [1, 1],
  [1, 40],
  [9, 1],
  [7, 13],
  [64, 100],
] as const

const NAME = 'model.layers.0.mlp.up_proj.weight'

/** Declares the tests of a quantizer. */
export function describeQuantizer(
  plugin: QuantizerPlugin,
  options: QuantizerContractOptions = {},
): void {
  const { variants = [{}], make = referenceKernels, bits: rates = [2, 3, 4, 6, 8] } = options
  const create = (given: object): Quantizer => plugin(given as never)

  describe(`quantizer ${plugin.name}`, () => {
    it('says what it is and describes every option', () => {
      expect(plugin.name).toMatch(/^[a-z][a-z0-9-]*$/)
      expect(plugin.summary).not.toBe('')
      for (const [name, schema] of Object.entries(plugin.options.shape)) {
        expect((schema as { description?: string }).description, `option ${name}`).toBeTruthy()
      }
      expect(create({})).toMatchObject({ kind: 'quantizer', name: plugin.name })
    })

    it('refuses an option that it does not have', () => {
      const error = thrownBy(() => create({ ...variants[0], noSuchOption: 1 }))
      expect(error).toBeInstanceOf(LowbitError)
      expect((error as LowbitError).message).toContain('noSuchOption')
    })

    if ('bits' in plugin.options.shape && rates.length > 0) {
      it('more bits make a smaller error', async () => {
        const errors: number[] = []
        for (const bits of rates) {
          const error = await errorOfBits(create, bits, make)
          if (error !== undefined) errors.push(error)
        }
        expect(errors.length, 'numbers of bits that it knows').toBeGreaterThan(1)
        errors.slice(1).forEach((error, i) => {
          expect(error, `errors ${errors}`).toBeLessThan(errors[i])
        })
      })
    }

    for (const variant of variants) {
      describe(`with ${JSON.stringify(variant)}`, () =>
        variantContract(() => create(variant), make))
    }
  })
}

function variantContract(create: () => Quantizer, make: () => Kernels): void {
  it('fills in its options and labels itself', () => {
    const quantizer = create()
    expect(quantizer.label).not.toBe('')
    expect(() => JSON.stringify(quantizer.options)).not.toThrow()
  })

  it.each(SHAPES)('%i × %i: a valid matrix, nearer than zero', async (rows, columns) => {
    const problem = sampleProblem(rows, columns)
    const matrix = await solve(create(), problem, make)
    expectSound(matrix, problem)
    if (codeBits(matrix) < 2) return
    const needs = create().needs
    const error = distance(problem, decode(matrix), needs.hessian)
    expect(error).toBeLessThan(distance(problem, new Float32Array(rows * columns), needs.hessian))
  })

  it('the same seed gives the same matrix', async () => {
    for (const [rows, columns] of [SHAPES[3], SHAPES[4]]) {
      const problem = sampleProblem(rows, columns)
      const first = await solve(create(), problem, make)
      const second = await solve(create(), problem, make)
      expect(equalMatrices(first, second), `${rows} × ${columns}`).toBe(true)
    }
  })

  it('a weight of zeros becomes zeros', async () => {
    const problem = withWeight(sampleProblem(7, 13), () => 0)
    const matrix = await solve(create(), problem, make)
    expectSound(matrix, problem)
    for (const value of decode(matrix)) expect(Math.abs(value)).toBeLessThan(1e-6)
  })

  it.each([
    ['a constant', () => 0.25],
    ['a negative constant', () => -0.25],
    ['one sign', (w: number) => Math.abs(w) + 0.01],
    ['zeros but for one', (_: number, i: number) => (i === 17 ? 0.5 : 0)],
    ['one outlier', (w: number, i: number) => (i === 17 ? 100 : w)],
    ['one huge outlier', (w: number, i: number) => (i === 17 ? 1e6 : w)],
    ['tiny numbers', (w: number) => w * 1e-12],
  ])('a weight of %s gives a sound matrix', async (_, value) => {
    const problem = withWeight(sampleProblem(7, 13), value)
    expectSound(await solve(create(), problem, make), problem)
  })

  it.each([
    ['NaN', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
  ])('a weight with %s is an error that names the tensor', async (_, bad) => {
    const problem = withWeight(sampleProblem(7, 13), (w, i) => (i === 50 ? bad : w))
    const error = await solve(create(), problem, make).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(LowbitError)
    expect((error as LowbitError).message).toContain(NAME)
  })

  it('an aborted signal stops it', async () => {
    const problem = sampleProblem(64, 100)
    const signal = AbortSignal.abort(new Error('stop it'))
    const outcome = await solve(create(), problem, make, signal).then(
      () => 'a matrix',
      (error: unknown) => String(error),
    )
    expect(outcome).toContain('stop it')
  })

  const { needs } = create()
  if (!needs.hessian) return

  it.each([
    ['dead columns', (x: number, k: number) => (k % 5 === 2 ? 0 : x), 60],
    ['rank 1', (_: number, k: number, t: number) => (t + 1) * (k - 5.5), 60],
    ['three tokens', (x: number) => x, 3],
    ['nothing at all', () => 0, 5],
    ['tiny activations', (x: number) => x * 1e-6, 60],
    ['one channel 1000 times the others', (x: number, k: number) => (k === 3 ? x * 1e3 : x), 60],
  ])('a Hessian of %s gives a sound matrix', async (_, value, tokens) => {
    const plain = randomActivations(tokens, 13, seededRandom(3))
    const x = plain.map((v, i) => value(v, i % 13, Math.floor(i / 13)))
    const problem = { ...sampleProblem(7, 13), hessian: hessianOf(x, 13) }
    expectSound(await solve(create(), problem, make), problem)
  })

  it('a Hessian of NaN is an error that names the tensor', async () => {
    const problem = sampleProblem(7, 13)
    const broken = {
      ...problem,
      hessian: problem.hessian.map((h, i) => (i === 14 ? Number.NaN : h)),
    }
    const error = await solve(create(), broken, make).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(LowbitError)
    expect((error as LowbitError).message).toContain(NAME)
  })
}

interface Problem {
  readonly rows: number
  readonly columns: number
  readonly weight: Float32Array
  readonly hessian: Float32Array
  readonly fisher: Float32Array
}

function sampleProblem(rows: number, columns: number): Problem {
  const random = seededRandom(rows * 1000 + columns)
  const weight = randomWeight(rows, columns, random)
  const hessian = hessianOf(randomActivations(3 * columns + 5, columns, random), columns)
  const fisher = weight.map(() => random() ** 2 + 1e-4)
  return { rows, columns, weight, hessian, fisher }
}

const withWeight = (problem: Problem, value: (w: number, i: number) => number): Problem => ({
  ...problem,
  weight: problem.weight.map(value),
})

/** Runs a quantizer, and holds it to what it must leave alone: shared inputs, and memory. */
async function solve(
  quantizer: Quantizer,
  problem: Problem,
  make: () => Kernels,
  signal?: AbortSignal,
): Promise<QuantizedMatrix> {
  const { rows, columns } = problem
  const kernels = make()
  try {
    const weight = kernels.upload(problem.weight, rows, columns)
    const { needs } = quantizer
    const hessian = needs.hessian ? kernels.upload(problem.hessian, columns, columns) : undefined
    const fisher = needs.fisher ? kernels.upload(problem.fisher, rows, columns) : undefined
    const held = kernels.bytes
    const input = { name: NAME, weight, hessian, fisher, kernels, seed: 7, signal }
    try {
      return await quantizer.quantize(input)
    } finally {
      expect(kernels.bytes, 'bytes of the kernels, before and after').toBe(held)
      const shared = [
        [hessian, problem.hessian],
        [fisher, problem.fisher],
      ] as const
      for (const [tensor, before] of shared) {
        if (tensor) expect(await kernels.read(tensor), 'what others share').toEqual(before)
      }
    }
  } finally {
    kernels.dispose()
  }
}

function expectSound(matrix: QuantizedMatrix, { rows, columns }: Problem): void {
  validateMatrix(matrix, NAME)
  expect(matrix).toMatchObject({ rows, columns })
  expect(decode(matrix).every(Number.isFinite), 'all values are finite').toBe(true)
  const size = measureMatrix(matrix)
  const { total, ...parts } = size
  expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(total)
  expect(total, 'counted bits').toBeGreaterThan(0)
  for (const { codes } of matrix.stages) {
    expect(codes.data.length, 'bytes of codes').toBe(Math.ceil((codes.count * codes.bits) / 8))
  }
  // Stages are summed; each has at most 16 bits for a weight.
  expect(size.codes).toBeLessThanOrEqual(
    16 * matrix.stages.length * rows * columns + 16 * rows * 16,
  )
}

/** Bits of code for a weight. */
const codeBits = (matrix: QuantizedMatrix): number =>
  measureMatrix(matrix).codes / (matrix.rows * matrix.columns)

/** tr((W − Q)·H·(W − Q)ᵀ) where the Hessian is what it minimizes, Σ (w − q)² otherwise. */
function distance({ weight, hessian, columns }: Problem, q: Float32Array, weighed = false): number {
  let sum = 0
  for (let from = 0; from < weight.length; from += columns) {
    for (let i = 0; i < columns; i++) {
      const d = weight[from + i] - q[from + i]
      if (!weighed) sum += d * d
      else {
        for (let j = 0; j < columns; j++) {
          sum += d * hessian[i * columns + j] * (weight[from + j] - q[from + j])
        }
      }
    }
  }
  return sum
}

/** Undefined where the quantizer does not know this number of bits. */
async function errorOfBits(
  create: (options: object) => Quantizer,
  bits: number,
  make: () => Kernels,
): Promise<number | undefined> {
  let quantizer: Quantizer
  try {
    quantizer = create({ bits })
  } catch (error) {
    if (error instanceof LowbitError && error.code === 'bad-option') return undefined
    throw error
  }
  const problem = sampleProblem(64, 100)
  const matrix = await solve(quantizer, problem, make)
  return distance(problem, decode(matrix), quantizer.needs.hessian)
}

function thrownBy(call: () => unknown): unknown {
  try {
    call()
  } catch (error) {
    return error
  }
  return undefined
}

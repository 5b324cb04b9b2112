/** Codes, and the feedback pass, against the reference. */

import {
  type FeedbackOptions,
  gridValues,
  normalFloatGrid,
  type Rounding,
  seededRandom,
  signedGrid,
  unsignedGrid,
} from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomHessian, randomOrder, randomValues, randomWeight } from '../../random.ts'
import { referenceKernels } from '../../reference/kernels.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { type GridSample, palette, scalarGrids } from '../../samples/scalar.ts'
import { type BenchOf, expectClose, expectNear, expectRefusal, type Side } from './bench.ts'

export function roundingContract(open: BenchOf, it: Declare): void {
  it.each(scalarGrids(seededRandom(31)))('round: $name', async (sample) => {
    const random = seededRandom(32)
    for (const [rows, columns] of ODD_SHAPES) {
      for (const [blockRows, blockColumns] of [
        [1, 3],
        [1, 32],
        [2, columns],
      ]) {
        const rounding = { grid: sample.grid, blockRows, blockColumns }
        const weight = randomWeight(rows, columns, random)
        const { scale, zero, down, across } = scalesFor(sample, rounding, weight, rows, columns)
        const [[codes, decoded, again], [expected]] = await open().both(async (side) => {
          const { kernels, up, zeros } = side
          const [c, d] = [zeros(rows, columns, 'u8'), zeros(rows, columns)]
          const w = up(weight, rows, columns)
          const [s, z] = [up(scale, down, across), zero && up(zero, down, across)]
          kernels.round(c, d, w, s, z, rounding)
          const result = [await kernels.readCodes(c), await kernels.read(d)] as const
          // The values may take the place of the weight.
          kernels.round(zeros(rows, columns, 'u8'), w, w, s, z, rounding)
          return [...result, await kernels.read(w)] as const
        })
        const what = `${sample.name}, ${rows} × ${columns} in ${blockRows} × ${blockColumns}`
        const values = gridValues(sample.grid)
        expect(again, `${what}: in place`).toEqual(decoded)
        for (let i = 0; i < weight.length; i++) {
          const row = Math.floor(Math.floor(i / columns) / blockRows)
          const block = row * across + Math.floor((i % columns) / blockColumns)
          const [s, z] = [scale[block], zero ? zero[block] : 0]
          const x = weight[i] / s + z
          expectSameCode(x, codes[i], expected[i], values, `${what}: weight ${i}`)
          const q = s * (values[codes[i]] - z)
          expectNear(decoded[i], q, 1e-6 * Math.abs(q), `${what}: decoded ${i}`)
        }
      }
    }
  })

  it('round: far outside the grid gives its ends, never a wrapped code', async () => {
    const { kernels, up, zeros } = open()
    const weight = up([1e30, -1e30, 1e6, -1e6, 3e9, -3e9], 1, 6)
    for (const { name, grid, asymmetric } of scalarGrids(seededRandom(33))) {
      const codes = zeros(1, 6, 'u8')
      const decoded = zeros(1, 6)
      const zero = asymmetric ? up([0], 1, 1) : undefined
      const rounding = { grid, blockRows: 1, blockColumns: 6 }
      kernels.round(codes, decoded, weight, up([1e-3], 1, 1), zero, rounding)
      const finite = gridValues(grid).filter(Number.isFinite)
      const [low, high] = [Math.min(...finite) * 1e-3, Math.max(...finite) * 1e-3]
      expectClose(await kernels.read(decoded), [high, low, high, low, high, low], name, 1e-5)
    }
  })

  it.each([
    { name: 'int4 asymmetric', grid: unsignedGrid(4), asymmetric: true },
    { name: 'int3 symmetric', grid: signedGrid(3) },
    { name: 'nf4', grid: normalFloatGrid(4) },
    { name: 'lookup of 200', grid: palette(200, seededRandom(34)) },
  ])('feedback: $name, whole rows', async (sample) => {
    for (const [rows, columns] of [...ODD_SHAPES, [6, 300] as const]) {
      await expectFeedback(open, sample, rows, columns, {
        from: 0,
        to: columns,
        blockRows: 1,
        blockColumns: 32,
      })
    }
  })

  it('feedback: blocks over rows, one scale for all', async () => {
    const sample = { name: 'int4 symmetric', grid: signedGrid(4) }
    for (const [blockRows, blockColumns] of [
      [4, 16],
      [17, 66],
    ]) {
      await expectFeedback(open, sample, 17, 66, { from: 0, to: 66, blockRows, blockColumns })
    }
  })

  it('feedback: a part of the columns; earlier ones stay, later ones take the error', async () => {
    const sample = { name: 'int4 asymmetric', grid: unsignedGrid(4), asymmetric: true }
    for (const [from, to] of [
      [0, 16],
      [16, 48],
      [60, 66],
      [5, 6],
    ]) {
      const options = { from, to, blockRows: 1, blockColumns: 16 }
      await expectFeedback(open, sample, 9, 66, options)
    }
  })

  it('feedback: columns in another order keep the scales of their blocks', async () => {
    const sample = { name: 'int4 asymmetric', grid: unsignedGrid(4), asymmetric: true }
    const blockOf = randomOrder(66, seededRandom(35)).map((column) => Math.floor(column / 16))
    await expectFeedback(open, sample, 9, 66, {
      from: 0,
      to: 66,
      blockRows: 1,
      blockColumns: 16,
      blockOf,
    })
    // One group at a time, as with dynamic groups: one scale a row, whatever the column.
    await expectFeedback(open, sample, 9, 66, {
      from: 32,
      to: 48,
      blockRows: 1,
      blockColumns: 16,
      blockOf: new Uint32Array(66),
      across: 1,
    })
  })

  it.each([
    { name: 'int3 asymmetric', grid: unsignedGrid(3), asymmetric: true },
    { name: 'int4 symmetric', grid: signedGrid(4) },
    { name: 'nf4', grid: normalFloatGrid(4) },
  ])('descend: $name, as the reference, and no sweep makes it worse', async (sample) => {
    for (const [rows, columns] of [...ODD_SHAPES, [6, 300] as const]) {
      await expectDescent(open, sample, rows, columns)
    }
  })

  it('feedback: a factor of 1 is plain rounding', async () => {
    const { kernels, up, zeros } = open()
    const values = randomValues(3 * 20, seededRandom(36))
    const unit = Float32Array.from({ length: 400 }, (_, i) => (i % 21 === 0 ? 1 : 0))
    const rounding = { grid: signedGrid(4), blockRows: 1, blockColumns: 20 }
    const scale = up([0.2, 0.3, 0.4], 3, 1)
    const [fed, plain] = [zeros(3, 20, 'u8'), zeros(3, 20, 'u8')]
    const weight = up(values, 3, 20)
    kernels.round(plain, undefined, weight, scale, undefined, rounding)
    const options = { ...rounding, from: 0, to: 20 }
    kernels.feedback(fed, weight, up(unit, 20, 20), scale, undefined, options)
    expect(await kernels.readCodes(fed)).toEqual(await kernels.readCodes(plain))
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const rounding = { grid: signedGrid(4), blockRows: 1, blockColumns: 4 }
    const whole = { ...rounding, from: 0, to: 8 }
    const [w, s, c, u] = [zeros(2, 8), zeros(2, 2), zeros(2, 8, 'u8'), zeros(8, 8)]
    const round = (...args: Parameters<typeof kernels.round>) => kernels.round(...args)
    await expectRefusal('codes', () =>
      round(zeros(2, 7, 'u8'), undefined, w, s, undefined, rounding),
    )
    await expectRefusal('f32 codes', () => round(zeros(2, 8), undefined, w, s, undefined, rounding))
    await expectRefusal('scale', () => round(c, undefined, w, zeros(2, 3), undefined, rounding))
    await expectRefusal('zero', () => round(c, undefined, w, s, zeros(1, 2), rounding))
    await expectRefusal('decoded', () => round(c, zeros(1, 8), w, s, undefined, rounding))
    const feed = (...args: Parameters<typeof kernels.feedback>) => kernels.feedback(...args)
    await expectRefusal('factor', () => feed(c, w, zeros(7, 7), s, undefined, whole))
    await expectRefusal('columns', () => feed(c, w, u, s, undefined, { ...whole, to: 9 }))
    await expectRefusal('blockOf', () =>
      feed(c, w, u, s, undefined, { ...whole, blockOf: new Uint32Array(8).fill(2) }),
    )
  })
}

/** Scales somewhat too small for the largest weights, so that codes saturate too. */
function scalesFor(
  { asymmetric }: Pick<GridSample, 'asymmetric'>,
  { grid, blockRows, blockColumns }: Rounding,
  weight: Float32Array,
  rows: number,
  columns: number,
  across = Math.ceil(columns / blockColumns),
) {
  const random = seededRandom(rows * columns)
  const finite = gridValues(grid).filter(Number.isFinite)
  const top = finite.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  const largest = weight.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  const down = Math.ceil(rows / blockRows)
  const reach = (asymmetric ? 2 : 1) * largest
  const scale = Float32Array.from({ length: down * across }, () => {
    return ((0.3 + 0.7 * random()) * reach) / top
  })
  const middle = Math.ceil(top / 2)
  const zero = scale.map(() => Math.min(top, Math.floor(middle * (0.7 + 0.6 * random()))))
  return { scale, zero: asymmetric ? zero : undefined, down, across }
}

/** Two codes that mean the same, or whose values are equally near within 1e-4 of a step. */
function expectSameCode(
  x: number,
  actual: number,
  expected: number,
  values: Float32Array,
  what: string,
): void {
  if (values[actual] === values[expected]) return
  const lead = Math.abs(values[actual] - x) - Math.abs(values[expected] - x)
  if (Math.abs(lead) <= 1e-4 * Math.abs(values[actual] - values[expected])) return
  expect.fail(`${what}: ${x} in steps of its scale has code ${actual} and should have ${expected}`)
}

interface Pass extends Omit<FeedbackOptions, 'grid'> {
  /** Blocks a row in the tensor of scales. */
  readonly across?: number
}

async function expectFeedback(
  open: BenchOf,
  sample: Pick<GridSample, 'name' | 'grid' | 'asymmetric'>,
  rows: number,
  columns: number,
  { across: given, ...pass }: Pass,
): Promise<void> {
  const random = seededRandom(rows + columns)
  const weight = randomWeight(rows, columns, random)
  const hessian = randomHessian(columns, random)
  const options = { ...pass, grid: sample.grid }
  const { scale, zero, down, across } = scalesFor(sample, options, weight, rows, columns, given)
  const factor = await factorOf(hessian, columns)
  const run = async ({ kernels, up, zeros }: Side) => {
    const codes = zeros(rows, columns, 'u8')
    const w = up(weight, rows, columns)
    const z = zero && up(zero, down, across)
    const u = up(factor, columns, columns)
    kernels.feedback(codes, w, u, up(scale, down, across), z, options)
    return [await kernels.readCodes(codes), await kernels.read(w)] as const
  }
  const [[codes, fed], [expectedCodes, expectedFed]] = await open().both(run)
  const { from, to, blockRows, blockColumns, blockOf } = pass
  const what = `${sample.name}, ${rows} × ${columns}, columns ${from} to ${to}`
  const values = gridValues(sample.grid)
  let same = 0
  for (let row = 0; row < rows; row++) {
    for (let j = 0; j < columns; j++) {
      const at = row * columns + j
      if (j < from) expect(fed[at], `${what}: an earlier column`).toBe(weight[at])
      if (j < from || j >= to) continue
      const block = Math.floor(row / blockRows) * across
      const s = block + (blockOf ? blockOf[j] : Math.floor(j / blockColumns))
      const q = scale[s] * (values[codes[at]] - (zero ? zero[s] : 0))
      expectNear(fed[at], q, 1e-6 * Math.abs(q), `${what}: the quantized value at ${row}, ${j}`)
      if (values[codes[at]] === values[expectedCodes[at]]) same++
    }
  }
  const total = rows * (to - from)
  if (same < 0.99 * total) expect.fail(`${what}: only ${same} of ${total} codes as the reference`)
  const is = quadraticError(weight, fed, hessian, columns)
  const should = quadraticError(weight, expectedFed, hessian, columns)
  expectNear(is, should, 0.01 * should, `${what}: quadratic error`)
  if (same === total) expectClose(fed, expectedFed, `${what}: weights afterwards`, 1e-3)
}

async function expectDescent(
  open: BenchOf,
  sample: Pick<GridSample, 'name' | 'grid' | 'asymmetric'>,
  rows: number,
  columns: number,
): Promise<void> {
  const random = seededRandom(rows * 7 + columns)
  const weight = randomWeight(rows, columns, random)
  const hessian = randomHessian(columns, random)
  const rounding = { grid: sample.grid, blockRows: 1, blockColumns: 32 }
  const { scale, zero, down, across } = scalesFor(sample, rounding, weight, rows, columns)
  const damping = 0.01
  const damped = hessian.map((x, i) => (i % (columns + 1) === 0 ? x + damping : x))
  const run = async ({ kernels, up, zeros }: Side) => {
    const [codes, decoded] = [zeros(rows, columns, 'u8'), zeros(rows, columns)]
    const [w, h, s] = [
      up(weight, rows, columns),
      up(hessian, columns, columns),
      up(scale, down, across),
    ]
    const z = zero && up(zero, down, across)
    kernels.round(codes, decoded, w, s, z, rounding)
    const errors = [quadraticError(weight, await kernels.read(decoded), damped, columns)]
    for (let sweep = 0; sweep < 3; sweep++) {
      kernels.descend(codes, decoded, w, h, s, z, { ...rounding, damping })
      errors.push(quadraticError(weight, await kernels.read(decoded), damped, columns))
    }
    const values = await kernels.read(decoded)
    // Codes and values say the same: rounding the values again changes nothing.
    const again = zeros(rows, columns, 'u8')
    kernels.round(again, undefined, decoded, s, z, rounding)
    return {
      errors,
      values,
      codes: await kernels.readCodes(codes),
      again: await kernels.readCodes(again),
    }
  }
  const [{ errors, codes, again }, expected] = await open().both(run)
  const what = `${sample.name}, ${rows} × ${columns}`
  errors.slice(1).forEach((error, i) => {
    if (error > errors[i] * (1 + 1e-5) + 1e-12)
      expect.fail(`${what}: sweep ${i} made it worse: ${errors}`)
  })
  expectNear(
    errors[3],
    expected.errors[3],
    0.02 * expected.errors[3] + 1e-9,
    `${what}: after three sweeps`,
  )
  const values = gridValues(sample.grid)
  const differing = codes.filter((code, i) => values[code] !== values[again[i]]).length
  if (differing > 0) expect.fail(`${what}: ${differing} codes do not go with their values`)
}

/** The reference's factor: both sides feed back through the very same one. */
async function factorOf(hessian: Float32Array, n: number): Promise<Float32Array> {
  const kernels = referenceKernels()
  const h = kernels.upload(hessian, n, n)
  const out = kernels.tensor(n, n)
  const diagonal = Array.from({ length: n }, (_, i) => hessian[i * n + i])
  const damping = (0.01 * diagonal.reduce((sum, x) => sum + x, 0)) / n
  expect(await kernels.factorInverse(out, h, damping)).toBe(true)
  const factor = await kernels.read(out)
  kernels.dispose()
  return factor
}

/** tr((A − B)·H·(A − B)ᵀ). */
function quadraticError(
  a: Float32Array,
  b: Float32Array,
  hessian: Float32Array,
  n: number,
): number {
  let sum = 0
  for (let from = 0; from < a.length; from += n) {
    for (let i = 0; i < n; i++) {
      let product = 0
      for (let j = 0; j < n; j++) product += hessian[i * n + j] * (a[from + j] - b[from + j])
      sum += product * (a[from + i] - b[from + i])
    }
  }
  return sum
}

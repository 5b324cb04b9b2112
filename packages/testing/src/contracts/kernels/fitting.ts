/** Scales and zero points, against the reference. */

import { binaryGrid, type FitOptions, seededRandom, signedGrid, unsignedGrid } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { type Random, randomValues, randomWeight } from '../../random.ts'
import { blockError } from '../../reference/fitting.ts'
import { gridRounder } from '../../reference/rounding.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { scalarGrids } from '../../samples/scalar.ts'
import { type Bench, type BenchOf, expectNear, expectRefusal } from './bench.ts'

type Plan = Omit<FitOptions, 'importance'>

interface Weights {
  readonly values: Float32Array
  readonly rows: number
  readonly columns: number
  readonly importance?: Float32Array
}

const NO_SEARCH = { candidates: 1, step: 0.02 }
const SEARCH = { candidates: 14, step: 0.04 }
const TYPES = ['f32', 'f16', 'bf16', 'f8_e8m0'] as const

export function fittingContract(open: BenchOf, it: Declare): void {
  const grids = scalarGrids(seededRandom(21))

  it.each(grids)('fit: $name, the range as it is, in every type of scale', async (sample) => {
    const random = seededRandom(22)
    for (const [rows, columns] of ODD_SHAPES) {
      const weights = randomWeights(rows, columns, random)
      for (const scaleType of TYPES) {
        // A power of two times a zero point is nobody's format.
        if (sample.asymmetric && scaleType === 'f8_e8m0') continue
        await expectFit(open(), weights, {
          ...plan(sample, 32),
          search: NO_SEARCH,
          scaleType,
        })
      }
    }
  })

  it.each(grids)('fit: $name, searched, with importance', async (sample) => {
    // What a search for binary tries besides the mean is left to the kernels.
    if (sample.name === 'binary') return
    const random = seededRandom(23)
    for (const [rows, columns] of ODD_SHAPES) {
      const weights = randomWeights(rows, columns, random, true)
      for (const group of [3, 16, columns]) {
        await expectFit(open(), weights, { ...plan(sample, group), search: SEARCH })
      }
    }
  })

  it('fit: blocks over several rows, and one for all', async () => {
    const random = seededRandom(24)
    for (const [rows, columns] of ODD_SHAPES) {
      for (const [blockRows, blockColumns] of [
        [2, 3],
        [4, 16],
        [rows, columns],
      ]) {
        for (const asymmetric of [false, true]) {
          const grid = asymmetric ? unsignedGrid(3) : signedGrid(3)
          const weights = randomWeights(rows, columns, random, true)
          await expectFit(open(), weights, {
            grid,
            asymmetric,
            blockRows,
            blockColumns,
            search: SEARCH,
            scaleType: 'f16',
          })
        }
      }
    }
  })

  it('fit: searching for binary is never worse than the mean of |w|', async () => {
    const weights = randomWeights(9, 40, seededRandom(25), true)
    const options = { ...plan({ grid: binaryGrid() }, 20), scaleType: 'f32' } as const
    const [mean] = await fitted(open(), weights, { ...options, search: NO_SEARCH })
    const [searched] = await fitted(open(), weights, { ...options, search: SEARCH })
    mean.forEach((scale, block) => {
      const before = errorOf(weights, options, block, 2, scale, 0)
      const after = errorOf(weights, options, block, 2, searched[block], 0)
      expect(after, `block ${block}`).toBeLessThanOrEqual(before * 1.0001)
    })
  })

  it('fit: importance moves the scale toward the columns that matter', async () => {
    // Two small weights that matter against one large that does not.
    const values = Float32Array.of(0.35, -0.35, 1)
    const weights = { values, rows: 1, columns: 3 }
    const options = { ...plan({ grid: signedGrid(2) }, 3), search: { candidates: 40, step: 0.02 } }
    const [even] = await fitted(open(), weights, options)
    const importance = Float32Array.of(100, 100, 0)
    const [biased] = await fitted(open(), { ...weights, importance }, options)
    expect(biased[0]).toBeLessThan(even[0])
    expectNear(biased[0], 0.35, 0.02, 'scale')
  })

  it.each([
    ['zeros', () => 0],
    ['a constant', () => 0.3],
    ['a negative constant', () => -0.3],
    ['one huge outlier', (i: number) => (i === 11 ? 1e30 : 0.01 * (i % 7))],
    ['subnormal numbers', (i: number) => (i % 3) * 1e-40],
  ])('fit: blocks of %s give finite numbers', async (name, value) => {
    const { kernels, up, zeros } = open()
    const values = Float32Array.from({ length: 64 }, (_, i) => value(i))
    for (const sample of grids) {
      for (const scaleType of ['f32', 'f16', 'bf16'] as const) {
        for (const search of [NO_SEARCH, SEARCH]) {
          const what = `${sample.name}, ${scaleType}, ${search.candidates} candidates`
          const options = { ...plan(sample, 16), search, scaleType }
          const weights = { values, rows: 2, columns: 32 }
          const [scale, zero] = await fitted(open(), weights, options)
          for (const s of scale) {
            expect(s > 0 && Number.isFinite(s), `${what}: scale ${s}`).toBe(true)
          }
          const [codes, decoded] = [zeros(2, 32, 'u8'), zeros(2, 32)]
          kernels.round(
            codes,
            decoded,
            up(values, 2, 32),
            up(scale, 2, 2),
            zero && up(zero, 2, 2),
            options,
          )
          const read = await kernels.read(decoded)
          expect(read.every(Number.isFinite), `${what}: ${name}: ${read}`).toBe(true)
          const small = scaleType === 'f32' ? 1e-30 : 1e-4
          if (name === 'zeros') {
            for (const q of read) expectNear(q, 0, small, `${what}: a zero`)
          }
        }
      }
    }
  })

  it('fit leaves the weight alone', async () => {
    const { kernels, up, zeros } = open()
    const values = randomValues(64, seededRandom(26))
    const weight = up(values, 2, 32)
    kernels.fit(zeros(2, 2), undefined, weight, {
      ...plan({ grid: signedGrid(4) }, 16),
      search: SEARCH,
    })
    expect(await kernels.read(weight)).toEqual(values)
  })

  it('fit: shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const options = { ...plan({ grid: signedGrid(4) }, 16), search: NO_SEARCH }
    const lopsided = { ...options, grid: unsignedGrid(4), asymmetric: true }
    await expectRefusal('scale', () => kernels.fit(zeros(2, 3), undefined, zeros(2, 32), options))
    await expectRefusal('zero', () => kernels.fit(zeros(2, 2), zeros(1, 2), zeros(2, 32), lopsided))
    await expectRefusal('importance', () =>
      kernels.fit(zeros(2, 2), undefined, zeros(2, 32), { ...options, importance: zeros(1, 31) }),
    )
    await expectRefusal('no zero', () =>
      kernels.fit(zeros(2, 2), undefined, zeros(2, 32), lopsided),
    )
  })
}

function plan(
  { grid, asymmetric = false }: { grid: Plan['grid']; asymmetric?: boolean },
  group: number,
): Plan {
  const search = NO_SEARCH
  return { grid, asymmetric, blockRows: 1, blockColumns: group, search, scaleType: 'f16' }
}

function randomWeights(rows: number, columns: number, random: Random, weighed = false): Weights {
  const values = randomWeight(rows, columns, random)
  if (!weighed) return { values, rows, columns }
  const importance = Float32Array.from({ length: columns }, () => 0.1 + random() ** 4 * 20)
  return { values, rows, columns, importance }
}

type Fitted = [scale: Float32Array, zero: Float32Array | undefined]

async function fitted(
  { kernels, up, zeros }: Pick<Bench, 'kernels' | 'up' | 'zeros'>,
  { values, rows, columns, importance }: Weights,
  options: Plan,
): Promise<Fitted> {
  const down = Math.ceil(rows / options.blockRows)
  const across = Math.ceil(columns / options.blockColumns)
  const scale = zeros(down, across)
  const zero = options.asymmetric ? zeros(down, across) : undefined
  kernels.fit(scale, zero, up(values, rows, columns), {
    ...options,
    ...(importance && { importance: up(importance, 1, columns) }),
  })
  return [await kernels.read(scale), zero && (await kernels.read(zero))]
}

/**
 * Scales must equal the reference's. Where two candidates are nearly as good, or a scale lies between
 * two f16, the arithmetic decides: a block in fifty may differ, if its error does not.
 */
async function expectFit(bench: Bench, weights: Weights, options: Plan): Promise<void> {
  const { rows, columns } = weights
  const across = Math.ceil(columns / options.blockColumns)
  const [actual, expected] = await bench.both((side) => fitted(side, weights, options))
  const { grid, blockRows, blockColumns, scaleType, search } = options
  const what = [
    `${grid.kind} grid, ${rows} × ${columns} in blocks of ${blockRows} × ${blockColumns}`,
    `${scaleType}, ${search.candidates} candidates`,
  ].join(', ')
  let different = 0
  const total = expected[0].length
  for (let block = 0; block < total; block++) {
    const [s, z] = [actual[0][block], actual[1]?.[block] ?? 0]
    const [rightScale, rightZero] = [expected[0][block], expected[1]?.[block] ?? 0]
    if (!(s > 0 && Number.isFinite(s))) expect.fail(`${what}: scale ${s} of block ${block}`)
    if (Math.abs(s / rightScale - 1) <= 1e-6 && z === rightZero) continue
    different++
    const is = errorOf(weights, options, block, across, s, z)
    const best = errorOf(weights, options, block, across, rightScale, rightZero)
    if (is > best * 1.001 + 1e-12) {
      const should = `${rightScale} and zero ${rightZero} (error ${best})`
      expect.fail(
        `${what}: block ${block}: scale ${s}, zero ${z} (error ${is}) instead of ${should}`,
      )
    }
  }
  if (different > Math.max(1, total / 50)) {
    expect.fail(`${what}: ${different} of ${total} blocks differ from the reference`)
  }
}

/** The weighted squared error of one block under a scale. */
function errorOf(
  { values, rows, columns, importance }: Weights,
  { grid, blockRows, blockColumns }: Plan,
  block: number,
  across: number,
  scale: number,
  zero: number,
): number {
  const top = Math.floor(block / across) * blockRows
  const left = (block % across) * blockColumns
  const inside: number[] = []
  const factors: number[] = []
  for (let row = top; row < Math.min(rows, top + blockRows); row++) {
    for (let column = left; column < Math.min(columns, left + blockColumns); column++) {
      inside.push(values[row * columns + column])
      factors.push(importance ? importance[column] : 1)
    }
  }
  return blockError(inside, factors, { scale, zero }, gridRounder(grid))
}

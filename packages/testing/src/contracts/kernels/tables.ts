/** Tables for blocks of a weight, and rounding to several tables, against the reference. */

import {
  bfloatToFloat,
  floatToBfloat,
  floatToHalf,
  halfToFloat,
  type LookupGrid,
  seededRandom,
  type TableFitOptions,
} from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import {
  type Random,
  randomHessian,
  randomOrder,
  randomValues,
  randomWeight,
} from '../../random.ts'
import { referenceKernels } from '../../reference/kernels.ts'
import { type BenchOf, expectClose, expectNear, expectRefusal } from './bench.ts'

const SHAPES = [
  [1, 1],
  [1, 7],
  [9, 1],
  [3, 5],
  [17, 33],
  [5, 130],
] as const

const half = (x: number): number => halfToFloat(floatToHalf(x))
const bfloat = (x: number): number => bfloatToFloat(floatToBfloat(x))

type Importance = 'none' | 'columns' | 'each'

export function tablesContract(open: BenchOf, it: Declare): void {
  it.each([
    ['f16', half],
    ['bf16', bfloat],
  ] as const)('fitTables: k-means of %s weights has the least error there is', async (_, round) => {
    const random = seededRandom(51)
    for (const [rows, columns] of SHAPES) {
      const weight = randomWeight(rows, columns, random).map(round)
      for (const importance of ['none', 'columns', 'each'] as const) {
        for (const [blockRows, blockColumns] of [
          [rows, columns],
          [4, columns],
          [rows, 5],
          [2, 16],
        ]) {
          for (const entries of [1, 2, 5, 16]) {
            await expectTables(open, { weight, rows, columns, blockRows, blockColumns }, entries, {
              importance,
              random,
            })
          }
        }
      }
    }
  })

  it('fitTables: weights of 32 bits are as good to a thousandth', async () => {
    const random = seededRandom(52)
    const weight = randomWeight(9, 70, random)
    const block = { weight, rows: 9, columns: 70, blockRows: 9, blockColumns: 70 }
    for (const entries of [3, 8]) {
      await expectTables(open, block, entries, { importance: 'each', random, tolerance: 1e-3 })
    }
  })

  it('fitTables: rows divided by their scales, errors as those of the weight', async () => {
    const random = seededRandom(57)
    const [rows, columns] = [6, 40]
    const weight = randomWeight(rows, columns, random).map(half)
    const scale = Float32Array.from({ length: rows }, (_, row) => 2 ** (row % 3))
    const importance = Float32Array.from({ length: columns }, () => random() + 0.1)
    for (const method of ['kmeans', 'uniform'] as const) {
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const tables = zeros(2, 5)
        kernels.fitTables(tables, up(weight, rows, columns), {
          ...{ blockRows: 3, blockColumns: columns, method },
          ...{ importance: up(importance, 1, columns), rowScale: up(scale, rows, 1) },
        })
        return kernels.read(tables)
      })
      expectClose(actual, expected, method, 1e-5)
    }
  })

  it('fitTables: uniform', async () => {
    const random = seededRandom(53)
    for (const [rows, columns] of SHAPES) {
      const weight = randomWeight(rows, columns, random)
      const options = { blockRows: 2, blockColumns: 6, method: 'uniform' } as const
      const blocks = Math.ceil(rows / 2) * Math.ceil(columns / 6)
      for (const entries of [1, 2, 8]) {
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const tables = zeros(blocks, entries)
          kernels.fitTables(tables, up(weight, rows, columns), options)
          return kernels.read(tables)
        })
        expectClose(actual, expected, `${rows} × ${columns}, ${entries} entries`, 1e-6)
      }
    }
  })

  it.each<[string, readonly number[], readonly number[]]>([
    ['fewer different weights than entries', [3, 1, 3, 1, 2], [1, 2, 3, 3, 3, 3]],
    ['a constant', [0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]],
    ['zeros of both signs', [0, -0, 0], [0, 0, 0, 0, 0, 0]],
  ])('fitTables: %s', async (_, weight, expected) => {
    const { kernels, up, zeros } = open()
    const tables = zeros(1, 6)
    const options = { blockRows: 1, blockColumns: weight.length, method: 'kmeans' } as const
    kernels.fitTables(tables, up(weight, 1, weight.length), options)
    expect([...(await kernels.read(tables))]).toEqual(expected)
  })

  it('fitTables: weights of no importance have no say, unless none has any', async () => {
    const { kernels, up, zeros } = open()
    const weight = up([1, 2, 50, 60], 1, 4)
    const options = { blockRows: 1, blockColumns: 4, method: 'kmeans' } as const
    const tables = zeros(1, 2)
    kernels.fitTables(tables, weight, { ...options, importance: up([1, 1, 0, 0], 1, 4) })
    expect([...(await kernels.read(tables))]).toEqual([1, 2])
    kernels.fitTables(tables, weight, { ...options, importance: up([0, 0, 0, 0], 1, 4) })
    expect([...(await kernels.read(tables))]).toEqual([1.5, 55])
  })

  it('fitTables: shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const options = { blockRows: 1, blockColumns: 4, method: 'kmeans' } as const
    const fitTo = (tables: [number, number], more: Partial<TableFitOptions> = {}) =>
      kernels.fitTables(zeros(...tables), zeros(2, 8), { ...options, ...more })
    await expectRefusal('tables', () => fitTo([3, 4]))
    await expectRefusal('entries', () => fitTo([4, 257]))
    await expectRefusal('blocks', () => fitTo([4, 4], { blockRows: 0 }))
    await expectRefusal('importance', () => fitTo([4, 4], { importance: zeros(1, 7) }))
    await expectRefusal('importance', () => fitTo([4, 4], { importance: zeros(3, 8) }))
    await expectRefusal('rowScale', () => fitTo([4, 4], { rowScale: zeros(1, 8) }))
  })

  const BLOCKS = [
    ['groups of 4 rows', 4, 66],
    ['groups of 3 rows', 3, 66],
    ['a table a row', 1, 66],
    ['groups of 16 columns', 19, 16],
    ['blocks of 5 × 7', 5, 7],
  ] as const

  it.each(BLOCKS)('decodeCodes and sumByCode: %s', async (_, blockRows, blockColumns) => {
    const [rows, columns] = [19, 66]
    const blocks = Math.ceil(rows / blockRows) * Math.ceil(columns / blockColumns)
    for (const entries of [2, 11, 256]) {
      const random = seededRandom(58)
      const tables = randomValues(blocks * entries, random)
      const x = randomValues(rows * columns, random)
      const scale = Float32Array.from({ length: rows }, () => 0.5 + random())
      const drawn = Uint8Array.from(x, () => Math.floor(random() * entries))
      for (const scaled of [false, true]) {
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const codes = zeros(rows, columns, 'u8')
          kernels.write(codes, drawn)
          const options = {
            ...{ blockRows, blockColumns },
            ...(scaled && { rowScale: up(scale, rows, 1) }),
          }
          const [out, sums] = [zeros(rows, columns), zeros(blocks, entries)]
          kernels.decodeCodes(out, codes, up(tables, blocks, entries), options)
          kernels.sumByCode(sums, up(x, rows, columns), codes, options)
          return [await kernels.read(out), await kernels.read(sums)]
        })
        expectClose(actual[0], expected[0], `decoded, ${entries} entries`, 1e-6)
        expectClose(actual[1], expected[1], `sums, ${entries} entries`, 1e-5)
      }
    }
  })

  it.each(BLOCKS)('round to several tables: %s', async (_, tableRows, tableColumns) => {
    const [rows, columns] = [19, 66]
    for (const entries of [2, 8, 40]) {
      const random = seededRandom(54)
      const grid = randomTables(rows, columns, tableRows, tableColumns, entries, random)
      const weight = randomWeight(rows, columns, random)
      const rounding = { grid, blockRows: 2, blockColumns: 10 }
      const scale = Float32Array.from({ length: 10 * 7 }, () => 0.5 + random())
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const [codes, decoded] = [zeros(rows, columns, 'u8'), zeros(rows, columns)]
        const s = up(scale, 10, 7)
        kernels.round(codes, decoded, up(weight, rows, columns), s, undefined, rounding)
        return [await kernels.readCodes(codes), await kernels.read(decoded)] as const
      })
      expect(actual[0]).toEqual(expected[0])
      expectClose(actual[1], expected[1], 'decoded', 1e-6)
    }
  })

  it.each(BLOCKS)('feedback and descend: %s', async (_, tableRows, tableColumns) => {
    const [rows, columns] = [19, 66]
    const random = seededRandom(55)
    const grid = randomTables(rows, columns, tableRows, tableColumns, 8, random)
    const weight = randomWeight(rows, columns, random)
    const hessian = randomHessian(columns, random)
    const order = randomOrder(columns, random)
    const tableOf = order.map((column) => Math.floor(column / tableColumns))
    const ordered = new Float32Array(rows * columns)
    for (let i = 0; i < ordered.length; i++) {
      const row = Math.floor(i / columns)
      ordered[i] = weight[row * columns + order[i % columns]]
    }
    const factor = await factorOf(hessian, columns, order)
    const rounding = { grid, blockRows: rows, blockColumns: columns }
    const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
      const [codes, one] = [zeros(rows, columns, 'u8'), up([1], 1, 1)]
      const working = up(ordered, rows, columns)
      kernels.feedback(codes, working, up(factor, columns, columns), one, undefined, {
        ...rounding,
        from: 0,
        to: columns,
        tableOf,
      })
      const fed = await kernels.read(working)
      const w = up(weight, rows, columns)
      const decoded = zeros(rows, columns)
      kernels.round(codes, decoded, w, one, undefined, rounding)
      for (let sweep = 0; sweep < 2; sweep++) {
        kernels.descend(codes, decoded, w, up(hessian, columns, columns), one, undefined, {
          ...rounding,
          damping: 0.01,
        })
      }
      return { fed, descended: await kernels.read(decoded) }
    })
    for (const part of ['fed', 'descended'] as const) {
      let same = 0
      for (let i = 0; i < rows * columns; i++) {
        if (Math.abs(actual[part][i] - expected[part][i]) < 1e-6) same++
      }
      // A tie that the last bit decides changes what comes after it in its row.
      expect(same, part).toBeGreaterThan(0.97 * rows * columns)
    }
  })

  it('tables that do not fit are LowbitErrors', async () => {
    const { kernels, zeros, up } = open()
    const [c, w, one] = [zeros(4, 8, 'u8'), zeros(4, 8), up([1], 1, 1)]
    const grid = randomTables(4, 8, 2, 8, 4, seededRandom(56))
    const rounding = { blockRows: 4, blockColumns: 8 }
    const round = (tables: LookupGrid) =>
      kernels.round(c, undefined, w, one, undefined, { ...rounding, grid: tables })
    await expectRefusal('blocks', () => round({ ...grid, blocks: { rows: 1, columns: 8 } }))
    await expectRefusal('elements', () => round({ ...grid, blocks: { elements: 16 } }))
    await expectRefusal('rows of tables', () =>
      kernels.decodeCodes(w, c, zeros(3, 4), { blockRows: 2, blockColumns: 8 }),
    )
    await expectRefusal('sums', () =>
      kernels.sumByCode(zeros(2, 4), zeros(4, 7), c, { blockRows: 2, blockColumns: 8 }),
    )
    await expectRefusal('tableOf', () =>
      kernels.feedback(c, w, zeros(8, 8), one, undefined, {
        ...{ ...rounding, grid, from: 0, to: 8, tableOf: new Uint32Array(8).fill(1) },
      }),
    )
  })
}

interface Blocked {
  readonly weight: Float32Array
  readonly rows: number
  readonly columns: number
  readonly blockRows: number
  readonly blockColumns: number
}

/** As good as the reference's tables, and ascending. Two divisions may be equally good. */
async function expectTables(
  open: BenchOf,
  { weight, rows, columns, blockRows, blockColumns }: Blocked,
  entries: number,
  { importance, random, tolerance = 1e-5 }: FitCase,
): Promise<void> {
  const across = Math.ceil(columns / blockColumns)
  const blocks = Math.ceil(rows / blockRows) * across
  const each = importance === 'each'
  const h = Float32Array.from({ length: (each ? rows : 1) * columns }, () => random() ** 4 + 1e-3)
  const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
    const tables = zeros(blocks, entries)
    kernels.fitTables(tables, up(weight, rows, columns), {
      ...{ blockRows, blockColumns, method: 'kmeans' },
      ...(importance !== 'none' && { importance: up(h, each ? rows : 1, columns) }),
    })
    return kernels.read(tables)
  })
  const errors = [actual, expected].map((tables) => {
    const sums = new Float64Array(blocks)
    for (let i = 0; i < weight.length; i++) {
      const [row, column] = [Math.floor(i / columns), i % columns]
      const block = Math.floor(row / blockRows) * across + Math.floor(column / blockColumns)
      const table = tables.subarray(block * entries, (block + 1) * entries)
      const least = table.reduce((d, t) => Math.min(d, Math.abs(t - weight[i])), 1e30)
      sums[block] += (importance === 'none' ? 1 : h[each ? i : column]) * least ** 2
    }
    return sums
  })
  for (let block = 0; block < blocks; block++) {
    const what = `${rows} × ${columns}, block ${block}, ${entries} entries, importance ${importance}`
    const table = actual.subarray(block * entries, (block + 1) * entries)
    if (table.some((t, i) => i > 0 && !(t >= table[i - 1]))) expect.fail(`${what}: not ascending`)
    const best = errors[1][block]
    // Values are f32: an error of 0 may come out as the square of their last bit.
    expectNear(errors[0][block], best, tolerance * best + 1e-13, `${what}: error`)
  }
}

interface FitCase {
  readonly importance: Importance
  readonly random: Random
  readonly tolerance?: number
}

function randomTables(
  rows: number,
  columns: number,
  tableRows: number,
  tableColumns: number,
  entries: number,
  random: Random,
): LookupGrid {
  const count = Math.ceil(rows / tableRows) * Math.ceil(columns / tableColumns)
  const values = randomValues(count * entries, random, 0.08)
  return {
    kind: 'lookup',
    entries,
    tables: { type: 'f32', values },
    blocks: { rows: tableRows, columns: tableColumns },
  }
}

async function factorOf(
  hessian: Float32Array,
  n: number,
  order: Uint32Array,
): Promise<Float32Array> {
  const kernels = referenceKernels()
  const out = kernels.tensor(n, n)
  expect(await kernels.factorInverse(out, kernels.upload(hessian, n, n), 0.05, order)).toBe(true)
  const factor = await kernels.read(out)
  kernels.dispose()
  return factor
}

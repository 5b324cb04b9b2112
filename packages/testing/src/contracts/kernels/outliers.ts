/** Numbers kept beside codes. */

import { type CacheGrid, HALVES, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal, type Side } from './bench.ts'
import { LONG_GRIDS, store, WIDTH } from './cache.ts'
import { expectAttendsAsDecoded } from './coded-attention.ts'

const withOutliers = (side: Side, grid: CacheGrid, capacity: number, width: number, count = 3) => ({
  ...store(side, grid, capacity, width),
  outliers: side.zeros(capacity, 2 * count, 'u16'),
})

const CODED: readonly (readonly [name: string, grid: CacheGrid])[] = [
  ...LONG_GRIDS.filter(([, { bits }]) => bits !== 16),
  [
    '2 bits, ranges that are cut',
    { bits: 2, tokens: 1, channels: 32, symmetric: false, range: 0.75 },
  ],
]

/** Numbers of which some lie far out: `far` of each row, at places that change from row to row. */
function scattered(rows: number, width: number, far: number, seed: number) {
  const values = randomValues(rows * width, seededRandom(seed))
  const places = new Set<number>()
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < far; i++) {
      const place = row * width + ((row * 7 + i * 11) % width)
      places.add(place)
      values[place] = (i % 2 ? -1 : 1) * (20 + row + 3 * i)
    }
  }
  return { values, places }
}

export function outliersContract(open: BenchOf, it: Declare): void {
  for (const [name, grid] of CODED) {
    it(`keeps what lies far out, to halves: ${name}`, async () => {
      const [rows, width] = [48, 64]
      const { values, places } = scattered(rows, width, 3, 5)
      const [actual, expected] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const past = withOutliers(side, grid, 72, width)
        kernels.encodeRows(past, 24, up(values, rows, width))
        const out = zeros(rows, width)
        kernels.decodeRows(out, past, 24)
        return [(await kernels.read(out)).slice(), await kernels.readCodes(past.outliers)] as const
      })
      expect([...actual[1]].filter((_, i) => i % 6 < 3)).toEqual(
        [...expected[1]].filter((_, i) => i % 6 < 3),
      )
      let error = 0
      for (const [i, value] of values.entries()) {
        const off = Math.abs(actual[0][i] - value)
        if (places.has(i)) {
          expect(off <= Math.abs(value) * 2 ** -10, `outlier ${i}: ${actual[0][i]}, ${value}`).toBe(
            true,
          )
        } else error = Math.max(error, off)
      }
      // Others are within a step of a range that has no outliers.
      const reach = 2 * Math.max(...values.filter((_, i) => !places.has(i)).map(Math.abs))
      const step = reach * (grid.table ? 0.35 : 1 / (2 ** grid.bits - 1))
      expect(error <= step, `a number is ${error} off`).toBe(true)
      const apart = actual[0].filter((x, i) => Math.abs(x - expected[0][i]) > 2e-3)
      expect(apart.length <= 2, `${apart.length} values differ`).toBe(true)
    })

    it.each([
      [1, 288, 4, 3, 1, 64, true, true],
      [2, 264, 3, 10, 2, 32, true, false],
      [3, 264, 260, 4, 2, 32, false, true],
      [7, 264, 3, 4, 2, 32, true, true],
    ])(
      `attends over outliers too, ${name}: %i rows, %i in codes, %i before, %i heads on %i of %i, keys %s, values %s`,
      async (rows, coded, before, heads, keyValueHeads, headSize, ...kept) => {
        const width = keyValueHeads * headSize
        const side = open()
        const codes = kept.map((outliers, i) => {
          const past = outliers
            ? withOutliers(side, grid, 288, width)
            : store(side, grid, 288, width)
          const { values } = scattered(coded, width, 2, i)
          side.kernels.encodeRows(past, 0, side.up(values, coded, width))
          return past
        })
        const sizes = [rows, coded, before, heads, keyValueHeads, headSize] as const
        await expectAttendsAsDecoded(side, codes, sizes, { scale: 0.05, tolerance: 5e-5 })
      },
    )
  }

  it('a block of outliers alone, and of equal numbers', async () => {
    const side = open()
    const { kernels, up, zeros } = side
    const grid: CacheGrid = { bits: 2, tokens: 1, channels: 8, symmetric: false }
    const past = withOutliers(side, grid, 8, WIDTH, 8)
    // The first eight channels lie far from each other; the others are all alike.
    const x = Float32Array.from({ length: 8 * WIDTH }, (_, i) =>
      i % WIDTH < 8 ? (i % 2 ? -1 : 1) * (100 + (i % WIDTH)) : 2.5,
    )
    kernels.encodeRows(past, 0, up(x, 8, WIDTH))
    const out = zeros(8, WIDTH)
    kernels.decodeRows(out, past, 0)
    expectClose(await kernels.read(out), x, 'outliers', 1e-3, WIDTH)
  })

  it('refuses outliers that do not fit', async () => {
    const side = open()
    const { kernels, zeros } = side
    const grid: CacheGrid = { bits: 4, tokens: 1, channels: 16, symmetric: false }
    const past = store(side, grid, 16)
    const x = zeros(8, WIDTH)
    for (const [name, outliers] of [
      ['floats', zeros(16, 4)],
      ['an odd column', zeros(16, 5, 'u16')],
      ['fewer rows', zeros(8, 4, 'u16')],
      ['more than half of a row', zeros(16, WIDTH + 2, 'u16')],
    ] as const) {
      await expectRefusal(name, () => kernels.encodeRows({ ...past, outliers }, 0, x))
    }
    const halves = { ...store(side, HALVES, 16), outliers: zeros(16, 4, 'u16') }
    await expectRefusal('outliers of halves', () => kernels.encodeRows(halves, 0, x))
  })
}

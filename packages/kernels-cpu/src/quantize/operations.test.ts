import {
  binaryGrid,
  FLOAT_FORMATS,
  floatGrid,
  floatToHalf,
  gridValues,
  halfToFloat,
  normalFloatGrid,
  type ScalarGrid,
  signedGrid,
  ternaryGrid,
  unsignedGrid,
} from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import { everyBuild, normals, seeded, using, withThreads } from '../plain-loops.ts'

const grids: Record<string, ScalarGrid> = {
  int4: signedGrid(4),
  uint3: unsignedGrid(3),
  int8: signedGrid(8),
  binary: binaryGrid(),
  ternary: ternaryGrid(),
  nf4: normalFloatGrid(4),
  e2m1: floatGrid(FLOAT_FORMATS.f4_e2m1),
  e4m3: floatGrid(FLOAT_FORMATS.f8_e4m3),
}

const search1 = { candidates: 1, step: 0 }

/** The nearest s·(value − z), by looking at all of them. */
function nearest(values: Float32Array, w: number, s: number, z: number): number {
  let best = 0
  values.forEach((value, code) => {
    if (Math.abs(s * (value - z) - w) < Math.abs(s * (values[best] - z) - w)) best = code
  })
  return Math.abs(s * (values[best] - z) - w)
}

const shapes = [
  { rows: 1, columns: 1, blockRows: 1, blockColumns: 1 },
  { rows: 5, columns: 37, blockRows: 1, blockColumns: 16 },
  { rows: 18, columns: 64, blockRows: 4, blockColumns: 32 },
  { rows: 7, columns: 33, blockRows: 7, blockColumns: 33 },
  { rows: 3, columns: 10, blockRows: 1, blockColumns: 3 },
]

describe.each(everyBuild)('rounding, %j', (options) => {
  it.each(Object.keys(grids))('finds the nearest values of %s', async (name) => {
    const grid = grids[name]
    const values = gridValues(grid).map((value) => (Number.isFinite(value) ? value : 1e30))
    await using(options, async (kernels) => {
      for (const { rows, columns, blockRows, blockColumns } of shapes) {
        for (const asymmetric of name === 'uint3' ? [true] : [false]) {
          const w = normals(seeded(columns), rows * columns)
          const weight = kernels.upload(w, rows, columns)
          const [high, wide] = [Math.ceil(rows / blockRows), Math.ceil(columns / blockColumns)]
          const scale = kernels.tensor(high, wide)
          const zero = asymmetric ? kernels.tensor(high, wide) : undefined
          const rounding = { grid, blockRows, blockColumns }
          const fit = { ...rounding, asymmetric, search: search1, scaleType: 'f32' } as const
          kernels.fit(scale, zero, weight, fit)
          const codes = kernels.tensor(rows, columns, 'u8')
          const decoded = kernels.tensor(rows, columns)
          kernels.round(codes, decoded, weight, scale, zero, rounding)
          const [c, d, s] = [
            await kernels.readCodes(codes),
            await kernels.read(decoded),
            await kernels.read(scale),
          ]
          const z = zero && (await kernels.read(zero))
          for (let i = 0; i < w.length; i++) {
            const [row, column] = [Math.floor(i / columns), i % columns]
            const block = Math.floor(row / blockRows) * wide + Math.floor(column / blockColumns)
            const meant = s[block] * (values[c[i]] - (z?.[block] ?? 0))
            expect(Math.abs(d[i] - meant)).toBeLessThan(1e-6)
            const least = nearest(values, w[i], s[block], z?.[block] ?? 0)
            expect(Math.abs(meant - w[i])).toBeLessThan(least + 1e-5)
          }
        }
      }
    })
  })
})

describe('fit', () => {
  async function fitOne(
    w: number[],
    grid: ScalarGrid,
    more: { asymmetric?: boolean; scaleType?: 'f32' | 'f16' | 'bf16' | 'f8_e8m0' } = {},
    search = search1,
  ): Promise<[number, number]> {
    return using({ threads: 1 }, async (kernels) => {
      const { asymmetric = false, scaleType = 'f32' } = more
      const scale = kernels.tensor(1, 1)
      const zero = asymmetric ? kernels.tensor(1, 1) : undefined
      const weight = kernels.upload(Float32Array.from(w), 1, w.length)
      kernels.fit(scale, zero, weight, {
        ...{ grid, blockRows: 1, blockColumns: w.length, asymmetric, scaleType, search },
      })
      return [(await kernels.read(scale))[0], zero ? (await kernels.read(zero))[0] : 0]
    })
  }

  it('maps the range onto the grid', async () => {
    expect(await fitOne([1.5, -3, 2], signedGrid(4))).toEqual([Math.fround(6 / 15), 0])
    expect(await fitOne([-1, 2], unsignedGrid(2), { asymmetric: true })).toEqual([1, 1])
    expect(await fitOne([1, 2], unsignedGrid(2), { asymmetric: true })).toEqual([
      Math.fround(2 / 3),
      0,
    ])
    expect(await fitOne([1, -2, 4, 5], ternaryGrid())).toEqual([5, 0])
    expect(await fitOne([1, -2, 4, 5], binaryGrid())).toEqual([3, 0])
    expect(await fitOne([1, -12], floatGrid(FLOAT_FORMATS.f4_e2m1))).toEqual([2, 0])
  })

  it('rounds scales to their type', async () => {
    const [exact] = await fitOne([1.2345], signedGrid(4))
    const [half] = await fitOne([1.2345], signedGrid(4), { scaleType: 'f16' })
    expect(half).toBe(halfToFloat(floatToHalf(exact)))
    for (const w of [1e-9, 3e-7, 1e-5, 0.3, 7e5]) {
      const [s] = await fitOne([w], signedGrid(8), { scaleType: 'f16' })
      expect(s).toBe(halfToFloat(floatToHalf(s)))
      expect(s).toBeGreaterThan(0)
    }
    const [brain] = await fitOne([1.2345], signedGrid(4), { scaleType: 'bf16' })
    expect(Math.abs(brain / exact - 1)).toBeLessThan(2 ** -8)
    const mx = { scaleType: 'f8_e8m0' } as const
    // ⌊log2 13⌋ − ⌊log2 6⌋ = 1
    expect(await fitOne([13, -2], floatGrid(FLOAT_FORMATS.f4_e2m1), mx)).toEqual([2, 0])
    expect(await fitOne([0.9], floatGrid(FLOAT_FORMATS.f4_e2m1), mx)).toEqual([0.125, 0])
  })

  it('makes something of zeros', async () => {
    for (const grid of Object.values(grids)) {
      const [s] = await fitOne([0, 0, 0], grid)
      expect(s).toBeGreaterThan(0)
    }
    expect(await fitOne([0, 0], unsignedGrid(4), { asymmetric: true })).toEqual([2 ** -126, 0])
  })

  it('searches as the reference does', async () => {
    const random = seeded(12)
    const search = { candidates: 40, step: 0.02 }
    const columns = 64
    const importance = Float32Array.from({ length: columns }, () => 0.1 + random())
    await using({ threads: 2 }, async (kernels) => {
      const rows = 20
      const w = normals(random, rows * columns)
      for (const asymmetric of [true, false]) {
        const grid = asymmetric ? unsignedGrid(3) : signedGrid(3)
        const scale = kernels.tensor(rows, 1)
        const zero = asymmetric ? kernels.tensor(rows, 1) : undefined
        kernels.fit(scale, zero, kernels.upload(w, rows, columns), {
          ...{ grid, blockRows: 1, blockColumns: columns, asymmetric, search, scaleType: 'f32' },
          importance: kernels.upload(importance, 1, columns),
        })
        const s = await kernels.read(scale)
        const z = zero ? await kernels.read(zero) : new Float32Array(rows)
        for (let row = 0; row < rows; row++) {
          const x = w.subarray(row * columns, (row + 1) * columns)
          const lo = Math.min(0, ...x)
          const hi = Math.max(0, ...x)
          const error = (scale: number, zero: number) =>
            x.reduce((sum, v, i) => {
              const c = Math.round(v / scale) + zero - grid.lowest
              const q = scale * (grid.lowest + Math.min(7, Math.max(0, c)) - zero)
              return sum + importance[i] * (v - q) ** 2
            }, 0)
          let least = Number.POSITIVE_INFINITY
          for (let i = 0; i < search.candidates; i++) {
            const p = 1 - search.step * i
            const range = asymmetric ? hi - lo : 2 * Math.max(hi, -lo)
            const size = (range * p) / 7
            least = Math.min(least, error(size, asymmetric ? Math.round((-lo * p) / size) : 0))
          }
          expect(error(s[row], z[row])).toBeLessThan(least * (1 + 1e-4))
        }
      }
    })
  })
})

/** Column by column, in f64. */
function plainFeedback(
  w: Float64Array,
  u: Float32Array,
  rows: number,
  columns: number,
  from: number,
  to: number,
  round: (row: number, column: number, w: number) => number,
): void {
  for (let row = 0; row < rows; row++) {
    const x = w.subarray(row * columns, (row + 1) * columns)
    for (let j = from; j < to; j++) {
      const q = round(row, j, x[j])
      const e = (x[j] - q) / u[j * columns + j]
      for (let k = j + 1; k < columns; k++) x[k] -= e * u[j * columns + k]
      x[j] = q
    }
  }
}

describe('feedback', () => {
  it('is the column-by-column algorithm', async () => {
    await using({ threads: 2 }, async (kernels) => {
      for (const [rows, columns, from, to, blockColumns] of [
        [1, 1, 0, 1, 1],
        [5, 40, 0, 40, 16],
        [103, 300, 0, 300, 32],
        [20, 150, 32, 64, 32],
        [17, 133, 0, 133, 133],
      ]) {
        for (const grid of [signedGrid(4), normalFloatGrid(4)]) {
          const random = seeded(columns)
          const w = normals(random, rows * columns)
          const u = normals(random, columns * columns, 0.05)
          for (let i = 0; i < columns; i++) {
            u.fill(0, i * columns, i * columns + i)
            u[i * columns + i] = 1 + random()
          }
          const across = Math.ceil(columns / blockColumns)
          const blockOf = Uint32Array.from({ length: columns }, () => Math.floor(random() * across))
          const weight = kernels.upload(w, rows, columns)
          const scale = kernels.tensor(rows, across)
          const rounding = { grid, blockRows: 1, blockColumns }
          kernels.fit(scale, undefined, weight, {
            ...{ ...rounding, asymmetric: false, search: search1, scaleType: 'f32' },
          })
          const s = await kernels.read(scale)
          const codes = kernels.tensor(rows, columns, 'u8')
          const factor = kernels.upload(u, columns, columns)
          kernels.feedback(codes, weight, factor, scale, undefined, {
            ...{ ...rounding, from, to, blockOf },
          })
          const actual = await kernels.read(weight)
          const c = await kernels.readCodes(codes)
          const values = gridValues(grid)
          // Taking the kernels' own codes, so that a tie decided by the last bit changes nothing.
          const exact = Float64Array.from(w)
          let worst = 0
          plainFeedback(exact, u, rows, columns, from, to, (row, column, x) => {
            const size = s[row * across + blockOf[column]]
            const q = size * values[c[row * columns + column]]
            worst = Math.max(worst, Math.abs(q - x) - nearest(values, x, size, 0))
            return q
          })
          expect(worst).toBeLessThan(1e-4)
          let difference = 0
          for (let i = 0; i < exact.length; i++) {
            difference = Math.max(difference, Math.abs(exact[i] - actual[i]))
          }
          expect(difference).toBeLessThan(2e-4)
        }
      }
    })
  })

  it('gives the same bits for any number of threads', async () => {
    const results = await withThreads(async (kernels) => {
      const random = seeded(8)
      const [rows, columns] = [210, 160]
      const weight = kernels.upload(normals(random, rows * columns), rows, columns)
      const x = kernels.upload(normals(random, 400 * columns), 400, columns)
      const h = kernels.tensor(columns, columns)
      kernels.gram(h, x, 1 / 400)
      const factor = kernels.tensor(columns, columns)
      expect(await kernels.factorInverse(factor, h, 0.01)).toBe(true)
      const scale = kernels.tensor(rows, 5)
      const zero = kernels.tensor(rows, 5)
      const rounding = { grid: unsignedGrid(4), blockRows: 1, blockColumns: 32 }
      kernels.fit(scale, zero, weight, {
        ...{ ...rounding, asymmetric: true, search: { candidates: 20, step: 0.02 } },
        scaleType: 'f16',
      })
      const codes = kernels.tensor(rows, columns, 'u8')
      kernels.feedback(codes, weight, factor, scale, zero, { ...rounding, from: 0, to: columns })
      return [await kernels.readCodes(codes), await kernels.read(weight)]
    })
    expect(results[1]).toEqual(results[0])
    expect(results[2]).toEqual(results[0])
  })
})

describe('fitTables', () => {
  /** The least Σ h·(w − mean of its run)² over all divisions of sorted points into runs. */
  function exhaustive(points: [number, number][], runs: number): number {
    const loss = (part: [number, number][]): number => {
      const total = part.reduce((sum, [, h]) => sum + h, 0)
      const mean = part.reduce((sum, [w, h]) => sum + h * w, 0) / total
      return part.reduce((sum, [w, h]) => sum + h * (w - mean) ** 2, 0)
    }
    if (runs === 1) return loss(points)
    let least = Number.POSITIVE_INFINITY
    for (let first = 1; first <= points.length - runs + 1; first++) {
      const rest = exhaustive(points.slice(first), runs - 1)
      least = Math.min(least, loss(points.slice(0, first)) + rest)
    }
    return least
  }

  it('is as good as the best of all divisions, each of them tried', async () => {
    await using({ threads: 1 }, async (kernels) => {
      for (let seed = 0; seed < 40; seed++) {
        const random = seeded(seed)
        const n = 2 + Math.floor(random() * 9)
        const w = normals(random, n).map((x) => halfToFloat(floatToHalf(x)))
        const h = Float32Array.from(w, () => random() ** 3 + 1e-3)
        const sorted = [...w.entries()].map(([i, x]): [number, number] => [x, h[i]])
        sorted.sort(([a], [b]) => a - b)
        for (let entries = 1; entries <= Math.min(n, 5); entries++) {
          const tables = kernels.tensor(1, entries)
          kernels.fitTables(tables, kernels.upload(w, 1, n), {
            ...{ blockRows: 1, blockColumns: n, method: 'kmeans' },
            importance: kernels.upload(h, 1, n),
          })
          const table = await kernels.read(tables)
          const loss = sorted.reduce((sum, [x, weight]) => {
            return sum + weight * Math.min(...[...table].map((t) => (x - t) ** 2))
          }, 0)
          const least = exhaustive(sorted, entries)
          expect(Math.abs(loss - least)).toBeLessThan(1e-6 * least + 1e-12)
        }
      }
    })
  })

  it('finds the way among more leading bits than are told apart', async () => {
    // Both signs, 62 exponents and 1,211 mantissas: more than 65,536 groups.
    const values = Float32Array.from({ length: 300 * 500 }, (_, i) => {
      return (i % 2 ? -1 : 1) * 2 ** (-30 + (i % 62)) * (1 + Math.floor(i / 124) / 1211)
    })
    await using({ threads: 2 }, async (kernels) => {
      const tables = kernels.tensor(1, 4)
      const options = { blockRows: 300, blockColumns: 500, method: 'kmeans' } as const
      kernels.fitTables(tables, kernels.upload(values, 300, 500), options)
      const table = await kernels.read(tables)
      // The largest exponents decide everything: half of the clusters for each sign.
      expect(table[0]).toBeLessThan(-(2 ** 30))
      expect(table[1]).toBeLessThan(0)
      expect(table[2]).toBeGreaterThan(0)
      expect(table[3]).toBeGreaterThan(2 ** 30)
    })
  })

  it('gives the same bits for any number of threads', async () => {
    const results = await withThreads(async (kernels) => {
      const random = seeded(31)
      const [rows, columns] = [203, 170]
      const weight = kernels.upload(normals(random, rows * columns), rows, columns)
      const importance = kernels.upload(normals(random, columns).map(Math.abs), 1, columns)
      const tables = kernels.tensor(13, 8)
      const blocks = { blockRows: 16, blockColumns: columns }
      kernels.fitTables(tables, weight, { ...blocks, method: 'kmeans', importance })
      const codes = kernels.tensor(rows, columns, 'u8')
      const one = kernels.upload(Float32Array.of(1), 1, 1)
      const values = await kernels.read(tables)
      kernels.round(codes, undefined, weight, one, undefined, {
        ...{ blockRows: rows, blockColumns: columns },
        grid: {
          ...{ kind: 'lookup', entries: 8, tables: { type: 'f32', values } },
          blocks: { rows: 16, columns },
        },
      })
      const sums = kernels.tensor(13, 8)
      kernels.sumByCode(sums, weight, codes, blocks)
      const decoded = kernels.tensor(rows, columns)
      kernels.decodeCodes(decoded, codes, tables, blocks)
      return [values, await kernels.read(sums), await kernels.read(decoded)]
    })
    expect(results[1]).toEqual(results[0])
    expect(results[2]).toEqual(results[0])
  })
})

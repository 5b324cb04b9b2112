/** Vectors of weights, against the reference. */

import { seededRandom, type VectorRounding } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomHessian, randomValues, randomWeight } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal, type Side } from './bench.ts'

interface PassSample {
  readonly rows: number
  readonly columns: number
  readonly length: number
  readonly along: 'in' | 'out'
  /** Entries of each table. */
  readonly entries: readonly number[]
  readonly tableRows?: number
  readonly scaleColumns?: number
  readonly rowScale?: boolean
  readonly columnScale?: boolean
  readonly columnBias?: boolean
  readonly from?: number
  readonly to?: number
}

const OUT: readonly PassSample[] = [
  { rows: 1, columns: 1, length: 1, along: 'out', entries: [2] },
  { rows: 8, columns: 20, length: 4, along: 'out', entries: [16] },
  { rows: 13, columns: 9, length: 8, along: 'out', entries: [32], rowScale: true },
  {
    ...{ rows: 100, columns: 140, length: 6, along: 'out', entries: [64, 8] },
    ...{ rowScale: true, columnScale: true, columnBias: true },
  },
  { rows: 7, columns: 150, length: 3, along: 'out', entries: [9, 4, 3], columnScale: true },
  { rows: 40, columns: 33, length: 5, along: 'out', entries: [21], from: 7, to: 20 },
  { rows: 33, columns: 10, length: 16, along: 'out', entries: [12] },
  // Tables large enough for a search that does not look at all entries.
  { rows: 90, columns: 40, length: 8, along: 'out', entries: [2048, 2100], rowScale: true },
  { rows: 61, columns: 40, length: 5, along: 'out', entries: [1024] },
  {
    rows: 20,
    columns: 12,
    length: 12,
    along: 'out',
    entries: [7],
    scaleColumns: 5,
    rowScale: true,
  },
  // Vectors enough for some of them to share what is read of a large table.
  { rows: 327, columns: 34, length: 5, along: 'out', entries: [1024, 5], columnScale: true },
]

const IN: readonly PassSample[] = [
  { rows: 1, columns: 1, length: 1, along: 'in', entries: [2] },
  { rows: 5, columns: 16, length: 2, along: 'in', entries: [16] },
  { rows: 103, columns: 150, length: 4, along: 'in', entries: [32], rowScale: true },
  { rows: 30, columns: 21, length: 4, along: 'in', entries: [8, 8], tableRows: 10 },
  { rows: 9, columns: 40, length: 3, along: 'in', entries: [16], from: 6, to: 20, tableRows: 4 },
  { rows: 12, columns: 32, length: 2, along: 'in', entries: [9], scaleColumns: 8, rowScale: true },
  { rows: 200, columns: 12, length: 1, along: 'in', entries: [4], tableRows: 120 },
  { rows: 220, columns: 18, length: 4, along: 'in', entries: [1024], tableRows: 200 },
]

const nameOf = ({ along, length, rows, columns, entries }: PassSample): string =>
  `${along}, ${entries.join(' + ')} vectors of ${length}, ${rows} × ${columns}`

/** The same random case on both sides. */
function passOf(sample: PassSample, { up, zeros }: Side) {
  const { rows, columns, length, along, entries } = sample
  const { tableRows, scaleColumns, from, to } = sample
  const random = seededRandom(rows * 1000 + columns)
  const positive = (n: number): Float32Array =>
    randomValues(n, random).map((x) => 0.5 + Math.abs(x))
  const width = (to ?? columns) - (from ?? 0)
  const groups = Math.ceil(rows / (tableRows ?? rows))
  const weight = randomWeight(rows, columns, random)
  const options: VectorRounding & { from?: number; to?: number } = {
    ...{ length, along, tableRows, scaleColumns, from, to },
    tables: entries.map((count, stage) => ({
      entries: count,
      values: up(
        randomValues(groups * count * length, random).map((x) => x / (1 + 2 * stage)),
        groups * count,
        length,
      ),
    })),
    ...(sample.rowScale && {
      rowScale: up(
        positive(rows * Math.ceil(columns / (scaleColumns ?? columns))),
        rows,
        Math.ceil(columns / (scaleColumns ?? columns)),
      ),
    }),
    ...(sample.columnScale && { columnScale: up(positive(columns), 1, columns) }),
    ...(sample.columnBias && { columnBias: up(randomValues(columns, random), 1, columns) }),
  }
  const codes = entries.map(() =>
    along === 'out'
      ? zeros(Math.ceil(rows / length), width, 'u16')
      : zeros(rows, Math.ceil(width / length), 'u16'),
  )
  const hessian = randomHessian(columns, random)
  return { weight, options, codes, hessian }
}

export function vectorContract(open: BenchOf, it: Declare): void {
  it('transpose, with room to spare', async () => {
    for (const [rows, columns, wide] of [
      [1, 1, 1],
      [3, 40, 3],
      [17, 5, 24],
    ]) {
      const x = randomValues(rows * columns, seededRandom(rows))
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const out = zeros(columns, wide)
        kernels.transpose(out, up(x, rows, columns))
        return kernels.read(out)
      })
      expect(actual).toEqual(expected)
    }
  })

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16])('nearest of vectors of %d', async (d) => {
    for (const [n, entries] of [
      [1, 1],
      [70, 3],
      [131, 40],
      [3, 300],
    ]) {
      const random = seededRandom(d * n)
      const x = randomValues(n * d, random)
      const table = randomValues(entries * d, random)
      const [[codes, distances], [expected, far]] = await open().both(
        async ({ kernels, up, zeros }) => {
          const [c, s] = [zeros(n, 1, 'u16'), zeros(n, 1)]
          kernels.nearest(c, up(x, n, d), up(table, entries, d), s)
          return [await kernels.readCodes(c), await kernels.read(s)] as const
        },
      )
      expect([...codes], `${n} in ${entries}`).toEqual([...expected])
      expectClose(distances, far, 'distances', 1e-5)
    }
  })

  it('nearest: of equal entries the first', async () => {
    const { kernels, up, zeros } = open()
    const codes = zeros(2, 1, 'u16')
    kernels.nearest(codes, up([1, 2, -1, 0], 2, 2), up([1, 2, 0, 0, 1, 2, 0, 0], 4, 2))
    expect([...(await kernels.readCodes(codes))]).toEqual([0, 1])
  })

  it('sums of clusters, weighted and not; empty ones are zeros', async () => {
    const random = seededRandom(5)
    const [n, d, entries] = [200, 3, 7]
    const x = randomValues(n * d, random)
    const weights = randomValues(n, random).map(Math.abs)
    const codes = Uint16Array.from({ length: n }, () => Math.floor(random() * (entries - 1)))
    for (const weighted of [false, true]) {
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const sums = zeros(entries, d + 1)
        const c = zeros(n, 1, 'u16')
        kernels.write(c, codes)
        kernels.clusterSums(sums, up(x, n, d), c, weighted ? up(weights, n, 1) : undefined)
        return kernels.read(sums)
      })
      expectClose(actual, expected, 'sums', 1e-6)
      expect([...actual.slice(-d - 1)]).toEqual([0, 0, 0, 0])
    }
  })

  it.each(['mahalanobis', 'kmeans++'] as const)('clusters of groups, %s', async (seeding) => {
    for (const [n, d, groupRows, entries] of [
      [300, 2, 100, 8],
      [130, 1, 50, 4],
      [64, 4, 64, 16],
      [7, 3, 3, 5],
      [1, 2, 1, 1],
    ]) {
      const random = seededRandom(n)
      const x = randomValues(n * d, random)
      const weights = randomValues(n, random).map((w) => 0.1 + Math.abs(w))
      const groups = Math.ceil(n / groupRows)
      const [tables, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const out = zeros(groups * entries, d)
        const how = { groupRows, entries, seeding, iterations: 15, seed: 7 }
        kernels.cluster(out, up(x, n, d), { ...how, weights: up(weights, n, 1) })
        return kernels.read(out)
      })
      const lost = (table: Float32Array): number => {
        let sum = 0
        for (let i = 0; i < n; i++) {
          const group = Math.floor(i / groupRows)
          let least = Number.POSITIVE_INFINITY
          for (let c = group * entries; c < (group + 1) * entries; c++) {
            let s = 0
            for (let e = 0; e < d; e++) s += (x[i * d + e] - table[c * d + e]) ** 2
            least = Math.min(least, s)
          }
          sum += least * weights[i]
        }
        return sum
      }
      // The seeds of k-means++ are each device's own.
      if (seeding === 'mahalanobis') expectClose(tables, expected, 'tables', 1e-4)
      expect(lost(tables)).toBeLessThanOrEqual(1.4 * lost(expected) + 1e-6)
    }
  })

  it.each([OUT[3], OUT[5], IN[2], IN[3], IN[5]].map((sample) => [nameOf(sample), sample] as const))(
    'sums over the weights of each entry: %s',
    async (_, sample) => {
      const { rows, columns } = sample
      const [actual, expected] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const { options, codes, weight } = passOf(sample, side)
        const random = seededRandom(77)
        codes.forEach((tensor, i) => {
          const { entries } = options.tables[i]
          const size = tensor.rows * tensor.columns
          const some = Uint16Array.from({ length: size }, () => Math.floor(random() * entries))
          kernels.write(tensor, some)
        })
        const sums = options.tables.map(({ values }) => zeros(values.rows, values.columns))
        kernels.scatterVectors(sums, up(weight, rows, columns), codes, options)
        return Promise.all(sums.map((sum) => kernels.read(sum)))
      })
      for (const i of actual.keys()) expectClose(actual[i], expected[i], `sums ${i}`, 1e-5)
    },
  )

  it('neighbours: itself first, then by distance', async () => {
    for (const [entries, d, candidates] of [
      [1, 1, 1],
      [30, 3, 8],
      [9, 4, 9],
      [50, 2, 1],
    ]) {
      const table = randomValues(entries * d, seededRandom(entries))
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const out = zeros(entries, candidates, 'u16')
        kernels.neighbours(out, up(table, entries, d))
        return kernels.readCodes(out)
      })
      expect([...actual]).toEqual([...expected])
    }
  })

  it.each([...OUT, ...IN].map((sample) => [nameOf(sample), sample] as const))(
    'feedback %s',
    async (_, sample) => {
      const { rows, columns } = sample
      const [actual, expected] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const { weight, options, codes, hessian } = passOf(sample, side)
        const factor = zeros(columns, columns)
        await kernels.factorInverse(factor, up(hessian, columns, columns), 0.1)
        const w = up(weight, rows, columns)
        kernels.feedbackVectors(codes, w, factor, options)
        // Decoding the codes must give what the pass has left.
        const decoded = up(await kernels.read(w), rows, columns)
        kernels.decodeVectors(decoded, codes, options)
        return {
          decoded: await kernels.read(decoded),
          codes: await Promise.all(codes.map(async (c) => [...(await kernels.readCodes(c))])),
          weight: await kernels.read(w),
        }
      })
      expect(actual.codes).toEqual(expected.codes)
      expectClose(actual.weight, expected.weight, 'weight', 2e-4)
      expectClose(actual.decoded, actual.weight, 'decoded', 2e-6)
    },
  )

  it.each(OUT.map((sample) => [nameOf(sample), sample] as const))(
    'descend %s',
    async (_, sample) => {
      const { rows, columns, from = 0, to = columns } = sample
      const [actual, expected] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const { weight, options, codes, hessian } = passOf(sample, side)
        const h = up(hessian, columns, columns)
        const w = up(weight, rows, columns)
        const factor = zeros(columns, columns)
        await kernels.factorInverse(factor, h, 0.1)
        const decoded = up(weight, rows, columns)
        kernels.feedbackVectors(codes, decoded, factor, options)
        const neighbours = options.tables.map(({ values, entries }) => {
          const near = zeros(entries, Math.min(entries, 6), 'u16')
          kernels.neighbours(near, values)
          return near
        })
        // Columns outside the range are as they were before the pass fed into them.
        if (from > 0 || to < columns) {
          const part = await kernels.read(decoded)
          const whole = weight.slice()
          for (let row = 0; row < rows; row++) {
            for (let j = from; j < to; j++) whole[row * columns + j] = part[row * columns + j]
          }
          kernels.write(decoded, whole)
        }
        const before = await kernels.distance(w, decoded, h)
        for (let sweep = 0; sweep < 2; sweep++) {
          kernels.descendVectors(codes, decoded, w, h, { ...options, damping: 0, neighbours })
        }
        return {
          codes: await Promise.all(codes.map(async (c) => [...(await kernels.readCodes(c))])),
          decoded: await kernels.read(decoded),
          before,
          after: await kernels.distance(w, decoded, h),
        }
      })
      expect(actual.codes).toEqual(expected.codes)
      expectClose(actual.decoded, expected.decoded, 'decoded', 2e-4)
      expect(actual.after).toBeLessThanOrEqual(actual.before * (1 + 1e-6))
    },
  )

  it('refuses what does not fit', async () => {
    const { kernels, up, zeros } = open()
    const weight = up(new Float32Array(24), 4, 6)
    const factor = zeros(6, 6)
    const values = zeros(8, 2)
    const pass = (codes: [number, number], options: Partial<VectorRounding> & object) => () =>
      kernels.feedbackVectors([zeros(...codes, 'u16')], weight, factor, {
        ...{ length: 2, along: 'out', tables: [{ values, entries: 8 }] },
        ...options,
      })
    await expectRefusal('codes of another shape', pass([2, 5], {}))
    await expectRefusal('a table of another length', pass([1, 6], { length: 4 }))
    await expectRefusal('vectors of 17', pass([1, 6], { length: 17 }))
    await expectRefusal('no vectors', pass([2, 6], { length: 0 }))
    await expectRefusal('a table for some rows', pass([2, 6], { tableRows: 2 }))
    await expectRefusal('no such columns', pass([2, 6], { from: 3, to: 9 } as object))
    await expectRefusal('scales inside a vector', pass([4, 3], { along: 'in', scaleColumns: 3 }))
    await expectRefusal('codes of u8', () =>
      kernels.nearest(zeros(4, 1, 'u8'), zeros(4, 2), values),
    )
    await expectRefusal('a code beyond the entries', () => {
      const codes = zeros(1, 1, 'u16')
      kernels.write(codes, Uint16Array.of(9))
      kernels.clusterSums(zeros(4, 3), zeros(1, 2), codes)
    })
    await expectRefusal('more neighbours than entries', () =>
      kernels.neighbours(zeros(8, 9, 'u16'), values),
    )
  })
}

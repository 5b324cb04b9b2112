import {
  binaryGrid,
  type DenseMatrix,
  decode,
  FLOAT_FORMATS,
  floatGrid,
  floatToBfloat,
  floatToHalf,
  gridLevels,
  gridValues,
  normalFloatGrid,
  packCodes,
  type QuantizedMatrix,
  type ScalarGrid,
  type Scale,
  signedGrid,
  ternaryGrid,
  toFloat32,
  unsignedGrid,
} from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import {
  error,
  everyBuild,
  normals,
  permutation,
  product,
  type Random,
  seeded,
  using,
} from '../plain-loops.ts'

interface Shape {
  rows: number
  columns: number
  group: number
  blockRows?: number
  zero?: boolean
  bias?: boolean
  order?: boolean
  columnScale?: boolean
}

function quantized(random: Random, grid: ScalarGrid, shape: Shape): QuantizedMatrix {
  const { rows, columns, group, blockRows = 1 } = shape
  const levels = gridLevels(grid)
  const codes = Uint16Array.from({ length: rows * columns }, () => Math.floor(random() * levels))
  if (grid.kind === 'float') {
    // NaN and infinities mean nothing in a weight.
    for (let i = 0; i < codes.length; i++) if ((codes[i] & 0x78) === 0x78) codes[i] &= 0x87
  }
  const bits = grid.kind === 'integer' ? grid.bits : Math.ceil(Math.log2(levels))
  const count = Math.ceil(rows / blockRows) * Math.ceil(columns / group)
  const scale = (values: Float32Array): Scale => ({
    blocks: { rows: blockRows, columns: group },
    values: { type: 'f32', values },
  })
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(codes, bits),
        vector: { length: 1, along: 'in' },
        grid,
        scale: scale(Float32Array.from({ length: count }, () => 0.1 + random())),
        ...(shape.zero && {
          zero: scale(Float32Array.from({ length: count }, () => Math.floor(random() * levels))),
        }),
        ...(shape.bias && { bias: scale(normals(random, count)) }),
      },
    ],
    ...(shape.order && { order: permutation(random, columns) }),
    ...(shape.columnScale && { columnScale: { type: 'f32', values: normals(random, columns) } }),
  }
}

const grids: Record<string, ScalarGrid> = {
  binary: binaryGrid(),
  ternary: ternaryGrid(),
  int2: unsignedGrid(2),
  int3: signedGrid(3),
  int4: signedGrid(4),
  uint4: unsignedGrid(4),
  int5: signedGrid(5),
  int8: signedGrid(8),
  nf4: normalFloatGrid(4),
  e4m3: floatGrid(FLOAT_FORMATS.f8_e4m3),
  palette2: {
    kind: 'lookup',
    entries: 4,
    tables: { type: 'f32', values: Float32Array.of(-2, -0.3, 0.1, 1.7) },
  },
  palette6: {
    kind: 'lookup',
    entries: 64,
    tables: { type: 'f32', values: normals(seeded(9), 64) },
  },
}

const shapes: Shape[] = [
  { rows: 1, columns: 1, group: 1 },
  { rows: 3, columns: 7, group: 7, zero: true },
  { rows: 17, columns: 96, group: 32, zero: true, order: true },
  { rows: 33, columns: 130, group: 64, bias: true, columnScale: true },
  { rows: 20, columns: 300, group: 128, blockRows: 8, zero: true },
  { rows: 9, columns: 40, group: 3, zero: true },
  { rows: 24, columns: 100, group: 100, blockRows: 24 },
  { rows: 5, columns: 300, group: 1 },
]

const tokens = [1, 2, 3, 4, 5, 7, 13]

describe.each(everyBuild)('matmul, %j', (options) => {
  it.each(Object.keys(grids))('agrees with decode: %s', async (name) => {
    const random = seeded(name.length)
    await using(options, async (kernels) => {
      const held = kernels.bytes
      for (const shape of shapes) {
        const grid = grids[name]
        const zero = shape.zero && grid.kind === 'integer'
        const matrix = quantized(random, grid, { ...shape, zero })
        const dense = decode(matrix)
        const weight = kernels.load(matrix)
        const { rows, columns } = shape
        for (const count of tokens) {
          const x = normals(random, count * columns)
          const expected = product(x, dense, count, rows, columns)
          const input = kernels.upload(x, count, columns)
          const out = kernels.tensor(count, rows)
          kernels.matmul(out, input, weight)
          const what = `${JSON.stringify(shape)} × ${count}, ${weight.variant}`
          expect(error(await kernels.read(out), expected), what).toBeLessThan(3e-6)
          kernels.matmul(out, input, weight, { accumulate: true })
          const twice = expected.map((value) => 2 * value)
          expect(error(await kernels.read(out), twice), what).toBeLessThan(3e-6)
          kernels.free(input, out)
        }
        const all = kernels.tensor(rows, columns)
        kernels.gather(all, weight)
        expect(error(await kernels.read(all), dense)).toBeLessThan(1e-6)
        const some = kernels.tensor(3, columns)
        const indices = Uint32Array.of(rows - 1, 0, rows >> 1)
        kernels.gather(some, weight, indices)
        const picked = [...indices].flatMap((row) => [
          ...dense.subarray(row * columns, (row + 1) * columns),
        ])
        expect(error(await kernels.read(some), picked)).toBeLessThan(1e-6)
        kernels.free(all, some)
        kernels.unload(weight)
      }
      expect(kernels.bytes).toBe(held)
    })
  })

  it('runs dense matrices in their own type', async () => {
    const random = seeded(5)
    await using(options, async (kernels) => {
      for (const [rows, columns] of [
        [1, 1],
        [19, 50],
        [70, 300],
      ]) {
        const values = normals(random, rows * columns)
        const half = Uint16Array.from(values, floatToHalf)
        const brain = Uint16Array.from(values, floatToBfloat)
        const matrices: [DenseMatrix, Float32Array][] = [
          [{ rows, columns, type: 'f32', values }, values],
          [{ rows, columns, type: 'f16', values: half }, toFloat32('f16', half)],
          [{ rows, columns, type: 'bf16', values: brain }, toFloat32('bf16', brain)],
        ]
        for (const [matrix, dense] of matrices) {
          const weight = kernels.load(matrix)
          for (const count of tokens) {
            const x = normals(random, count * columns)
            const input = kernels.upload(x, count, columns)
            const out = kernels.tensor(count, rows)
            kernels.matmul(out, input, weight)
            const expected = product(x, dense, count, rows, columns)
            expect(error(await kernels.read(out), expected), matrix.type).toBeLessThan(2e-6)
            kernels.free(input, out)
          }
          const all = kernels.tensor(rows, columns)
          kernels.gather(all, weight)
          expect(await kernels.read(all)).toEqual(dense)
        }
      }
    })
  })
})

/**
 * x as the dot products see it, [rows][columns]: blocks of 32 of the stored columns share a factor, of
 * 16 bits in wide products, of 8 in narrow ones; those leave one activation of a block as it is where
 * its square is above that of the second largest by more than twice the row's mean of the latter.
 */
function asNumbers(
  x: Float32Array,
  { columns, group }: Shape,
  limit: number,
  order?: Uint32Array,
): Float32Array {
  const f = Math.fround
  const out = new Float32Array(x.length)
  for (let row = 0; row < x.length; row += columns) {
    const blocks: { at: number[]; first: number; second: number }[] = []
    for (let from = 0; from < columns; from += group) {
      const padded = Math.ceil(group / 32) * 32
      for (let k = from; k < from + padded; k += 32) {
        const end = Math.min(k + 32, from + group, columns)
        const at: number[] = []
        for (let i = k; i < end; i++) at.push(row + (order ? order[i] : i))
        const sizes = at.map((i) => Math.abs(x[i])).sort((a, b) => b - a)
        blocks.push({ at, first: sizes[0] ?? 0, second: sizes[1] ?? 0 })
      }
    }
    const mean = f(
      blocks.reduce((sum, { second }) => f(sum + f(second * second)), 0) / blocks.length,
    )
    for (const { at, first, second } of blocks) {
      const apart = limit === 127 && f(f(first * first) - f(second * second)) > f(2 * mean)
      const most = apart ? second : first
      for (const i of at) {
        const scaled = f(x[i] * f(limit / most))
        const kept = apart && Math.abs(x[i]) === first
        out[i] = kept ? x[i] : most && f(most / limit) * Math.round(scaled)
      }
    }
  }
  return out
}

/** The tables of its first stage as the dot products see them: 2^14 evenly spaced values. */
function withTableOf14Bits(matrix: QuantizedMatrix): QuantizedMatrix {
  const [stage] = matrix.stages
  const grid = stage.grid as ScalarGrid
  const own = grid.kind === 'lookup' ? grid.tables.values : gridValues(grid)
  const entries = gridLevels(grid)
  const values = Float32Array.from(own, (x, i) => {
    const first = i - (i % entries)
    const table = own.subarray(first, first + entries)
    const low = Math.min(...table)
    const step = Math.fround((Math.max(...table) - low) / (2 ** 14 - 1))
    return low + step * Math.round((x - low) / step)
  })
  const blocks = grid.kind === 'lookup' ? grid.blocks : undefined
  const tables = { type: 'f32', values } as const
  const rounded = { kind: 'lookup', entries, tables, ...(blocks && { blocks }) } as const
  return { ...matrix, stages: [{ ...stage, grid: rounded }] }
}

/** Some of them far out. */
function withOutliers(random: Random, count: number): Float32Array<ArrayBuffer> {
  return normals(random, count).map((value) => (random() < 0.03 ? 30 * value : value))
}

describe.each(everyBuild)('matmul with int8 activations, %j', (options) => {
  it.each(['binary', 'int2', 'int3', 'int4', 'uint4', 'int5', 'int8'])('%s', async (name) => {
    const random = seeded(21)
    await using(options, async (kernels) => {
      for (const shape of [
        { rows: 3, columns: 32, group: 32 },
        { rows: 17, columns: 96, group: 32, zero: true, order: true },
        { rows: 34, columns: 256, group: 128, zero: true },
        { rows: 8, columns: 108, group: 108 },
        { rows: 8, columns: 100, group: 20 },
        { rows: 40, columns: 160, group: 64, bias: true },
      ]) {
        const matrix = quantized(random, grids[name], shape)
        const weight = kernels.load(matrix, { activations: 'int8' })
        const { rows, columns } = shape
        const narrow = options.strict === false && !/int[58]/.test(name)
        // Groups of 20 would grow too much by padding to 32.
        if (columns === 100) expect(weight.variant).toMatch(/f32 \(int8 needs/)
        else expect(weight.variant).toMatch(narrow ? /× int8, narrow/ : /× int16, wide/)
        const dense = decode(matrix)
        for (const count of [1, 2, 4, 7, 12]) {
          const x = withOutliers(random, count * columns)
          const input = kernels.upload(x, count, columns)
          const out = kernels.tensor(count, rows)
          kernels.matmul(out, input, weight)
          const limit = narrow ? 127 : 32767
          const seen = columns === 100 ? x : asNumbers(x, shape, limit, matrix.order)
          const expected = product(seen, dense, count, rows, columns)
          expect(error(await kernels.read(out), expected), weight.variant).toBeLessThan(3e-6)
          kernels.matmul(out, input, weight, { accumulate: true })
          const twice = expected.map((value) => 2 * value)
          expect(error(await kernels.read(out), twice)).toBeLessThan(3e-6)
        }
      }
    })
  })

  it.each(['palette2', 'ternary table', 'palette of 7', 'nf4', 'a palette for 16 rows'])(
    'table %s',
    async (name) => {
      const random = seeded(22)
      const table = (entries: number, count = 1) => ({
        ...({ kind: 'lookup', entries } as const),
        tables: { type: 'f32', values: normals(random, entries * count) } as const,
      })
      await using(options, async (kernels) => {
        for (const shape of [
          { rows: 3, columns: 32, group: 32 },
          { rows: 17, columns: 96, group: 32, zero: true, order: true },
          { rows: 34, columns: 256, group: 128, zero: true },
          { rows: 8, columns: 108, group: 108 },
          { rows: 8, columns: 100, group: 20 },
          { rows: 41, columns: 160, group: 64, bias: true },
        ]) {
          const { rows, columns } = shape
          const some: Record<string, ScalarGrid> = {
            'ternary table': table(3),
            'palette of 7': table(7),
            'a palette for 16 rows': {
              ...table(16, Math.ceil(rows / 16)),
              blocks: { rows: 16, columns },
            },
          }
          const matrix = quantized(random, some[name] ?? grids[name], shape)
          const weight = kernels.load(matrix, { activations: 'int8' })
          const relaxed = options.strict === false
          if (!relaxed) expect(weight.variant).toMatch(/f32 \(a table needs relaxed SIMD/)
          else if (columns === 100) expect(weight.variant).toMatch(/f32 \(int8 needs/)
          else expect(weight.variant).toMatch(/× int8, table dot products/)
          const rounded = relaxed && columns !== 100
          const dense = decode(rounded ? withTableOf14Bits(matrix) : matrix)
          for (const count of [1, 2, 4, 7, 12]) {
            const x = withOutliers(random, count * columns)
            const input = kernels.upload(x, count, columns)
            const out = kernels.tensor(count, rows)
            kernels.matmul(out, input, weight)
            const seen = rounded ? asNumbers(x, shape, 127, matrix.order) : x
            const expected = product(seen, dense, count, rows, columns)
            expect(error(await kernels.read(out), expected), weight.variant).toBeLessThan(3e-6)
            kernels.matmul(out, input, weight, { accumulate: true })
            const twice = expected.map((value) => 2 * value)
            expect(error(await kernels.read(out), twice)).toBeLessThan(3e-6)
          }
        }
      })
    },
  )

  it('lets one huge activation cost the others nothing', async () => {
    const random = seeded(4)
    await using(options, async (kernels) => {
      const matrix = quantized(random, grids.int4, { rows: 16, columns: 64, group: 32 })
      const dense = decode(matrix)
      const weight = kernels.load(matrix, { activations: 'int8' })
      const x = normals(random, 64)
      x[40] = 500
      const input = kernels.upload(x, 1, 64)
      const out = kernels.tensor(1, 16)
      kernels.matmul(out, input, weight)
      const difference = (await kernels.read(out)).map(
        (value, n) => value - product(x, dense, 1, 16, 64)[n],
      )
      // With its factor, 3.9, 8 bits would leave nothing of the other 31.
      expect(Math.max(...difference.map(Math.abs))).toBeLessThan(0.5)
    })
  })

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('does not hide %d', async (odd) => {
    await using(options, async (kernels) => {
      const matrix = quantized(seeded(6), grids.int4, { rows: 9, columns: 64, group: 32 })
      const weight = kernels.load(matrix, { activations: 'int8' })
      const x = normals(seeded(7), 2 * 64)
      x[70] = odd
      const out = kernels.tensor(2, 9)
      kernels.matmul(out, kernels.upload(x, 2, 64), weight)
      const found = await kernels.read(out)
      expect(found.subarray(0, 9).every(Number.isFinite)).toBe(true)
      expect(found.subarray(9).some(Number.isFinite)).toBe(false)
    })
  })
})

describe('matmul', () => {
  it.each([
    { strict: true, activations: 'f32' },
    { strict: true, activations: 'int8' },
    { strict: false, activations: 'int8' },
  ] as const)(
    'gives the same bits for any number of threads, %j',
    async ({ strict, activations }) => {
      const results: Float32Array[][] = []
      for (const threads of [1, 2, 3]) {
        await using({ threads, strict }, async (kernels) => {
          const random = seeded(3)
          const matrix = quantized(random, signedGrid(4), { rows: 530, columns: 300, group: 32 })
          const weight = kernels.load(matrix, { activations })
          const out: Float32Array[] = []
          for (const count of [1, 3, 40]) {
            const input = kernels.upload(withOutliers(random, count * 300), count, 300)
            const result = kernels.tensor(count, 530)
            kernels.matmul(result, input, weight)
            out.push(await kernels.read(result))
          }
          results.push(out)
        })
      }
      expect(results[1]).toEqual(results[0])
      expect(results[2]).toEqual(results[0])
    },
  )

  it('says what it could not fuse', async () => {
    await using({ threads: 1 }, async (kernels) => {
      const matrix = quantized(seeded(1), signedGrid(4), { rows: 4, columns: 8, group: 8 })
      const scale: Scale = {
        blocks: { elements: 5 },
        values: { type: 'f32', values: normals(seeded(2), 7) },
      }
      const runs = { ...matrix, stages: [{ ...matrix.stages[0], scale }] }
      const weight = kernels.load(runs)
      expect(weight.variant).toMatch(/dense f32.*blocks of elements/)
      const out = kernels.tensor(4, 8)
      kernels.gather(out, weight)
      expect(await kernels.read(out)).toEqual(decode(runs))
    })
  })
})

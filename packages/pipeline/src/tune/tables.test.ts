import {
  decode,
  isQuantized,
  type LookupGrid,
  packCodes,
  type QuantizedMatrix,
  type Stage,
  seededRandom,
} from '@lowbit/core'
import { randomValues, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { scaleGradients } from './gradients.ts'
import {
  addTableGradients,
  collectTables,
  moveTables,
  storedTable,
  type TunedTables,
  tableKey,
  withTables,
} from './tables.ts'

const random = seededRandom(91)
const [rows, columns] = [7, 10]
const codesOf = (count: number, bits: number) =>
  packCodes(
    Uint8Array.from({ length: count }, () => Math.floor(random() * 2 ** bits)),
    bits,
  )
const values = (count: number) => ({ type: 'f32', values: randomValues(count, random) }) as const

function codebook(from: number, to: number, length: number, shared?: string): Stage {
  const grid = { kind: 'codebook', entries: 4, length, tables: values(4 * length) } as const
  return {
    columns: [from, to],
    codes: codesOf(Math.ceil(rows / length) * (to - from), 2),
    vector: { length, along: 'out' },
    grid: { ...grid, ...(shared && { shared }) },
  }
}

const scales = { rowScale: values(rows), columnScale: values(columns) }
const palette: LookupGrid = { kind: 'lookup', entries: 8, tables: values(8) }
const inward: Stage = {
  codes: codesOf(rows * 4, 2),
  vector: { length: 3, along: 'in' },
  grid: { kind: 'codebook', entries: 4, length: 3, tables: values(12) },
}
const matrices: Record<string, QuantizedMatrix> = {
  'a palette': {
    ...{ rows, columns, rowScale: scales.rowScale },
    stages: [
      { codes: codesOf(rows * columns, 3), vector: { length: 1, along: 'in' }, grid: palette },
    ],
  },
  'vectors of columns that do not divide': { rows, columns, stages: [inward], ...scales },
  'outlier columns, a residual, an order': {
    ...{ rows, columns, ...scales },
    order: Uint32Array.of(3, 1, 4, 9, 5, 2, 6, 8, 7, 0),
    stages: [codebook(0, 3, 2), codebook(3, 10, 4), codebook(3, 10, 4)],
  },
  'rotated inputs': {
    ...{ rows, columns, ...scales, stages: [codebook(0, 10, 4)] },
    rotation: { input: { block: 2, signs: Uint8Array.of(0b10110101, 1) } },
  },
}

describe.each(Object.entries(matrices))('%s', (_, matrix) => {
  it('gradients of entries are differences of Σ gradient · weight', async () => {
    const kernels = referenceKernels()
    const tables: TunedTables = new Map()
    collectTables(tables, 'm', matrix)
    expect(tables.size).toBe(matrix.stages.length)
    // dW = outputᵀ·input with one token for each row.
    const output = new Float32Array(rows * rows)
    for (let i = 0; i < rows; i++) output[i * rows + i] = 1
    const pull = randomValues(rows * columns, random)
    const [x, dy] = [kernels.upload(pull, rows, columns), kernels.upload(output, rows, rows)]
    const weight = kernels.load(matrix)
    const entries = (await scaleGradients(kernels, matrix, weight, x, dy, true)).entries!
    await addTableGradients(tables, kernels, 'm', matrix, entries)
    const loss = (): number => {
      const moved = withTables(tables, 'm', matrix)
      return decode(moved).reduce((sum, w, i) => sum + w * pull[i], 0)
    }
    for (const { state, gradient } of tables.values()) {
      for (let i = 0; i < gradient.length; i++) {
        const kept = state.values[i]
        state.values[i] = kept + 0.5
        const above = loss()
        state.values[i] = kept - 0.5
        const difference = above - loss()
        state.values[i] = kept
        expect(Math.abs(gradient[i] - difference)).toBeLessThan(1e-4 * (1 + Math.abs(difference)))
      }
    }
    kernels.free(x, dy, entries)
    kernels.unload(weight)
    expect(kernels.bytes).toBe(0)
  })
})

it('a shared table is one, and every matrix adds to its gradient', async () => {
  const kernels = referenceKernels()
  const tables: TunedTables = new Map()
  const stage = codebook(0, columns, 4, 'book')
  const matrix = { rows, columns, stages: [stage] }
  for (const module of ['a', 'b']) collectTables(tables, module, matrix)
  expect([...tables.keys()]).toEqual(['tables.book'])
  const gradient = kernels.upload(randomValues(rows * columns, random), rows, columns)
  await addTableGradients(tables, kernels, 'a', matrix, gradient)
  const [table] = tables.values()
  const once = table.gradient.slice()
  await addTableGradients(tables, kernels, 'b', matrix, gradient)
  expect([...table.gradient]).toEqual([...once].map((g) => 2 * g))
  const before = table.state.values.slice()
  moveTables(tables, 1, 0.01)
  expect(table.gradient.every((g) => g === 0)).toBe(true)
  table.state.values.forEach((value, i) => {
    const expected = once[i] === 0 ? 0 : -Math.sign(once[i]) * 0.01 * table.unit
    expect(value - before[i]).toBeCloseTo(expected, 5)
  })
})

it('integers are rounded with the factor that they had', () => {
  const tables: TunedTables = new Map()
  const tableScale = { type: 'f32', values: Float32Array.of(0.5) } as const
  const grid: LookupGrid = {
    ...{ kind: 'lookup', entries: 2, tableScale },
    tables: { type: 'i8', values: Float32Array.of(-3, 100) },
  }
  const stage: Stage = { codes: codesOf(4, 1), vector: { length: 1, along: 'in' }, grid }
  const matrix = { rows: 2, columns: 2, stages: [stage] }
  collectTables(tables, 'm', matrix)
  const table = tables.get('m.tables.0')!
  expect([...table.state.values]).toEqual([-1.5, 50])
  table.state.values.set([-1.2, 90])
  expect(storedTable(table)).toEqual({ type: 'i8', values: Float32Array.of(-2, 127) })
  expect(isQuantized(withTables(tables, 'm', matrix))).toBe(true)
})

it('tables with scales of blocks, or several of them, stay as they are', () => {
  const stage: Stage = { codes: codesOf(4, 1), vector: { length: 1, along: 'in' }, grid: palette }
  expect(tableKey('m', stage, 0)).toBe('m.tables.0')
  expect(tableKey('m', { ...stage, grid: { ...palette, entries: 4 } }, 0)).toBeUndefined()
  const scale = { blocks: { rows: 1, columns: 2 }, values: values(2) }
  expect(tableKey('m', { ...stage, scale }, 0)).toBeUndefined()
})

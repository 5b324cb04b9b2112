import { decode, packCodes, type QuantizedMatrix, type Stage, seededRandom } from '@lowbit/core'
import { expect, it } from 'vitest'
import { finiteRange, histogram } from './histogram.ts'
import { inGridUnits, usedTables } from './palette-use.ts'

const random = seededRandom(5)
const draw = (length: number, of: () => number) => Float32Array.from({ length }, of)
const f32 = (length: number, of = (): number => 0.5 + random()) =>
  ({ type: 'f32', values: draw(length, of) }) as const

const [ROWS, COLUMNS] = [5, 7]

/** Everything that a matrix of one scalar stage may have. */
function crowded(): { matrix: QuantizedMatrix; stage: Stage & { grid: { kind: 'integer' } } } {
  const codes = draw(ROWS * COLUMNS, () => Math.floor(random() * 8))
  const stage = {
    codes: packCodes(Uint16Array.from(codes), 3),
    vector: { length: 1, along: 'in' },
    grid: { kind: 'integer', bits: 3, levels: 8, lowest: 0, step: 1 },
    scale: { blocks: { rows: 1, columns: 3 }, values: f32(ROWS * 3) },
    zero: { blocks: { rows: 2, columns: 7 }, values: f32(3, () => 4) },
    bias: { blocks: { rows: 1, columns: 7 }, values: f32(ROWS) },
  } as const
  const matrix: QuantizedMatrix = {
    ...{ rows: ROWS, columns: COLUMNS, stages: [stage] },
    order: Uint32Array.of(3, 1, 0, 6, 2, 5, 4),
    rowScale: f32(ROWS),
    columnScale: f32(COLUMNS),
    columnBias: f32(COLUMNS),
    sparse: { rows: Uint32Array.of(1, 4), columns: Uint32Array.of(2, 6), values: f32(2) },
  }
  return { matrix, stage }
}

it('a decoded matrix in the units of its grid is the grid’s values', () => {
  const { matrix, stage } = crowded()
  const units = inGridUnits(decode(matrix), stage, matrix)
  const seen = new Float64Array(8)
  for (const value of units) {
    expect(Math.abs(value - Math.round(value))).toBeLessThan(1e-4)
    seen[Math.round(value)]++
  }
  const { uses, tables } = usedTables(stage, matrix)
  expect(uses).toEqual([seen])
  expect([...tables[0]]).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
})

it.each(['in', 'out'] as const)('counts codes of vectors by table, along %s', (along) => {
  const [rows, columns, length] = [6, 4, 2]
  // Tables of their own for each half of the rows.
  const codes = Uint16Array.of(0, 1, 1, 1, 2, 0, 2, 2, 2, 2, 1, 0)
  const stage: Stage = {
    codes: packCodes(codes, 2),
    vector: { length, along },
    grid: {
      ...{ kind: 'codebook', entries: 3, length, blocks: { rows: 4, columns } },
      tables: { type: 'f32', values: Float32Array.from({ length: 2 * 3 * length }, (_, i) => i) },
    },
  }
  const { uses, tables } = usedTables(stage, { rows, columns, stages: [stage] })
  // The first four rows hold 8 of the 12 codes, whichever way vectors lie.
  expect(uses.map((table) => [...table])).toEqual([
    [2, 3, 3],
    [1, 1, 2],
  ])
  expect([...tables[1]]).toEqual([6, 7, 8, 9, 10, 11])
})

it('bars and what lies outside make up everything', () => {
  const values = Float32Array.of(-5, 0, 0.1, 0.9, 1, 7, Number.NaN, Number.POSITIVE_INFINITY)
  const { bars, outside } = histogram(values, [0, 1], 2)
  expect(bars).toEqual([
    { from: 0, to: 0.5, share: 2 / 6 },
    { from: 0.5, to: 1, share: 2 / 6 },
  ])
  expect(outside).toBe(2)
  const weighed = histogram(Float32Array.of(0, 1), [0, 1], 2, Float64Array.of(3, 1))
  expect(weighed.bars.map(({ share }) => share)).toEqual([0.75, 0.25])
})

it('a range has a width, whatever the values', () => {
  expect(finiteRange([2, -1, Number.NaN])).toEqual([-1, 2])
  expect(finiteRange([3, 3])).toEqual([0, 6])
  expect(finiteRange([0])).toEqual([-1, 1])
  expect(finiteRange([])).toEqual([-1, 1])
})

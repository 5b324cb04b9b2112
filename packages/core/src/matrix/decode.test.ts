import { describe, expect, it } from 'vitest'
import { packCodes } from '../bits/stream.ts'
import { FLOAT_FORMATS } from '../numbers/float.ts'
import { toNumbers } from '../numbers/storage.ts'
import { perGroup, perRow, perTensor } from './blocks.ts'
import { decode } from './decode.ts'
import { binaryGrid, floatGrid, signedGrid, ternaryGrid, unsignedGrid } from './grid.ts'
import { measureMatrix } from './size.ts'
import type { QuantizedMatrix, Stage } from './types.ts'
import { validateMatrix } from './validate.ts'

const one = { length: 1, along: 'in' } as const
const matrix = (
  rows: number,
  columns: number,
  stage: Stage,
  rest: Partial<QuantizedMatrix> = {},
): QuantizedMatrix => ({ rows, columns, stages: [stage], ...rest })

describe('decode, against numbers worked out by hand', () => {
  it('asymmetric integers in ragged groups', () => {
    const m = matrix(1, 5, {
      codes: packCodes([0, 1, 2, 3, 0], 2),
      vector: one,
      grid: unsignedGrid(2),
      scale: { blocks: perGroup(2), values: toNumbers('f16', [1, 2, 4]) },
      zero: { blocks: perGroup(2), values: toNumbers('u2', [1, 2, 3]) },
    })
    validateMatrix(m, 'm')
    expect([...decode(m)]).toEqual([-1, 0, 0, 2, -12])
    // 5 codes of 2 bits, 3 scales of 16, 3 zeros of 2.
    expect(measureMatrix(m).total).toBe(10 + 48 + 6)
  })

  it('signed, binary, ternary', () => {
    const codes = packCodes([0, 1], 2)
    const scale = { blocks: perTensor(1, 2), values: toNumbers('f32', [0.5]) }
    expect([...decode(matrix(1, 2, { codes, vector: one, grid: signedGrid(2), scale }))]).toEqual([
      -1, -0.5,
    ])
    expect([...decode(matrix(1, 2, { codes, vector: one, grid: ternaryGrid(), scale }))]).toEqual([
      -0.5, 0,
    ])
    const bits = packCodes([0, 1], 1)
    expect([
      ...decode(matrix(1, 2, { codes: bits, vector: one, grid: binaryGrid(), scale })),
    ]).toEqual([-0.5, 0.5])
  })

  it('scales of scales, as NVFP4 and double quantization have them', () => {
    const m = matrix(2, 2, {
      codes: packCodes([2, 10, 4, 7], 4),
      vector: one,
      grid: floatGrid(FLOAT_FORMATS.f4_e2m1),
      scale: {
        blocks: perRow(2),
        values: {
          rows: 2,
          columns: 1,
          codes: packCodes([0x38, 0x40], 8),
          grid: floatGrid(FLOAT_FORMATS.f8_e4m3),
          scale: { blocks: perTensor(2, 1), values: toNumbers('f32', [0.5]) },
          offset: toNumbers('f32', [1]),
        },
      },
    })
    validateMatrix(m, 'm')
    // Scales 1·0.5 + 1 and 2·0.5 + 1; E2M1 codes 2, 10, 4, 7 are 1, −1, 2, 6.
    expect([...decode(m)]).toEqual([1.5, -1.5, 4, 12])
  })

  it('residual codebooks, outlier columns, norm, order and sparse entries (VPTQ)', () => {
    // Stored columns 0 (outlier) and 1–2; vectors of 2 rows; 3 rows, so the last vector is cut.
    const main: Stage = {
      columns: [1, 3],
      codes: packCodes([0, 1, 1, 0], 1),
      vector: { length: 2, along: 'out' },
      grid: { kind: 'codebook', entries: 2, length: 2, tables: toNumbers('f16', [1, 2, 3, 4]) },
    }
    const residual: Stage = {
      ...main,
      codes: packCodes([1, 1, 0, 0], 1),
      grid: {
        kind: 'codebook',
        entries: 2,
        length: 2,
        tables: toNumbers('f16', [0, 0, 0.5, 0.25]),
      },
    }
    const outlier: Stage = {
      columns: [0, 1],
      codes: packCodes([0, 0, 1], 1),
      vector: one,
      grid: { kind: 'lookup', entries: 2, tables: toNumbers('f16', [10, 20]) },
    }
    const m: QuantizedMatrix = {
      rows: 3,
      columns: 3,
      stages: [outlier, main, residual],
      order: Uint32Array.of(2, 0, 1),
      columnScale: toNumbers('f16', [1, 2, 1]),
      columnBias: toNumbers('f16', [0, 0, 100]),
      sparse: {
        rows: Uint32Array.of(2),
        columns: Uint32Array.of(0),
        values: toNumbers('f16', [-1]),
      },
    }
    validateMatrix(m, 'm')
    // Stored: column 1 = [1,2 | 3] + [.5,.25 | 0], column 2 = [3,4 | 1] + [.5,.25 | 0].
    expect([...decode(m)]).toEqual([1.5, 7, 110, 2.25, 8.5, 110, 2, 2, 120])
  })

  it('a rotation on both sides keeps the norm and undoes itself', () => {
    const signs = Uint8Array.of(0b0110)
    const stage: Stage = {
      codes: packCodes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0], 4),
      vector: one,
      grid: unsignedGrid(4),
    }
    const plain = decode(matrix(4, 4, stage))
    const rotated = decode(matrix(4, 4, stage, { rotation: { input: { block: 4, signs } } }))
    const norm = (w: Float32Array) => w.reduce((sum, x) => sum + x * x, 0)
    expect(norm(rotated)).toBeCloseTo(norm(plain), 3)
    expect([...rotated]).not.toEqual([...plain])
  })
})

describe('validateMatrix names what is wrong', () => {
  const good = matrix(2, 4, {
    codes: packCodes([0, 1, 2, 3, 3, 2, 1, 0], 2),
    vector: one,
    grid: unsignedGrid(2),
    scale: { blocks: perGroup(2), values: toNumbers('f16', [1, 1, 1, 1]) },
  })
  const stage = good.stages[0]
  it.each([
    ['too few codes', { ...good, rows: 3 }, /8 codes and needs 12/],
    [
      'too few scales',
      { ...good, stages: [{ ...stage, scale: { ...stage.scale!, blocks: perGroup(1) } }] },
      /4 values for 8 blocks/,
    ],
    [
      'a code outside the grid',
      { ...good, stages: [{ ...stage, grid: ternaryGrid() }] },
      /outside the grid/,
    ],
    [
      'cut codes',
      { ...good, stages: [{ ...stage, codes: { ...stage.codes, data: new Uint8Array(1) } }] },
      /cut off/,
    ],
    ['an order that is none', { ...good, order: Uint32Array.of(0, 1, 1, 2) }, /not a permutation/],
    ['an absurd size', { ...good, rows: -1 }, /impossible/],
    [
      'a sparse entry outside',
      {
        ...good,
        sparse: {
          rows: Uint32Array.of(5),
          columns: Uint32Array.of(0),
          values: toNumbers('f32', [1]),
        },
      },
      /outside the matrix/,
    ],
  ])('%s', (_, broken, message) => {
    expect(() => validateMatrix(broken as QuantizedMatrix, 'w')).toThrow(message)
    expect(() => validateMatrix(broken as QuantizedMatrix, 'w')).toThrow(/tensor w/)
  })
})

describe('integer tables with a factor each', () => {
  const m = matrix(4, 2, {
    codes: packCodes([0, 1, 2, 3, 3, 2, 1, 0], 2),
    vector: one,
    grid: {
      kind: 'lookup',
      entries: 4,
      tables: toNumbers('i8', [-127, -5, 5, 127, -100, 0, 1, 2]),
      tableScale: toNumbers('f32', [0.5, 2]),
      blocks: { rows: 2, columns: 2 },
    },
  })

  it('mean the factor times the integer', () => {
    validateMatrix(m, 'm')
    expect([...decode(m)]).toEqual([-63.5, -2.5, 2.5, 63.5, 4, 2, 0, -200])
    // 8 codes of 2 bits, 8 entries of 8, 2 factors of 32.
    expect(measureMatrix(m)).toMatchObject({ tables: 64 + 64, total: 16 + 64 + 64 })
  })

  it('need one factor a table', () => {
    const [stage] = m.stages
    const broken = {
      ...m,
      stages: [{ ...stage, grid: { ...stage.grid, tableScale: toNumbers('f32', [1]) } }],
    } as QuantizedMatrix
    expect(() => validateMatrix(broken, 'w')).toThrow(/2 tables have 1 scales/)
  })
})

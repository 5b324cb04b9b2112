/** Random matrices of element-wise grids. */

import {
  type Blocks,
  binaryGrid,
  blockCount,
  blockGrid,
  FLOAT_FORMATS,
  floatGrid,
  gridBits,
  gridValues,
  type LookupGrid,
  type Numbers,
  type NumberType,
  normalFloatGrid,
  packCodes,
  type QuantizedMatrix,
  type QuantizedNumbers,
  type ScalarGrid,
  type Scale,
  type Stage,
  signedGrid,
  ternaryGrid,
  toNumbers,
  unsignedGrid,
} from '@lowbit/core'
import { type Random, randomValues } from '../random.ts'

export interface GridSample {
  readonly name: string
  readonly grid: ScalarGrid
  /** With zero points. */
  readonly asymmetric?: boolean
}

/** A lookup table of `entries` ascending values, none of them in a regular place. */
export function palette(entries: number, random: Random, type: NumberType = 'f32'): LookupGrid {
  const values = randomValues(entries, random, 0.5).sort()
  return { kind: 'lookup', entries, tables: toNumbers(type, values) }
}

/** Every kind of element-wise grid. */
export function scalarGrids(random: Random): GridSample[] {
  const bits = [1, 2, 3, 4, 5, 6, 7, 8]
  return [
    ...bits.map((n) => ({ name: `int${n} asymmetric`, grid: unsignedGrid(n), asymmetric: true })),
    ...bits.slice(1).map((n) => ({ name: `int${n} symmetric`, grid: signedGrid(n) })),
    { name: 'binary', grid: binaryGrid() },
    { name: 'ternary', grid: ternaryGrid() },
    { name: 'fp8 e4m3', grid: floatGrid(FLOAT_FORMATS.f8_e4m3) },
    { name: 'fp8 e5m2', grid: floatGrid(FLOAT_FORMATS.f8_e5m2) },
    { name: 'fp6 e3m2', grid: floatGrid(FLOAT_FORMATS.f6_e3m2) },
    { name: 'fp6 e2m3', grid: floatGrid(FLOAT_FORMATS.f6_e2m3) },
    { name: 'fp4 e2m1', grid: floatGrid(FLOAT_FORMATS.f4_e2m1) },
    { name: 'nf4', grid: normalFloatGrid(4) },
    { name: 'lookup of 5', grid: palette(5, random, 'f16') },
    { name: 'lookup of 200', grid: palette(200, random) },
  ]
}

/** Codes that mean finite values. */
export function randomCodes(grid: ScalarGrid, count: number, random: Random): Uint8Array {
  const meaning = Array.from(gridValues(grid).entries()).filter(([, x]) => Number.isFinite(x))
  return Uint8Array.from({ length: count }, () => {
    return meaning[Math.floor(random() * meaning.length)][0]
  })
}

/** Scales that make the grid's largest value about 0.1, as weights are. */
export function randomScale(
  grid: ScalarGrid,
  blocks: Blocks,
  rows: number,
  columns: number,
  random: Random,
  type: NumberType = 'f16',
): Scale {
  const finite = gridValues(grid).filter(Number.isFinite)
  const largest = finite.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  const count = blockCount(blocks, rows, columns)
  const values = Array.from({ length: count }, () => ((0.5 + random()) * 0.1) / largest)
  return { blocks, values: toNumbers(type, values) }
}

/** Zero points over the whole range of the codes. */
export function randomZero(
  bits: number,
  blocks: Blocks,
  rows: number,
  columns: number,
  random: Random,
): Scale {
  const count = blockCount(blocks, rows, columns)
  const values = Array.from({ length: count }, () => Math.floor(random() * 2 ** bits))
  return { blocks, values: toNumbers(`u${bits}` as NumberType, values) }
}

/** A scale's values as 8-bit codes under an f32 for each `outer` of them, with or without an offset. */
export function nestScale(
  scale: Scale,
  rows: number,
  columns: number,
  random: Random,
  form: 'double' | 'nvfp4',
): Scale {
  const shape = blockGrid(scale.blocks, rows, columns)
  const count = shape.rows * shape.columns
  const grid = form === 'double' ? signedGrid(8) : floatGrid(FLOAT_FORMATS.f8_e4m3)
  const outer: Blocks = form === 'double' ? { elements: 5 } : shape
  const factor = form === 'double' ? 1e-4 : 2e-5
  const factors: Numbers = toNumbers(
    'f32',
    Array.from({ length: blockCount(outer, shape.rows, shape.columns) }, () => {
      return factor * (0.5 + random())
    }),
  )
  // Positive scales only: a code of E4M3 below 0x78 is a positive number.
  const codes = Uint8Array.from({ length: count }, () => {
    return form === 'double' ? Math.floor(random() * 256) : 8 + Math.floor(random() * 100)
  })
  const values: QuantizedNumbers = {
    ...shape,
    codes: packCodes(codes, 8),
    grid,
    scale: { blocks: outer, values: factors },
    ...(form === 'double' && { offset: toNumbers('f32', [0.02]) }),
  }
  return { blocks: scale.blocks, values }
}

export interface StageOptions {
  readonly asymmetric?: boolean
  readonly scaleType?: NumberType
  readonly nested?: 'double' | 'nvfp4'
  readonly bias?: boolean
}

/** A stage of random codes over `rows` × `columns` weights. */
export function randomStage(
  grid: ScalarGrid,
  rows: number,
  columns: number,
  blocks: Blocks,
  random: Random,
  options: StageOptions = {},
): Stage {
  const bits = gridBits(grid)
  const plain = randomScale(grid, blocks, rows, columns, random, options.scaleType)
  const scale = options.nested ? nestScale(plain, rows, columns, random, options.nested) : plain
  const bias = randomValues(blockCount(blocks, rows, columns), random, 0.02)
  return {
    codes: packCodes(randomCodes(grid, rows * columns, random), bits),
    vector: { length: 1, along: 'in' },
    grid,
    scale,
    ...(options.asymmetric && { zero: randomZero(bits, blocks, rows, columns, random) }),
    ...(options.bias && { bias: { blocks, values: toNumbers('f16', bias) } }),
  }
}

/** A matrix of one stage. */
export function scalarMatrix(
  grid: ScalarGrid,
  rows: number,
  columns: number,
  blocks: Blocks,
  random: Random,
  options: StageOptions = {},
): QuantizedMatrix {
  return { rows, columns, stages: [randomStage(grid, rows, columns, blocks, random, options)] }
}

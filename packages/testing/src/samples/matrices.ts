/** One of everything that a QuantizedMatrix can say. */

import {
  type Blocks,
  FLOAT_FORMATS,
  floatGrid,
  fromFloat32,
  type Matrix,
  normalFloatGrid,
  perGroup,
  perRow,
  perTensor,
  type QuantizedMatrix,
  type Rotation,
  type SparseEntries,
  type Stage,
  scaleValues,
  seededRandom,
  signedGrid,
  toNumbers,
  unsignedGrid,
} from '@lowbit/core'
import { type Random, randomOrder, randomValues, randomWeight } from '../random.ts'
import { codebookStage } from './codebook.ts'
import { palette, randomStage, scalarGrids, scalarMatrix } from './scalar.ts'

export interface SampleMatrix {
  readonly name: string
  readonly matrix: Matrix
}

interface NamedBlocks {
  readonly name: string
  readonly blocks: (rows: number, columns: number) => Blocks
}

const BLOCKS: readonly NamedBlocks[] = [
  { name: 'groups of 1', blocks: () => perGroup(1) },
  { name: 'groups of 3', blocks: () => perGroup(3) },
  { name: 'groups of 32', blocks: () => perGroup(32) },
  { name: 'one a row', blocks: (_, columns) => perRow(columns) },
  { name: 'one for all', blocks: perTensor },
  { name: 'blocks of 2 × 16', blocks: () => ({ rows: 2, columns: 16 }) },
  { name: 'runs of 10', blocks: () => ({ elements: 10 }) },
]

/** Sizes at which loops over 4, 8, 16 and 32 end early, and plain ones. */
export const ODD_SHAPES: readonly (readonly [rows: number, columns: number])[] = [
  [1, 1],
  [1, 7],
  [9, 1],
  [3, 5],
  [17, 33],
  [5, 130],
  [64, 96],
]

/**
 * Every element-wise grid in every division into blocks; shapes take turns, so that each grid and each
 * division meets each shape somewhere.
 */
export function scalarSamples(seed = 1): (SampleMatrix & { grid: string })[] {
  const random = seededRandom(seed)
  return scalarGrids(random).flatMap(({ name, grid, asymmetric }, turn) =>
    BLOCKS.flatMap((division, i) => {
      const shapes = [ODD_SHAPES[(turn + i) % ODD_SHAPES.length], [18, 70] as const]
      return shapes.map(([rows, columns]) => ({
        grid: name,
        name: `${name}, scales: ${division.name}, ${rows} × ${columns}`,
        matrix: scalarMatrix(grid, rows, columns, division.blocks(rows, columns), random, {
          asymmetric,
        }),
      }))
    }),
  )
}

/** Everything besides plain codes and scales; each at a round and at an odd shape where it can. */
export function structuredSamples(seed = 2): SampleMatrix[] {
  const random = seededRandom(seed)
  return (
    [
      [16, 64],
      [13, 37],
    ] as const
  ).flatMap(([rows, columns]) => {
    const make = (name: string, matrix: QuantizedMatrix): SampleMatrix => ({
      name: `${name}, ${rows} × ${columns}`,
      matrix,
    })
    const groups = perGroup(16)
    const int4 = unsignedGrid(4)
    const plain = (asymmetric = true): QuantizedMatrix =>
      scalarMatrix(int4, rows, columns, groups, random, { asymmetric })
    const typed = (['f32', 'bf16', 'f8_e4m3', 'f8_e8m0'] as const).map((scaleType) =>
      make(
        `scales of ${scaleType}`,
        scalarMatrix(signedGrid(4), rows, columns, groups, random, { scaleType }),
      ),
    )
    const nested = (['double', 'nvfp4'] as const).map((form) =>
      make(
        `nested scales (${form})`,
        scalarMatrix(
          form === 'double' ? normalFloatGrid(4) : floatGrid(FLOAT_FORMATS.f4_e2m1),
          rows,
          columns,
          groups,
          random,
          { nested: form },
        ),
      ),
    )
    const split = Math.floor(columns / 4)
    return [
      ...typed,
      ...nested,
      make('bias scales', scalarMatrix(int4, rows, columns, groups, random, { bias: true })),
      make('no scale', { rows, columns, stages: [unscaled(rows, columns, random)] }),
      make('order', { ...plain(), order: randomOrder(columns, random) }),
      make('column scale and bias', { ...plain(), ...columnTerms(columns, random) }),
      make('row scale', { ...plain(), rowScale: toNumbers('f16', positive(rows, random)) }),
      make('sparse', { ...plain(), sparse: sparseEntries(rows, columns, random) }),
      make('two stages', { rows, columns, stages: [...plain().stages, ...plain(false).stages] }),
      make('a table a row', { rows, columns, stages: [tablePerRow(rows, columns, random)] }),
      make('integer tables with a factor each', {
        rows,
        columns,
        stages: [integerTables(rows, columns, random)],
      }),
      make('outlier columns', {
        rows,
        columns,
        stages: [
          {
            ...randomStage(signedGrid(8), rows, split, perRow(split), random),
            columns: [0, split],
          },
          {
            ...randomStage(signedGrid(3), rows, columns - split, perGroup(8), random),
            columns: [split, columns],
          },
        ],
        order: randomOrder(columns, random),
      }),
      ...codebooks(rows, columns, random).map(([name, matrix]) => make(name, matrix)),
      ...rotations(rows, columns, random).map(([name, rotation]) =>
        make(name, { ...plain(), rotation }),
      ),
      make('everything at once', {
        ...plain(),
        stages: [...plain().stages, codebookStage(rows, columns, random, RESIDUAL)],
        order: randomOrder(columns, random),
        ...columnTerms(columns, random),
        sparse: sparseEntries(rows, columns, random),
      }),
    ]
  })
}

/** A matrix of one row, and of one column, in vectors along either side. */
export function thinSamples(seed = 4): SampleMatrix[] {
  const random = seededRandom(seed)
  return [
    [1, 1],
    [1, 45],
    [45, 1],
    [9, 300],
  ].flatMap(([rows, columns]) =>
    (['in', 'out'] as const).flatMap((along) =>
      [1, 2, 4, 6, 8].map((length) => ({
        name: `vectors of ${length} along ${along}, ${rows} × ${columns}`,
        matrix: {
          rows,
          columns,
          stages: [codebookStage(rows, columns, random, { length, along, entries: 40 })],
          rowScale: toNumbers('f16', positive(rows, random)),
        },
      })),
    ),
  )
}

const RESIDUAL = { length: 4, along: 'out', entries: 30, deviation: 0.01 } as const

function codebooks(rows: number, columns: number, random: Random): [string, QuantizedMatrix][] {
  const one = (options: Parameters<typeof codebookStage>[3]): QuantizedMatrix => ({
    rows,
    columns,
    stages: [codebookStage(rows, columns, random, options)],
  })
  return [
    ['codebook along in', one({ length: 4, along: 'in', entries: 64 })],
    ['codebook along out', one({ length: 8, along: 'out', entries: 100 })],
    [
      'codebook with a table a row',
      one({ length: 2, along: 'in', entries: 8, blocks: perRow(columns) }),
    ],
    ['codebook of 12 bits', one({ length: 8, along: 'in', entries: 3000 })],
    [
      'codebook of scalars',
      one({ length: 1, along: 'in', entries: 6, blocks: { rows: 5, columns: 32 } }),
    ],
    ...([2, 3, 4, 5, 7] as const).map((length): [string, QuantizedMatrix] => [
      `codebook of ${length} along in, a table for 5 rows × 4 vectors`,
      one({ length, along: 'in', entries: 20, blocks: { rows: 5, columns: 4 * length } }),
    ]),
    ...([2, 5, 12, 16] as const).map((length): [string, QuantizedMatrix] => [
      `codebook of ${length} along out, a table for 10 columns`,
      one({ length, along: 'out', entries: 300, blocks: { rows, columns: 10 } }),
    ]),
    [
      'codebooks of rows and of columns, scales, with a row scale and everything dense beside',
      {
        rows,
        columns,
        stages: [
          {
            ...codebookStage(rows, columns, random, { length: 4, along: 'in', entries: 9 }),
            ...scaled(rows, columns, random),
          },
          {
            ...codebookStage(rows, columns, random, { length: 3, along: 'out', entries: 9 }),
            ...scaled(rows, columns, random),
          },
        ],
        rowScale: toNumbers('f16', positive(rows, random)),
        ...columnTerms(columns, random),
        sparse: sparseEntries(rows, columns, random),
        rotation: {
          input: randomRotation(columns, random),
          output: randomRotation(rows, random),
        },
      },
    ],
    ['codebook of integers', one({ length: 4, along: 'in', entries: 16, integers: true })],
    [
      'shared codebook',
      one({ length: 6, along: 'out', entries: 70, integers: true, shared: 'main' }),
    ],
    [
      'residual codebooks with outlier columns, norm and order',
      {
        rows,
        columns,
        stages: [
          codebookStage(rows, columns, random, {
            length: 2,
            along: 'in',
            entries: 16,
            columns: [0, 3],
          }),
          codebookStage(rows, columns, random, {
            length: 6,
            along: 'out',
            entries: 32,
            columns: [3, columns],
          }),
          codebookStage(rows, columns, random, { ...RESIDUAL, columns: [3, columns] }),
        ],
        order: randomOrder(columns, random),
        ...columnTerms(columns, random),
      },
    ],
  ]
}

/** Scales and zeros of groups. */
function scaled(rows: number, columns: number, random: Random): Pick<Stage, 'scale' | 'zero'> {
  const { scale, zero } = scalarMatrix(unsignedGrid(4), rows, columns, perGroup(8), random, {
    asymmetric: true,
  }).stages[0]
  const values = zero && scaleValues(zero, rows, columns).map((value) => value / 100)
  return { scale, ...(zero && values && { zero: { ...zero, values: toNumbers('f16', values) } }) }
}

function rotations(
  rows: number,
  columns: number,
  random: Random,
): [string, QuantizedMatrix['rotation']][] {
  const input = randomRotation(columns, random)
  const output = randomRotation(rows, random)
  return [
    [`input rotated in blocks of ${input.block}`, { input }],
    [`output rotated in blocks of ${output.block}`, { output }],
    ['both sides rotated', { input, output }],
  ]
}

/** Random signs, in blocks of the largest power of two (16 at most) that divides `size`. */
export function randomRotation(size: number, random: Random): Rotation {
  let block = 1
  while (block < 16 && size % (2 * block) === 0) block *= 2
  const bytes = Math.ceil(size / 8)
  return { block, signs: Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256)) }
}

const positive = (count: number, random: Random): number[] =>
  Array.from({ length: count }, () => 0.5 + random())

function columnTerms(columns: number, random: Random): Partial<QuantizedMatrix> {
  const scale = positive(columns, random)
  return {
    columnScale: toNumbers('f16', scale),
    columnBias: toNumbers('f16', randomValues(columns, random, 0.02)),
  }
}

/** A few entries, two of them at the same place. */
function sparseEntries(rows: number, columns: number, random: Random): SparseEntries {
  const places = randomOrder(rows * columns, random).slice(0, 9)
  places[8] = places[0]
  return {
    rows: places.map((place) => Math.floor(place / columns)),
    columns: places.map((place) => place % columns),
    values: toNumbers('f16', randomValues(9, random, 0.5)),
  }
}

function unscaled(rows: number, columns: number, random: Random) {
  const { codes, vector, grid } = randomStage(
    palette(16, random),
    rows,
    columns,
    perTensor(rows, columns),
    random,
  )
  return { codes, vector, grid }
}

function tablePerRow(rows: number, columns: number, random: Random) {
  const { codes, vector } = unscaled(rows, columns, random)
  const tables = toNumbers('f16', randomValues(16 * rows, random, 0.1))
  return {
    codes,
    vector,
    grid: { kind: 'lookup', entries: 16, tables, blocks: perRow(columns) },
  } as const
}

/** Palettes for groups of 4 rows in int8, as coremltools stores them with `lut_dtype`. */
function integerTables(rows: number, columns: number, random: Random) {
  const { codes, vector } = unscaled(rows, columns, random)
  const count = Math.ceil(rows / 4)
  const factors = Array.from({ length: count }, () => 0.002 * (0.5 + random()))
  return {
    codes,
    vector,
    grid: {
      kind: 'lookup',
      entries: 16,
      tables: toNumbers('i8', randomValues(16 * count, random, 40)),
      tableScale: toNumbers('f32', factors),
      blocks: { rows: 4, columns },
    },
  } as const
}

/** Matrices as checkpoints bring them. */
export function denseSamples(seed = 3): SampleMatrix[] {
  const random = seededRandom(seed)
  return (['f32', 'f16', 'bf16'] as const).flatMap((type) =>
    ODD_SHAPES.map(([rows, columns]) => {
      const values = randomWeight(rows, columns, random)
      return {
        name: `dense ${type}, ${rows} × ${columns}`,
        matrix: {
          rows,
          columns,
          type,
          values: type === 'f32' ? values : fromFloat32(type, values),
        },
      }
    }),
  )
}

/** All of them, for formats and kernels. */
export function sampleMatrices(): SampleMatrix[] {
  return [...scalarSamples(), ...structuredSamples(), ...thinSamples(), ...denseSamples()]
}

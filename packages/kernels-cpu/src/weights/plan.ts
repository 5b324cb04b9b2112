/** As what a quantized matrix is run from its codes: its columns in segments, its stages in parts; or why not. */

import {
  type CodebookGrid,
  gridLevels,
  gridValues,
  type LookupGrid,
  LowbitError,
  type Numbers,
  type QuantizedMatrix,
  type ScalarGrid,
  type Scale,
  type Stage,
  scaleValues,
} from '@lowbit/core'
import { type Rectangle, rectangles } from './rectangles.ts'
import type { Kind, Tables, Vector } from './source.ts'

/** Stored columns that the same stages cover, in groups that share scales and tables. */
export interface Segment {
  readonly from: number
  readonly to: number
  /** Columns of a group. */
  readonly group: number
  /** What a group is padded to, with codes that meet zeros. */
  readonly padded: number
  readonly groups: number
  /** Its place among the packed columns, a multiple of 8. */
  readonly at: number
}

/**
 * A stage over a segment. A weight is scale · (value(code) + center) + offset, with a scale and an offset
 * for every row and group of columns, and one center for all, which spares symmetric grids the
 * offsets. A scale of the matrix's rows is part of both.
 */
export interface Part {
  readonly stage: Stage
  readonly segment: Segment
  /** Columns of the stage, and the one at which the segment starts. */
  readonly width: number
  readonly first: number
  /** Codes from here on mean nothing. */
  readonly levels: number
  readonly kind: Kind
  /** Packed columns; a multiple of the vectors. */
  readonly depth: number
  readonly vector: Vector
  /** Vectors of a row or a column (`out`), of the segment. */
  readonly vectors: number
  /** Values of the codes; none where value(code) = code. */
  readonly table?: TableValues
  readonly tables?: Tables
  /** [row][group]; none where all are 1. */
  readonly scales?: Float32Array
  /** None where all are zero. */
  readonly offsets?: Float32Array
  readonly center: number
  /** In words: "int4, groups of 128". */
  readonly name: string
}

/** [table][entry][length], and a factor for each table. */
export interface TableValues {
  readonly values: Float32Array
  readonly factors?: Float32Array
  readonly count: number
  readonly entries: number
  /** Where the segment's first table is. */
  readonly first: number
}

export interface Plan {
  readonly parts: readonly Part[]
  readonly segments: readonly Segment[]
  /** Packed columns of all. */
  readonly depth: number
}

/** Shorter groups cost more in scales than dense weights do. */
const SHORTEST_GROUP = 3

/**
 * 8-bit activations have a factor for each 32 columns, so groups are padded to a multiple of it where
 * that adds no more than this.
 */
const ACTIVATION_BLOCK = 32
const MOST_PADDING = 1.25

const LONGEST_VECTOR = 16
/** Rows of a strip. */
const STRIP = 8

/** Why a matrix is kept dense: thrown and caught here. */
class Unfit {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

/** What may meet activations in bytes, and so gets groups of whole blocks of them. */
export interface Bytes {
  readonly integers: boolean
  readonly tables: boolean
}

export function planWeight(matrix: QuantizedMatrix, bytes: Bytes): Plan | string {
  try {
    const segments: Segment[] = []
    const parts: Part[] = []
    let depth = 0
    for (const [from, to] of ranges(matrix)) {
      const stages = matrix.stages.filter((stage) => covers(stage, matrix, from))
      if (stages.length === 0) continue
      const segment = divide(matrix, stages, from, to, depth, matrix.stages.length === 1 && bytes)
      const planned = stages.map((stage) => planPart(matrix, stage, segment))
      segments.push(segment)
      parts.push(...planned)
      // Vectors of columns end with their last; other codes fill all groups.
      depth += Math.max(...planned.map(({ depth }) => depth))
      // Vectors of columns read x up to the end of their entries.
      for (const { kind, depth: own, vector } of planned) {
        if (kind === 'in')
          depth = Math.max(depth, segment.at + own + vector.pitch / 4 - vector.length)
      }
      if (to < matrix.columns || planned.some(({ kind }) => kind === 'in')) depth = up(depth, 8)
    }
    if (parts.length === 0) return 'no stages'
    return { parts, segments, depth }
  } catch (unfit) {
    if (unfit instanceof Unfit) return unfit.reason
    throw unfit
  }
}

const up = (value: number, step: number): number => Math.ceil(value / step) * step

/** Consecutive ranges of stored columns that the same stages cover. */
function ranges({ stages, columns }: QuantizedMatrix): [number, number][] {
  const cuts = new Set([0, columns])
  for (const { columns: range } of stages) for (const cut of range ?? []) cuts.add(cut)
  const sorted = [...cuts].sort((a, b) => a - b)
  return sorted.slice(1).map((to, i) => [sorted[i], to])
}

const rangeOf = (stage: Stage, { columns }: QuantizedMatrix): readonly [number, number] =>
  stage.columns ?? [0, columns]

function covers(stage: Stage, matrix: QuantizedMatrix, column: number): boolean {
  const [from, to] = rangeOf(stage, matrix)
  return from <= column && column < to
}

/** Groups are the smallest blocks of anything in the segment; the larger ones must be made of them. */
function divide(
  matrix: QuantizedMatrix,
  stages: readonly Stage[],
  from: number,
  to: number,
  at: number,
  bytes: Bytes | false,
): Segment {
  const columns = to - from
  let group = columns
  let scaled = columns
  const widths: [wide: number, first: number][] = []
  for (const stage of stages) {
    const [start, end] = rangeOf(stage, matrix)
    const scales = [stage.scale, stage.zero, stage.bias].map((scale) => scale?.blocks)
    for (const blocks of [...scales, tablesOf(stage).blocks]) {
      if (!blocks) continue
      const own = rectangles(blocks, matrix.rows, end - start)
      if (!own) throw new Unfit('blocks of elements across rows')
      if (own.columns >= end - start) continue
      widths.push([own.columns, from - start])
      group = Math.min(group, own.columns)
      if (blocks !== tablesOf(stage).blocks) scaled = Math.min(scaled, own.columns)
    }
  }
  const even = ([wide, first]: [number, number]) => wide % group === 0 && first % group === 0
  if (!widths.every(even)) throw new Unfit('scales and zeros over different blocks')
  if (scaled < SHORTEST_GROUP && scaled < columns) throw new Unfit(`groups of ${scaled}`)
  const groups = Math.ceil(columns / group)
  const kinds = stages.map((stage) => kindOf(stage, matrix))
  let step = 1
  kinds.forEach((kind, i) => {
    if (kind === 'out' || stages[i].vector.length > 1) return
    step = Math.max(step, kind.endsWith('2') ? 8 : 4)
  })
  const short = up(group, ACTIVATION_BLOCK) > group * MOST_PADDING
  const [kind] = kinds
  const fits =
    bytes && (kind.startsWith('integer') ? bytes.integers : hasFewValues(kind) && bytes.tables)
  if (fits && !short) step = ACTIVATION_BLOCK
  const padded = up(group, step)
  for (const { vector } of stages) {
    if (vector.along === 'out' || vector.length === 1 || groups === 1) continue
    if (padded > group || group % vector.length > 0) {
      throw new Unfit(`vectors of ${vector.length} in groups of ${group}`)
    }
  }
  return { from, to, group, padded, groups, at }
}

/** A grid's tables: their blocks, and the factors of integers. */
function tablesOf({ grid }: Stage): Partial<Pick<CodebookGrid, 'blocks' | 'tableScale'>> {
  return grid.kind === 'codebook' || grid.kind === 'lookup' ? grid : {}
}

/**
 * Scalars are kept in containers of 2, 4 or 8 bits where all rows of a strip have the same table; else they
 * are vectors of one.
 */
function kindOf(stage: Stage, matrix: QuantizedMatrix): Kind {
  const { grid, vector } = stage
  if (vector.length > 1) return vector.along
  const levels = levelsOf(grid)
  const blocks = tableBlocks(stage, matrix)
  const mixed = blocks.rows < matrix.rows && blocks.rows % STRIP > 0
  if (levels > 256 || mixed) return 'in'
  const bits = levels <= 4 ? 2 : levels <= 16 ? 4 : 8
  return `${grid.kind === 'integer' ? 'integer' : 'table'}${bits}`
}

/** A table that fits a register. */
export const hasFewValues = (kind: Kind): boolean => kind === 'table2' || kind === 'table4'

const levelsOf = (grid: ScalarGrid | CodebookGrid): number =>
  grid.kind === 'lookup' || grid.kind === 'codebook' ? grid.entries : gridLevels(grid)

function tableBlocks(stage: Stage, matrix: QuantizedMatrix): Rectangle {
  const [from, to] = rangeOf(stage, matrix)
  const all = { rows: matrix.rows, columns: to - from }
  const { blocks } = tablesOf(stage)
  return (blocks && rectangles(blocks, matrix.rows, to - from)) ?? all
}

function planPart(matrix: QuantizedMatrix, stage: Stage, segment: Segment): Part {
  const { rows } = matrix
  const { grid, vector } = stage
  const { length } = vector
  const { group, groups, padded, from, to } = segment
  if (length > LONGEST_VECTOR) throw new Unfit(`vectors of ${length}`)
  const first = from - rangeOf(stage, matrix)[0]
  const kind = kindOf(stage, matrix)
  if (kind === 'in' && first % length > 0) throw new Unfit('stages that cut vectors')
  const blocks = tableBlocks(stage, matrix)
  const width = rangeOf(stage, matrix)[1] - rangeOf(stage, matrix)[0]
  const across = Math.ceil(width / blocks.columns)
  if (across > 1 && first % blocks.columns > 0) throw new Unfit('stages that cut tables')
  if (kind === 'out' && blocks.rows < rows && blocks.rows % length > 0) {
    throw new Unfit('tables that cut vectors')
  }
  const levels = levelsOf(grid)
  // Along columns entries are padded with zeros, but for short ones, of which the GEMV takes several at
  // once. Along rows what follows an entry is not used: the smaller table stays in nearer caches.
  const pitch = kind === 'out' || length <= 2 ? length * 4 : up(length, 4) * 4
  const container = kind === 'in' || kind === 'out' ? undefined : Number(kind.slice(-1))
  const values = grid.kind === 'integer' && container ? undefined : valuesOf(grid, blocks, first)
  const bytes = !container ? levels * pitch : container === 8 ? 1024 : 64
  const tables: Tables = {
    rows: blocks.rows < rows ? blocks.rows : 2 ** 30,
    groups: across > 1 ? blocks.columns / group : groups,
    across,
    bytes,
  }
  const wide = levels <= 256 ? 1 : 2
  let vectors = kind === 'out' ? Math.ceil(rows / length) : groups * padded
  let depth = groups * padded
  if (kind === 'in' && length > 1) {
    vectors = Math.ceil((to - from) / length)
    if (length === 2 && (groups === 1 || group % 4 === 0)) vectors = up(vectors, 2)
    depth = vectors * length
  }
  const size = groups === 1 ? 'whole rows' : `groups of ${group}`
  return {
    ...{
      stage,
      segment,
      width,
      first,
      levels,
      kind,
      depth,
      vector: { length, wide, pitch },
      vectors,
    },
    ...(values && { table: values, tables }),
    ...scalesOf(matrix, stage, segment, first, container !== undefined),
    name: `${nameOf(grid, levels, vector.along)}, ${size}`,
  }
}

function valuesOf(grid: ScalarGrid | CodebookGrid, blocks: Rectangle, first: number): TableValues {
  if (grid.kind !== 'lookup' && grid.kind !== 'codebook') {
    const values = gridValues(grid)
    return { values, count: 1, entries: values.length, first: 0 }
  }
  const { entries } = grid
  const size = entries * (grid.kind === 'codebook' ? grid.length : 1)
  const { tableScale } = grid as LookupGrid & { tableScale?: Numbers }
  return {
    ...{ values: grid.tables.values, count: grid.tables.values.length / size, entries },
    ...(tableScale && { factors: tableScale.values }),
    first: Math.floor(first / blocks.columns),
  }
}

function scalesOf(
  matrix: QuantizedMatrix,
  stage: Stage,
  segment: Segment,
  first: number,
  isContainer: boolean,
): Pick<Part, 'scales' | 'offsets' | 'center'> {
  const { rows, rowScale } = matrix
  const { groups } = segment
  const integer = isContainer && stage.grid.kind === 'integer' ? stage.grid : undefined
  if (!isContainer && !stage.scale && !stage.zero && !stage.bias && !rowScale) return { center: 0 }
  const read = (scale: Scale | undefined) =>
    scale && reader(scale, matrix, stage, segment.group, first)
  const [scale, zero, bias] = [read(stage.scale), read(stage.zero), read(stage.bias)]
  const scales = new Float32Array(rows * groups)
  const offsets = new Float32Array(rows * groups)
  /** The shift of every code, as long as it is the same and nothing comes on top. */
  let center: number | undefined
  let even = true
  for (let row = 0; row < rows; row++) {
    const factor = rowScale ? rowScale.values[row] : 1
    for (let g = 0; g < groups; g++) {
      // r·(s·(lowest + step·c − z) + b) = (r·s·step)·c + r·(s·(lowest − z) + b)
      const s = scale ? scale(row, g) : 1
      const shift = (integer?.lowest ?? 0) - (zero ? zero(row, g) : 0)
      const plus = bias ? bias(row, g) : 0
      scales[row * groups + g] = factor * s * (integer?.step ?? 1)
      offsets[row * groups + g] = factor * (s * shift + plus)
      center ??= shift
      if (plus !== 0 || shift !== center) even = false
    }
  }
  // Vectors have no center.
  if (!isContainer && center !== 0) even = false
  return {
    scales,
    ...(even ? {} : { offsets }),
    center: even ? (center ?? 0) / (integer?.step ?? 1) : 0,
  }
}

/** (row, group of the segment) → the scale's value there. */
function reader(scale: Scale, matrix: QuantizedMatrix, stage: Stage, group: number, first: number) {
  const [from, to] = rangeOf(stage, matrix)
  const values = scaleValues(scale, matrix.rows, to - from)
  const blocks = rectangles(scale.blocks, matrix.rows, to - from)
  if (!blocks) throw new LowbitError('bad-scale', 'a scale over blocks across rows')
  const across = Math.ceil((to - from) / blocks.columns)
  return (row: number, g: number): number =>
    values[
      Math.floor(row / blocks.rows) * across + Math.floor((first + g * group) / blocks.columns)
    ]
}

function nameOf(grid: ScalarGrid | CodebookGrid, levels: number, along: string): string {
  if (grid.kind === 'integer') return `int${grid.bits}`
  if (grid.kind === 'codebook') return `codebook of ${levels} × ${grid.length} along ${along}`
  return `${grid.kind} table of ${levels}`
}

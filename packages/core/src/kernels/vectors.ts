/** What GPU kernels ask of tables of values and of vectors, before they run an operation in their own way. */

import { LowbitError } from '../errors.ts'
import type { ColumnRange, TableBlocks, Tensor, VectorRounding } from '../plugins/kernels.ts'
import { seededRandom } from '../random.ts'
import type { CodesHandle, CodesHandles } from './codes.ts'

const LONGEST = 16
const MOST_ENTRIES = 65536

const refuse = (why: string): never => {
  throw new LowbitError('bad-shape', why)
}

/** `rows` entries of `tables` tables. */
export function checkVectorTable(rows: number, length: number, tables = 1): void {
  const entries = rows / tables
  if (length < 1 || length > LONGEST) {
    refuse(`vectors of ${length} weights; 1 … ${LONGEST} are possible`)
  }
  if (!Number.isInteger(entries) || entries < 1 || entries > MOST_ENTRIES) {
    refuse(`${rows} entries for ${tables} tables of a codebook`)
  }
}

/** k-means of groups of rows. Gives how many groups there are. */
export function checkClusters(rows: number, length: number, groupRows: number, entries: number) {
  if (!(groupRows >= 1 && entries >= 1 && entries <= MOST_ENTRIES)) {
    refuse(`${entries} entries for groups of ${groupRows} rows`)
  }
  const groups = Math.ceil(rows / groupRows)
  checkVectorTable(groups * entries, length, groups)
  return groups
}

/** Of each entry some others, all of them at most. */
export function checkNeighbours(candidates: number, entries: number): void {
  if (candidates >= 1 && candidates <= entries) return
  refuse(`${candidates} neighbours among ${entries} entries`)
}

/** What a pass over vectors is given, checked. */
export interface VectorPass<Handle> {
  readonly rows: number
  readonly columns: number
  readonly length: number
  readonly along: 'in' | 'out'
  readonly from: number
  readonly to: number
  readonly tableRows: number
  /** How many tables each stage has. */
  readonly groups: number
  readonly entries: readonly number[]
  readonly tables: readonly Handle[]
  readonly codes: readonly Handle[]
  /** Shape of the codes. */
  readonly high: number
  readonly wide: number
  readonly rowScale?: Handle
  readonly columnScale?: Handle
  readonly columnBias?: Handle
  readonly scaleColumns: number
  readonly across: number
}

export function checkVectorPass<Handle extends CodesHandle>(
  { expect, expectCodes }: Pick<CodesHandles<Handle>, 'expect' | 'expectCodes'>,
  codes: readonly Tensor[],
  weight: Tensor,
  options: VectorRounding & ColumnRange,
): VectorPass<Handle> {
  const { rows, columns } = weight
  const { length, along, tables, from = 0, to = columns, tableRows = rows } = options
  const { scaleColumns = columns } = options
  if (!(Number.isInteger(length) && length >= 1)) checkVectorTable(1, 0)
  const integers = Number.isInteger(from) && Number.isInteger(to)
  if (!(integers && from >= 0 && from < to && to <= columns)) {
    refuse(`no columns ${from} to ${to} in ${columns}`)
  }
  const out = along === 'out'
  if (out && tableRows < rows) refuse('vectors along the rows have one table for all of them')
  if (!out && (options.columnScale || options.columnBias)) {
    refuse('vectors along the columns have no scale of columns')
  }
  if (tables.length === 0 || codes.length !== tables.length) {
    refuse(`${codes.length} codes for ${tables.length} tables`)
  }
  if (!(scaleColumns >= 1) || (!out && scaleColumns < columns && scaleColumns % length !== 0)) {
    refuse(`scales of ${scaleColumns} columns for vectors of ${length}`)
  }
  const groups = Math.ceil(rows / tableRows)
  const [high, wide] = out
    ? [Math.ceil(rows / length), to - from]
    : [rows, Math.ceil((to - from) / length)]
  const across = Math.ceil(columns / scaleColumns)
  const row = (tensor: Tensor | undefined, what: string) =>
    tensor && expect(tensor, 1, columns, what)
  return {
    ...{ rows, columns, length, along, from, to, tableRows, groups, high, wide },
    entries: tables.map(({ entries }) => entries),
    tables: tables.map(({ values, entries }) => {
      checkVectorTable(groups * entries, length, groups)
      return expect(values, groups * entries, length, 'a table')
    }),
    codes: tables.map(({ entries }, i) => expectCodes(codes[i], high, wide, entries, 'u16')),
    rowScale: options.rowScale && expect(options.rowScale, rows, across, 'rowScale'),
    columnScale: row(options.columnScale, 'columnScale'),
    columnBias: row(options.columnBias, 'columnBias'),
    ...{ scaleColumns, across },
  }
}

/** The sums of `scatterVectors`: one for each table. */
export function checkSums<Handle extends CodesHandle>(
  { expect }: Pick<CodesHandles<Handle>, 'expect'>,
  sums: readonly Tensor[],
  { tables, length }: VectorPass<Handle>,
): Handle[] {
  if (sums.length !== tables.length) refuse(`${sums.length} sums for ${tables.length} tables`)
  return sums.map((sum, i) => expect(sum, tables[i].rows, length, 'sums'))
}

/** The neighbours of `descendVectors`: those of each table's entries. */
export function checkDescent<Handle extends CodesHandle>(
  { expect }: Pick<CodesHandles<Handle>, 'expect'>,
  neighbours: readonly Tensor[],
  { along, entries }: VectorPass<Handle>,
): Handle[] {
  if (along !== 'out') refuse('coordinate descent takes vectors along the rows')
  if (neighbours.length !== entries.length) refuse('neighbours are needed for each table')
  return neighbours.map((tensor, i) =>
    expect(tensor, entries[i], tensor.columns, 'neighbours', 'u16'),
  )
}

/** Tables for blocks of a weight: how many, and how blocks are counted. */
export function checkTables<Handle extends CodesHandle>(
  { expect }: Pick<CodesHandles<Handle>, 'expect'>,
  tables: Tensor,
  rows: number,
  columns: number,
  { blockRows, blockColumns, rowScale }: TableBlocks,
) {
  const integers = Number.isInteger(blockRows) && Number.isInteger(blockColumns)
  if (!(integers && blockRows >= 1 && blockColumns >= 1)) {
    refuse('blocks have at least one row and one column')
  }
  const entries = tables.columns
  if (!(entries >= 1 && entries <= 256)) refuse(`tables have 1 to 256 entries, not ${entries}`)
  const across = Math.ceil(columns / blockColumns)
  const count = Math.ceil(rows / blockRows) * across
  return {
    span: expect(tables, count, entries, 'tables'),
    scales: rowScale && expect(rowScale, rows, 1, 'rowScale'),
    ...{ count, entries },
    params: { columns, block_rows: blockRows, block_columns: blockColumns, across },
  }
}

/** Places in each group's order, in the middle of equal shares: where k-means' entries begin. */
export function evenSeeds(rows: number, groupRows: number, entries: number): Uint32Array {
  const groups = Math.ceil(rows / groupRows)
  return Uint32Array.from({ length: groups * entries }, (_, i) => {
    const [group, c] = [Math.floor(i / entries), i % entries]
    const n = Math.min(groupRows, rows - group * groupRows)
    return Math.min(n - 1, Math.floor(((2 * c + 1) * n) / (2 * entries)))
  })
}

/** Numbers in [0, 1) that draw the seeds of k-means++, those of each group by themselves. */
export function drawnSeeds(groups: number, entries: number, seed: number): Float32Array {
  const out = new Float32Array(groups * entries)
  for (let group = 0; group < groups; group++) {
    const random = seededRandom(seed + group)
    for (let i = 0; i < entries; i++) out[group * entries + i] = random()
  }
  return out
}

/** Pairs of a segment of a bitonic sort: a power of two. What is left over must have the largest key. */
export const segmentSize = (count: number): number => 2 ** Math.ceil(Math.log2(Math.max(2, count)))

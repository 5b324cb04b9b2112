/** Matrices as words for the device: codes in containers, tables and scales as the bits of f32, one after the other. */

import { unpackCodes } from '../bits/stream.ts'
import { LowbitError } from '../errors.ts'
import { blockGrid } from '../matrix/blocks.ts'
import { scaleValues } from '../matrix/decode.ts'
import { gridValues } from '../matrix/grid.ts'
import type {
  Blocks,
  DenseMatrix,
  Grid,
  Numbers,
  PackedCodes,
  Scale,
  Stage,
} from '../matrix/types.ts'
import { toFloat32 } from '../numbers/half.ts'

/** What decides the kernel: everything else is a parameter. */
export interface WordLayout {
  readonly kind: 'f32' | 'f16' | 'bf16' | 'integer' | 'table'
  /** Bits of a code or a dense weight: 1, 2, 4, 8, 16 or 32. */
  readonly bits: number
  readonly length: number
  readonly along: 'in' | 'out'
  readonly scale: boolean
  readonly zero: boolean
  readonly bias: boolean
  readonly rowScale: boolean
  /** Whether a word's weights share their scales: they are read once for the word. */
  readonly even: boolean
}

export interface PackedWords {
  readonly layout: WordLayout
  readonly words: Uint32Array
  /** Where its parts lie in `words` and how its blocks are counted. */
  readonly params: Readonly<Record<string, number>>
  /** Whether x may meet it in bytes: integers of at most 8 bits, whose scales hold for blocks of 32 columns. */
  readonly bytes: boolean
  /** What no weight is larger than. */
  reach(): number
  /** Stored columns that it covers. */
  readonly from: number
  readonly to: number
}

/** Columns of x that share a factor where it is rounded to bytes. */
export const WORD_BLOCK = 32

const CONTAINERS = [1, 2, 4, 8, 16] as const

export function packDense({ rows, columns, type, values }: DenseMatrix): PackedWords {
  if (values.length !== rows * columns) {
    throw new LowbitError('bad-shape', `${values.length} values are not ${rows} × ${columns}`)
  }
  const bits = type === 'f32' ? 32 : 16
  const words =
    values instanceof Float32Array
      ? new Uint32Array(values.buffer, values.byteOffset, values.length)
      : rowsOfWords(values, rows, columns, 16)
  return {
    layout: {
      ...{ kind: type, bits, length: 1, along: 'in', even: false },
      ...{ scale: false, zero: false, bias: false, rowScale: false },
    },
    words,
    params: { ...NOTHING, rows, depth: columns, words: Math.ceil((columns * bits) / 32) },
    ...{ bytes: false, from: 0, to: columns },
    reach: () =>
      largest(values instanceof Float32Array || type === 'f32' ? values : toFloat32(type, values)),
  }
}

/** A stage, or the reason why no kernel decodes it. */
export function packStage(
  stage: Stage,
  rows: number,
  columns: number,
  rowScale: Numbers | undefined,
): PackedWords | string {
  const [from, to] = stage.columns ?? [0, columns]
  const depth = to - from
  const { grid, vector } = stage
  const { length, along } = vector
  if (length > 16) return `vectors of ${length} weights`
  const parts = [stage.scale, stage.zero, stage.bias]
  const grids = grid.kind === 'lookup' || grid.kind === 'codebook' ? grid.blocks : undefined
  for (const blocks of [grids, ...parts.map((part) => part?.blocks)]) {
    if (blocks && 'elements' in blocks) return 'blocks of elements that run across rows'
  }
  const bits = CONTAINERS.find((size) => size >= stage.codes.bits) ?? 16
  const codeRows = along === 'in' ? rows : Math.ceil(rows / length)
  const codeColumns = along === 'in' ? Math.ceil(depth / length) : depth
  const pieces: Uint32Array[] = [containers(stage.codes, codeRows, codeColumns, bits)]
  let at = pieces[0].length
  const place = (values: Float32Array): number => {
    const here = at
    pieces.push(new Uint32Array(values.buffer, values.byteOffset, values.length))
    at += values.length
    return here
  }
  const params: Record<string, number> = {
    ...{ ...NOTHING, rows, depth, words: Math.ceil((codeColumns * bits) / 32) },
  }
  const integer = grid.kind === 'integer'
  if (integer) Object.assign(params, { lowest: grid.lowest, step: grid.step })
  else {
    const blocks = rectangle(grids ?? { rows, columns: depth })
    Object.assign(params, { table: place(tableValues(grid, rows, depth)) })
    Object.assign(params, { entries: levelsOf(grid), ...counted('table', blocks, rows, depth) })
  }
  const sizes: Partial<Record<'scale' | 'zero' | 'bias', Float32Array>> = {}
  for (const [name, part] of [
    ['scale', stage.scale],
    ['zero', stage.zero],
    ['bias', stage.bias],
  ] as const) {
    if (!part) continue
    const values = scaleValues(part, rows, depth)
    params[name] = place(values)
    sizes[name] = values
    Object.assign(params, counted(name, rectangle(part.blocks), rows, depth))
  }
  if (rowScale) params.row_scale = place(rowScale.values)
  const words = new Uint32Array(at)
  let next = 0
  for (const piece of pieces) {
    words.set(piece, next)
    next += piece.length
  }
  const perWord = (32 / bits) * (along === 'in' ? length : 1)
  return {
    layout: {
      ...{ kind: integer ? 'integer' : 'table', bits, length, along },
      ...{ scale: !!stage.scale, zero: !!stage.zero, bias: !!stage.bias, rowScale: !!rowScale },
      even: length === 1 && parts.every((part) => !part || widthOf(part, depth) % perWord === 0),
    },
    ...{ words, params, from, to },
    reach() {
      const { scale = [1], zero = [], bias = [] } = sizes
      const levels = largest(integer ? gridValues(grid) : tableValues(grid, rows, depth))
      return (levels + largest(zero)) * largest(scale) + largest(bias)
    },
    bytes:
      integer &&
      bits <= 8 &&
      length === 1 &&
      along === 'in' &&
      parts.every((part) => !part || widthOf(part, depth) % WORD_BLOCK === 0),
  }
}

const largest = (values: ArrayLike<number>): number => {
  let most = 0
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]))
  return most
}

/** Parameters that a kernel has and a stage need not. */
const NOTHING: Readonly<Record<string, number>> = Object.fromEntries(
  [
    ...['lowest', 'step', 'entries', 'row_scale'],
    ...['table', 'scale', 'zero', 'bias'].flatMap((name) => [
      ...[name, `${name}_rows`, `${name}_columns`, `${name}_across`],
    ]),
  ].map((name) => [name, 0]),
)

function rectangle(blocks: Blocks): { rows: number; columns: number } {
  if ('elements' in blocks) throw new Error('blocks of elements are no rectangles')
  return blocks
}

/** The width of a scale's blocks; one block across the row is as wide as anything. */
function widthOf({ blocks }: Scale, depth: number): number {
  const { columns } = rectangle(blocks)
  return columns >= depth ? 0 : columns
}

function counted(
  name: string,
  blocks: { rows: number; columns: number },
  rows: number,
  depth: number,
): Record<string, number> {
  return {
    [`${name}_rows`]: blocks.rows,
    [`${name}_columns`]: blocks.columns,
    [`${name}_across`]: blockGrid(blocks, rows, depth).columns,
  }
}

function levelsOf(grid: Grid): number {
  if (grid.kind === 'lookup' || grid.kind === 'codebook') return grid.entries
  return gridValues(grid).length
}

/** All tables, the factors of integer ones multiplied in. */
function tableValues(grid: Grid, _rows: number, _depth: number): Float32Array {
  if (grid.kind !== 'lookup' && grid.kind !== 'codebook') return gridValues(grid)
  const { tables, tableScale, entries } = grid
  if (!tableScale) return tables.values
  const size = entries * (grid.kind === 'codebook' ? grid.length : 1)
  return tables.values.map((value, i) => value * tableScale.values[Math.floor(i / size)])
}

/** Codes in containers that no word's end cuts, each row from a word of its own. */
function containers(codes: PackedCodes, rows: number, columns: number, bits: number): Uint32Array {
  const { data } = codes
  const words = (columns * bits) / 32
  if (codes.bits === bits && Number.isInteger(words)) {
    return new Uint32Array(data.slice(0, rows * words * 4).buffer)
  }
  return rowsOfWords(unpackCodes(codes), rows, columns, bits)
}

function rowsOfWords(
  values: ArrayLike<number>,
  rows: number,
  columns: number,
  bits: number,
): Uint32Array {
  const perWord = 32 / bits
  const words = Math.ceil(columns / perWord)
  const out = new Uint32Array(rows * words)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const shift = (column % perWord) * bits
      out[row * words + Math.floor(column / perWord)] |= values[row * columns + column] << shift
    }
  }
  return out
}

/** Products on tensor cores: weights of integers or E4M3 in tiles, x rounded. See kernels/tiles.cu. */

import { floatToHalf, halfToFloat, type PackedWords, type Stage, WORD_BLOCK } from '@lowbit/core'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf } from './tensors.ts'

/** What x is rounded to, as kernels are named. */
export type Seen = 'f16' | 'bytes' | 'fp8'

export interface TiledPart {
  readonly span: Span
  readonly scales: Span
  readonly bits: number
  /** Codes are E4M3. */
  readonly floats: boolean
  readonly rows: number
  readonly depth: number
  /** Stored columns that it begins at. */
  readonly from: number
  readonly seen: Seen
  readonly args: Arguments
}

/** As in kernels/tiles.cu. */
const ROWS = 16
const CHUNK = 64

/** The most tokens of a kernel of few, and those that a block of the kernel of many takes. */
const FEW = [8, 16, 32] as const
const MANY = 64
/** Outputs of a block: of few tokens, of many. */
const OUTPUTS = { few: ROWS, many: 4 * ROWS }

/** Whether there are tiles for it: codes whose scales hold for whole blocks of 32 inputs. */
export const canTile = ({ bytes, layout }: PackedWords): boolean =>
  bytes && (layout.bits === 4 || layout.bits === 8)

/** Whether codes are E4M3, and their scales hold for whole blocks of 32 inputs. */
export const isE4M3 = ({ layout, params }: PackedWords, stage: Stage | undefined): boolean =>
  stage?.grid.kind === 'float' &&
  stage.grid.format.name === 'f8_e4m3' &&
  layout.length === 1 &&
  (['scale', 'zero', 'bias'] as const).every((name) => {
    const columns = params[`${name}_columns`]
    return !layout[name] || columns >= params.depth || columns % WORD_BLOCK === 0
  })

/** Codes lie around this; E4M3 has a sign. */
const middleOf = (bits: number, floats: boolean): number => (floats ? 0 : 2 ** (bits - 1))

const isHalf = (value: number): boolean => halfToFloat(floatToHalf(value)) === value

/** Whether scales and what codes are moved by are the same as f16: then a group takes four bytes. */
function isNarrow({ layout, params, words }: PackedWords): boolean {
  if (layout.bias || layout.rowScale || layout.kind !== 'integer' || params.step !== 1) return false
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length)
  const all = (name: 'scale' | 'zero', holds: (value: number) => boolean): boolean => {
    const [at, rows, across] = ['', '_rows', '_across'].map((part) => params[`${name}${part}`])
    return floats.subarray(at, at + Math.ceil(params.rows / rows) * across).every(holds)
  }
  const base = params.lowest + middleOf(layout.bits, false)
  if (!isHalf(base)) return false
  return (
    (!layout.scale || all('scale', isHalf)) &&
    (!layout.zero || all('zero', (zero) => isHalf(base - zero)))
  )
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** Inputs that share all scales: a multiple of 32, or the whole row. */
function widthOf({ layout, params }: PackedWords): number | undefined {
  const widths = (['scale', 'zero', 'bias'] as const)
    .filter((name) => layout[name])
    .map((name) => params[`${name}_columns`])
    .filter((columns) => columns < params.depth)
  return widths.length > 0 ? widths.reduce(gcd) : undefined
}

/** From words that are on the device already, which are not needed afterwards. */
export function placeTiles(
  device: Device,
  packed: PackedWords,
  words: Arguments,
  seen: Seen,
): TiledPart {
  const { layout, params, from } = packed
  const { bits } = layout
  const { rows, depth } = params
  const narrow = isNarrow(packed)
  const floats = layout.kind === 'table'
  const grid = floats ? { lowest: 0, step: 1 } : {}
  const tiles = Math.ceil(rows / ROWS)
  const chunks = Math.ceil(depth / CHUNK)
  const width = widthOf(packed)
  const shared = width ? width / WORD_BLOCK : 2 * chunks
  const size = tiles * chunks * ((ROWS * CHUNK * bits) / 32)
  const lines = Math.ceil((2 * chunks) / shared) * tiles * ROWS
  const span = device.allocate(size * 4)
  let scales: Span
  try {
    scales = device.allocate(lines * (narrow ? 4 : 8))
  } catch (error) {
    device.release(span)
    throw error
  }
  const shape = {
    tile_count: tiles,
    chunks,
    shared,
    narrow: narrow ? 1 : 0,
    middle: middleOf(bits, floats),
  }
  const args = { ...shape, tiles: span, scales }
  device.run('pack_tiles', { ...words, ...grid, ...args, count: size }, blocksOf(size))
  device.run('pack_scales', { ...words, ...grid, ...args, count: lines }, blocksOf(lines))
  return { span, scales, bits, floats, rows, depth, from, seen, args }
}

export interface Multiplied {
  readonly out: Span
  readonly x: Span
  readonly tokens: number
  /** Of x. */
  readonly columns: number
  /** Whether the product is added to what `out` holds. */
  readonly keep: boolean
}

export interface Rounded {
  readonly q: Span
  readonly sums: Span
  readonly factors: Span
  readonly chunks: number
  /** Rows of q: tokens, filled up. */
  readonly lines: number
}

/** x as tensor cores take it, for what `work` queues: rows of so many columns, filled up to `each` of them. */
export function roundActivations(
  device: Device,
  { depth, from, seen, each }: { depth: number; from: number; seen: Seen | 'bf16'; each: number },
  { x, tokens, columns }: Pick<Multiplied, 'x' | 'tokens' | 'columns'>,
  work: (rounded: Rounded) => void,
): void {
  const chunks = Math.ceil(depth / CHUNK)
  const lines = Math.ceil(tokens / each) * each
  const bytes = seen === 'bytes' || seen === 'fp8'
  const sizes = [lines * chunks * CHUNK * (bytes ? 1 : 2), lines * chunks * (bytes ? 16 : 8)]
  const held: Span[] = []
  try {
    for (const size of [...sizes, lines * 4]) held.push(device.allocate(size))
    const [q, sums, factors] = held
    const shape = { tokens, lines, chunks, depth, x_row: columns, x_from: from }
    const blocks = seen === 'bytes' ? (lines * chunks) / 2 : lines
    device.run(`round_${seen}`, { ...shape, x, q, sums, factors }, blocks)
    work({ q, sums, factors, chunks, lines })
  } finally {
    for (const span of held) device.release(span)
  }
}

export function multiplyTiles(
  device: Device,
  { bits, rows, depth, from, seen, args }: TiledPart,
  multiplied: Multiplied,
): void {
  const { out, tokens, keep } = multiplied
  const few = FEW.find((most) => tokens <= most)
  const each = few ?? MANY
  const across = Math.ceil(rows / (few ? OUTPUTS.few : OUTPUTS.many))
  const rounding = { depth, from, seen, each }
  roundActivations(device, rounding, multiplied, ({ q, sums, factors, lines }) => {
    device.run(
      `tiles_${seen}_${bits}_${few ? `few${few}` : 'many'}`,
      { ...args, q, sums, factors, out, rows, tokens, lines, keep: keep ? 1 : 0 },
      across * (lines / each),
    )
  })
}

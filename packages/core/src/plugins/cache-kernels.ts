/** What a device must be able to do with keys and values in few bits: code them, and attend over codes. */

import { LowbitError } from '../errors.ts'
import type { AttentionShape, Tensor } from './kernels.ts'

export interface CacheGrid {
  /** 16: no codes but halves (f16), without scales; then `tokens` and `channels` are 1, and it is symmetric. */
  readonly bits: 2 | 3 | 4 | 8 | 16
  /** Tokens and channels that share a scale: tokens 1 or a multiple of 8; channels 1 or a multiple of 8 that divides the head. */
  readonly tokens: number
  readonly channels: number
  /** A value is scale · (code − (2^bits − 1) / 2); otherwise scale · code + bias, least and largest exactly met. */
  readonly symmetric: boolean
  /**
   * [2^bits] ascending values that take the place of the code. Symmetric (NF4, FP8): a value is scale · entry, and the
   * largest entry meets the block's largest number. Otherwise they lie between 0, a block's least number, and 1, its
   * largest: a value is scale · entry + bias.
   */
  readonly table?: Float32Array
  /** The share of a block's range, around its middle, that codes cover; numbers outside go to its ends. Usually 1. */
  readonly range?: number
  /**
   * A code stands for so many neighbouring channels, and means an entry of their codebook (CQ, Zhang et al., NeurIPS
   * 2024). Then it has 8 bits, nothing has scales, and tokens, channels and symmetry are those of halves.
   */
  readonly coupled?: 4 | 8
}

/** Entries of a codebook. */
export const ENTRIES = 256

/**
 * How keys that are coded before RoPE become keys: each head by an orthonormal Hadamard matrix where `rotated`, then row
 * r by the angles of position from + r. cos and sin are [positions, headSize / 2], as `rope` takes them.
 */
export interface KeyTurn {
  readonly rotated: boolean
  readonly cos: Tensor
  readonly sin: Tensor
  readonly from: number
}

/**
 * Rows in codes. `codes` u32 [capacity, width / coupled · bits / 32, rounded up]: code i of a row has the bits from
 * i · bits on, counted from the lowest of the first word.
 * `scales` u16 [capacity / tokens, width / channels], or twice as many columns where not symmetric: f16 scales, then
 * f16 biases; none for halves and coupled channels. Numbers beyond the halves become the largest one.
 * `codebooks` f32 [width / coupled · 256, coupled], of coupled channels alone: the entries of a row's first code, then
 * those of the next. A code is that of the nearest entry, by squared distance.
 * `outliers` u16 [capacity, 2 · count], where there are scales: of each row the columns, ascending, of the `count` numbers that
 * are farthest from the mean of their block, then what codes lack there, as f16. Ranges are those of the others, and
 * outliers are coded as the end of the range that they are nearest to.
 */
export interface CodedRows {
  readonly codes: Tensor
  readonly scales: Tensor
  readonly grid: CacheGrid
  readonly codebooks?: Tensor
  readonly outliers?: Tensor
  /** Of keys: attention turns them as it reads them; coding and decoding leave them alone. */
  readonly turn?: KeyTurn
}

export interface CacheKernels {
  /** Codes the rows of x as rows [at, at + x.rows); both are multiples of the grid's tokens. */
  encodeRows(into: CodedRows, at: number, x: Tensor): void
  /** The values of rows [at, at + out.rows). */
  decodeRows(out: Tensor, from: CodedRows, at: number): void
  /**
   * Causal attention over `coded` positions in codes and those after them in f32: k and v hold the positions from
   * `coded` on, [≥ start − coded + q.rows, keyValueHeads · headSize]. coded ≤ start; headSize is a multiple of 8.
   */
  attendCoded(
    out: Tensor,
    q: Tensor,
    keys: CodedRows,
    values: CodedRows,
    coded: number,
    k: Tensor,
    v: Tensor,
    shape: AttentionShape,
  ): void
}

/** f16 in place of codes. */
export const HALVES: CacheGrid = { bits: 16, tokens: 1, channels: 1, symmetric: true }

/** Columns of `codes`, words, for rows of `width` numbers. */
export const codeColumns = ({ bits, coupled }: CacheGrid, width: number): number =>
  Math.ceil(((width / (coupled ?? 1)) * bits) / 32)

/** Columns of `scales` for rows of `width` numbers. */
export function scaleColumns(grid: CacheGrid, width: number): number {
  return hasScales(grid) ? (width / grid.channels) * (grid.symmetric ? 1 : 2) : 0
}

const hasScales = ({ bits, coupled }: CacheGrid): boolean => bits !== 16 && !coupled

/** Numbers of the codebooks of rows of `width`. */
export const codebookSize = ({ coupled }: CacheGrid, width: number): number =>
  coupled ? width * ENTRIES : 0

/** Refuses a grid that rows of `width` numbers can't have. */
export function checkGrid(grid: CacheGrid, width: number): void {
  const { bits, tokens, channels, symmetric, table, range = 1, coupled } = grid
  const refuse = (why: string): never => {
    throw new LowbitError('bad-shape', `a cache's grid: ${why}`)
  }
  if (![2, 3, 4, 8, 16].includes(bits)) refuse(`${bits} bits are not among 2, 3, 4, 8 and 16`)
  if (width % 8 !== 0) refuse(`rows of ${width} numbers are no multiple of 8`)
  if (!(tokens === 1 || (tokens > 0 && tokens % 8 === 0))) {
    refuse(`${tokens} tokens are neither 1 nor a multiple of 8`)
  }
  if (!(channels === 1 || (channels > 0 && channels % 8 === 0)) || width % channels !== 0) {
    refuse(`${channels} channels do not divide rows of ${width} in eights`)
  }
  const bare = tokens === 1 && channels === 1 && symmetric && !table && range === 1
  if (!hasScales(grid) && !bare) {
    refuse('halves and coupled channels have no scales to share and no table')
  }
  if (coupled !== undefined && !([4, 8].includes(coupled) && bits === 8)) {
    refuse(`${bits} bits for ${coupled} coupled channels; a code of 8 bits stands for 4 or 8`)
  }
  if (!(range > 0 && range <= 1)) refuse(`codes cover a share of the range, not ${range}`)
  if (!table) return
  if (table.length !== 2 ** bits || table.some((value, i) => !(i === 0 || value >= table[i - 1]))) {
    refuse(`a table of ${bits} bits has ${2 ** bits} ascending values`)
  }
  if (!symmetric && !(table[0] >= 0 && table[table.length - 1] <= 1)) {
    refuse('the table of a grid that is not symmetric lies between 0 and 1')
  }
}

/** Refuses codebooks that don't go with the codes. */
export function checkCodebooks({ grid: { coupled }, codebooks }: CodedRows, width: number): void {
  const wanted = coupled ? `f32 ${(width / coupled) * ENTRIES} × ${coupled}` : 'none'
  const found = codebooks ? `${codebooks.type} ${codebooks.rows} × ${codebooks.columns}` : 'none'
  if (found !== wanted) {
    throw new LowbitError(
      'bad-shape',
      `codebooks of rows of ${width} numbers are ${wanted}, not ${found}`,
    )
  }
}

/** How many outliers a row has; refuses tensors that don't go with the codes. */
export function outliersOf({ codes, grid, outliers }: CodedRows, width: number): number {
  if (!outliers) return 0
  const { type, rows, columns } = outliers
  const count = columns / 2
  const fits = type === 'u16' && rows >= codes.rows && count > 0 && count * 2 <= width
  if (!fits || !Number.isInteger(count) || !hasScales(grid) || width > 65_536) {
    throw new LowbitError(
      'bad-shape',
      `outliers are ${type} ${rows} × ${columns}; of ${codes.rows} rows of ${width} codes they are u16, twice as many columns as outliers, at most half of a row, and none of halves or coupled channels`,
    )
  }
  return count
}

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
  /** [2^bits] ascending values that take the place of code − …, for symmetric grids: NF4, FP8, fitted ones. */
  readonly table?: Float32Array
}

/**
 * Rows in codes. `codes` u32 [capacity, width · bits / 32, rounded up]: code i of a row has the bits from i · bits on,
 * counted from the lowest of the first word.
 * `scales` u16 [capacity / tokens, width / channels], or twice as many columns where not symmetric: f16 scales, then
 * f16 biases; none for halves. Numbers beyond the halves become the largest one.
 */
export interface CodedRows {
  readonly codes: Tensor
  readonly scales: Tensor
  readonly grid: CacheGrid
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
export const codeColumns = ({ bits }: CacheGrid, width: number): number =>
  Math.ceil((width * bits) / 32)

/** Columns of `scales` for rows of `width` numbers. */
export function scaleColumns({ bits, channels, symmetric }: CacheGrid, width: number): number {
  return bits === 16 ? 0 : (width / channels) * (symmetric ? 1 : 2)
}

/** Refuses a grid that rows of `width` numbers can't have. */
export function checkGrid(
  { bits, tokens, channels, symmetric, table }: CacheGrid,
  width: number,
): void {
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
  if (bits === 16 && !(tokens === 1 && channels === 1 && symmetric && !table)) {
    refuse('halves have no scales to share and no table')
  }
  if (!table) return
  if (!symmetric) refuse('a table of values goes with symmetric grids')
  if (table.length !== 2 ** bits || table.some((value, i) => !(i === 0 || value >= table[i - 1]))) {
    refuse(`a table of ${bits} bits has ${2 ** bits} ascending values`)
  }
}

/** What all kernels ask of the arguments of an operation, before they run it in their own way. */

import { LowbitError } from '../errors.ts'
import {
  type CodedRows,
  checkCodebooks,
  checkGrid,
  codeColumns,
  type KeyTurn,
  outliersOf,
  scaleColumns,
} from '../plugins/cache-kernels.ts'
import type { AttentionShape, Rounding, Tensor } from '../plugins/kernels.ts'
import { checkShape } from './tensors.ts'

const refuse = (why: string): never => {
  throw new LowbitError('bad-shape', why)
}

export function checkIndices(indices: Uint32Array, below: number): void {
  if (indices.some((index) => index >= below)) {
    refuse(`an index lies beyond the ${below} that there are`)
  }
}

/** One token for each row of logits. */
export function checkTargets(targets: Uint32Array, rows: number, columns: number): void {
  if (targets.length !== rows || targets.some((token) => token >= columns)) {
    refuse(`there are not ${rows} targets below ${columns}`)
  }
}

/** Rows of x are positions from `start` on, of which cos has the angles. */
export function checkRope(x: Tensor, cos: Tensor, headSize: number, start: number): void {
  if (!Number.isInteger(headSize / 2) || x.columns % headSize !== 0) {
    refuse(`${x.columns} columns are not heads of ${headSize}`)
  }
  if (start < 0 || start + x.rows > cos.rows) {
    refuse(`no angles for positions ${start} to ${start + x.rows}`)
  }
}

/** Gives how many positions the last row attends over. */
export function checkAttention(q: Tensor, k: Tensor, v: Tensor, shape: AttentionShape): number {
  const { heads, keyValueHeads, headSize, start } = shape
  checkShape(q, q.rows, heads * headSize, 'q')
  checkShape(k, k.rows, keyValueHeads * headSize, 'k')
  checkShape(v, v.rows, keyValueHeads * headSize, 'v')
  if (heads % keyValueHeads !== 0) refuse(`${heads} heads do not share ${keyValueHeads} of keys`)
  const positions = start + q.rows
  if (start < 0 || k.rows < positions || v.rows < positions) {
    refuse(`there are fewer keys or values than ${positions} positions`)
  }
  return positions
}

/** Scales of a weight: how many blocks there are down and across. */
export function checkBlocks(weight: Tensor, { blockRows, blockColumns }: Rounding) {
  const integers = Number.isInteger(blockRows) && Number.isInteger(blockColumns)
  if (!(integers && blockRows >= 1 && blockColumns >= 1)) {
    refuse(`no blocks are ${blockRows} × ${blockColumns}`)
  }
  return {
    down: Math.ceil(weight.rows / blockRows),
    across: Math.ceil(weight.columns / blockColumns),
  }
}

/** The tensors of coded rows must be those of rows of `width`. Gives how many outliers each has. */
export function checkCodedRows(past: CodedRows, width: number): number {
  const { codes, scales, grid } = past
  checkGrid(grid, width)
  checkShape(codes, codes.rows, codeColumns(grid, width), 'codes')
  const rows = Math.ceil(codes.rows / grid.tokens)
  checkShape(scales, rows, scaleColumns(grid, width), 'scales')
  checkCodebooks(past, width)
  return outliersOf(past, width)
}

/** `rows` rows that are coded from row `at` on are whole blocks. */
export function checkEncoding({ codes, grid: { tokens } }: CodedRows, at: number, rows: number) {
  if (at < 0 || at % tokens !== 0 || rows % tokens !== 0 || at + rows > codes.rows) {
    refuse(`rows ${at} to ${at + rows} are no blocks of ${tokens} among ${codes.rows}`)
  }
}

export function checkDecoding({ codes }: CodedRows, at: number, rows: number): void {
  if (at < 0 || at + rows > codes.rows) refuse(`there are ${codes.rows} rows, not ${at + rows}`)
}

function checkTurn({ rotated, cos, sin, from }: KeyTurn, coded: number, headSize: number): void {
  checkShape(cos, cos.rows, headSize / 2, 'cos')
  checkShape(sin, cos.rows, headSize / 2, 'sin')
  if (from < 0 || from + coded > cos.rows) {
    refuse(`no angles for positions ${from} to ${from + coded} of keys in codes`)
  }
  if (rotated && !Number.isInteger(Math.log2(headSize))) {
    refuse(`heads of ${headSize} are no power of two, which a Hadamard matrix asks for`)
  }
}

/** Positions of which the first `coded` are in codes. Gives how many are not. */
export function checkCodedAttention(
  q: Tensor,
  keys: CodedRows,
  values: CodedRows,
  coded: number,
  k: Tensor,
  v: Tensor,
  { heads, keyValueHeads, headSize, start }: AttentionShape,
): number {
  const width = keyValueHeads * headSize
  checkShape(q, q.rows, heads * headSize, 'q')
  checkShape(k, k.rows, width, 'k')
  checkShape(v, v.rows, width, 'v')
  if (heads % keyValueHeads !== 0 || headSize % 8 !== 0) {
    refuse(
      `${heads} heads of ${headSize} on ${keyValueHeads}: heads must share evenly, sizes be multiples of 8`,
    )
  }
  const fresh = start - coded + q.rows
  if (coded < 0 || coded > start || k.rows < fresh || v.rows < fresh) {
    refuse(`there are fewer keys or values than ${start + q.rows}`)
  }
  if (coded > Math.min(keys.codes.rows, values.codes.rows)) {
    refuse(`fewer than ${coded} positions are in codes`)
  }
  if (values.turn) refuse('values have no positions to be turned by')
  if (keys.turn) checkTurn(keys.turn, coded, headSize)
  return fresh
}

/** Attention over keys and values in codes, against attention over what they decode to. */

import { type CodedRows, seededRandom, type Tensor } from '@lowbit/core'
import { randomValues } from '../../random.ts'
import { expectClose, type Side } from './bench.ts'

/** Rows of queries, rows in codes, rows behind these that are not, heads on so many of a size. */
export type AttentionSizes = readonly [
  rows: number,
  coded: number,
  before: number,
  heads: number,
  keyValueHeads: number,
  headSize: number,
]

export interface DecodedAttention {
  readonly scale?: number
  /** As expectClose has it. */
  readonly tolerance?: number
  /** What attention does to keys beyond decoding them. */
  readonly turn?: (keys: Tensor) => void
}

export async function expectAttendsAsDecoded(
  { kernels, up, zeros }: Side,
  [keys, values]: readonly CodedRows[],
  [rows, coded, before, heads, keyValueHeads, headSize]: AttentionSizes,
  { scale = 0.3, tolerance = 2e-5, turn }: DecodedAttention = {},
): Promise<void> {
  const width = keyValueHeads * headSize
  const fresh = before + rows
  const random = seededRandom(1 + 2 * (coded + rows))
  const query = up(randomValues(rows * heads * headSize, random), rows, heads * headSize)
  const now = [0, 1].map(() => up(randomValues(fresh * width, random), fresh, width))
  const dense = [keys, values].map((past, i) => {
    const all = zeros(coded + fresh, width)
    const decoded = kernels.rows(all, 0, coded)
    kernels.decodeRows(decoded, past, 0)
    if (past === keys) turn?.(decoded)
    kernels.copy(kernels.rows(all, coded, coded + fresh), now[i])
    return all
  })
  const shape = { heads, keyValueHeads, headSize, scale, start: coded + before }
  const [out, expected] = [0, 1].map(() => zeros(rows, heads * headSize))
  kernels.attendCoded(out, query, keys, values, coded, now[0], now[1], shape)
  kernels.attention(expected, query, dense[0], dense[1], shape)
  const what = 'attention over codes'
  expectClose(await kernels.read(out), await kernels.read(expected), what, tolerance, headSize)
}

/** Random matrices whose codes stand for several weights. */

import { type Blocks, blockCount, packCodes, type Stage, toNumbers } from '@lowbit/core'
import { type Random, randomIntegers, randomValues } from '../random.ts'

export interface CodebookOptions {
  readonly length: number
  readonly along: 'in' | 'out'
  readonly entries: number
  /** Blocks with a table of their own. */
  readonly blocks?: Blocks
  /** Tables of 8-bit integers with a factor each. */
  readonly integers?: boolean
  readonly deviation?: number
  /** A name under which other matrices may share the tables. */
  readonly shared?: string
  /** The stored columns that the stage covers. */
  readonly columns?: readonly [number, number]
}

/** A stage of random vectors over the columns that it covers. */
export function codebookStage(
  rows: number,
  columns: number,
  random: Random,
  options: CodebookOptions,
): Stage {
  const { length, along, entries, blocks, integers, deviation = 0.05 } = options
  const [from, to] = options.columns ?? [0, columns]
  const width = to - from
  const tables = blocks ? blockCount(blocks, rows, width) : 1
  const values = randomValues(tables * entries * length, random, integers ? 40 : deviation)
  const factors = Array.from({ length: tables }, () => (deviation / 40) * (0.5 + random()))
  const count = along === 'in' ? rows * Math.ceil(width / length) : Math.ceil(rows / length) * width
  const bits = Math.max(1, Math.ceil(Math.log2(entries)))
  return {
    ...(options.columns && { columns: options.columns }),
    codes: packCodes(randomIntegers(count, entries, random), bits),
    vector: { length, along },
    grid: {
      kind: 'codebook',
      entries,
      length,
      tables: toNumbers(integers ? 'i8' : 'f16', values),
      ...(integers && { tableScale: toNumbers('f32', factors) }),
      ...(blocks && { blocks }),
      ...(options.shared && { shared: options.shared }),
    },
  }
}

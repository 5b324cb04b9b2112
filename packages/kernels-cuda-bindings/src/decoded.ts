/** Products on tensor cores with weights in words, which are decoded on the way. See kernels/decoded.cu. */

import type { Arguments, Device, Span } from './driver/device.ts'
import { roundActivations } from './tiles.ts'

/** What weights and x become. */
export type Halves = 'f16' | 'bf16'

/** As in words.cuh. */
const KINDS = { f32: 0, f16: 1, bf16: 2, integer: 3, table: 4 } as const

/** Tokens and outputs of a block of few tokens, and of many. */
const FEW = { tokens: 16, outputs: 16 }
const MANY = { tokens: 64, outputs: 64 }

export interface DecodedWords {
  readonly kind: keyof typeof KINDS
  readonly rows: number
  readonly depth: number
  /** Stored columns that it begins at. */
  readonly from: number
  readonly args: Arguments
}

/** What the rows of a weight are divided by, so that halves hold them; bf16 does as they are. */
export function placeRowFactors(
  device: Device,
  { kind, rows, args }: DecodedWords,
  halves: Halves,
): Span | undefined {
  if (halves === 'bf16') return undefined
  const factors = device.allocate(rows * 8)
  device.run('row_factors', { ...args, factors, kind: KINDS[kind] }, rows)
  return factors
}

export function multiplyDecoded(
  device: Device,
  { kind, rows, depth, from, args }: DecodedWords,
  halves: Halves,
  rowFactors: Span | undefined,
  shape: { out: Span; x: Span; tokens: number; columns: number; keep: boolean },
): void {
  const { out, tokens, keep } = shape
  const few = tokens <= FEW.tokens
  const { tokens: each, outputs } = few ? FEW : MANY
  const rounding = { depth, from, seen: halves, each }
  roundActivations(device, rounding, shape, ({ q, factors, chunks }) => {
    device.run(
      `decoded_${halves}_${few ? 'few' : 'many'}`,
      {
        ...{ ...args, row_factors: rowFactors, q, factors, out, kind: KINDS[kind] },
        ...{ tokens, chunks, keep: keep ? 1 : 0 },
      },
      Math.ceil(rows / outputs) * Math.ceil(tokens / each),
    )
  })
}

/** A matrix's words in the memory of a device. */

import { isQuantized, type Matrix } from '../matrix/types.ts'
import type { PackedWords } from './pack.ts'
import type { WordPlan } from './plan.ts'

export interface PlacedWords<Span> {
  readonly parts: readonly PlacedPart<Span>[]
  /** Input feature of each stored column. */
  readonly order?: Span
  readonly columnScale?: Span
  readonly columnBias?: Span
  /** Of all spans. */
  readonly bytes: number
}

export type PlacedPart<Span> = Omit<PackedWords, 'words' | 'reach'> & { readonly span: Span }

/** Memory that words are written to. */
export interface WordMemory<Span> {
  place(values: Uint32Array | Float32Array): Span
  release(span: Span): void
}

/** Places all words of a plan, or none. The host keeps none of them. */
export function placeWords<Span>(
  matrix: Matrix,
  { packed, fused }: WordPlan,
  memory: WordMemory<Span>,
): PlacedWords<Span> {
  const spans: Span[] = []
  let bytes = 0
  const add = (values: Uint32Array | Float32Array): Span => {
    const span = memory.place(values)
    spans.push(span)
    bytes += values.byteLength
    return span
  }
  try {
    const parts = packed.map(({ words, reach: _, ...rest }) => ({ ...rest, span: add(words) }))
    const { order, columnScale, columnBias } = fused && isQuantized(matrix) ? matrix : {}
    return {
      parts,
      order: order && add(order),
      columnScale: columnScale && add(columnScale.values),
      columnBias: columnBias && add(columnBias.values),
      bytes,
    }
  } catch (error) {
    for (const span of spans) memory.release(span)
    throw error
  }
}

export function releaseWords<Span>(
  { parts, order, columnScale, columnBias }: PlacedWords<Span>,
  memory: WordMemory<Span>,
): void {
  for (const span of [...parts.map((part) => part.span), order, columnScale, columnBias]) {
    if (span !== undefined) memory.release(span)
  }
}

/**
 * A pass as the sum of what its parts take, each at what kernels were measured to reach: the roofline says what no
 * kernel exceeds, this says when one is done.
 */

import { type ModelOnPaper, rowsThrough } from './work.ts'

/** Products with weights of one kind. */
export interface AchievedProducts {
  /** Of each, however small: starting it, and bringing threads together. */
  readonly seconds: number
  /** Of one row with a weight: by the weight's bytes. */
  readonly secondsPerByte: number
  /** Of many rows: by the weight's bytes, which are expanded or packed once for all, … */
  readonly secondsPerByteExpanded: number
  /** … and by multiply-adds. */
  readonly secondsPerMac: number
}

/** All layers together. */
export interface AchievedAttention {
  /** Of one token: whatever is behind it, … */
  readonly seconds: number
  /** … and for each position behind it. */
  readonly secondsPerPosition: number
  /** Of many: for each, … */
  readonly secondsPerRow: number
  /** … and for each pair of one with a position that was there before, or came with it. */
  readonly secondsPerPair: number
}

export interface Achieved {
  /** By the kind of a `StoredMatrix`. */
  readonly products: ReadonlyMap<string, AchievedProducts>
  readonly attention: AchievedAttention
  /** Norms, RoPE and activations of all layers: of one token, and of each of many. */
  readonly others: { readonly seconds: number; readonly secondsPerRow: number }
  /** Starting a pass, and reading its logits back. */
  readonly secondsPerPass: number
}

/** What a pass's seconds go into. */
export interface PassParts {
  readonly weights: number
  readonly attention: number
  readonly others: number
}

export function partsOfPass(
  model: ModelOnPaper,
  { products, attention, others, secondsPerPass }: Achieved,
  past: number,
  count: number,
  makesLogits: boolean,
): PassParts {
  const { matrices, config, cache } = model
  const through = rowsThrough(model, count, makesLogits)
  let weights = 0
  for (const matrix of matrices) {
    const rows = through(matrix)
    const rates = products.get(matrix.kind)
    if (rows === 0 || !rates) continue
    const one = matrix.bytes * rates.secondsPerByte
    const many =
      matrix.bytes * rates.secondsPerByteExpanded +
      rows * matrix.rows * matrix.columns * rates.secondsPerMac
    weights += rates.seconds + (rows === 1 ? one : Math.max(one, many))
  }
  const seen = cache.size(config, past).tokens
  const pairs = count * seen + (count * (count + 1)) / 2
  return {
    weights,
    attention:
      count === 1
        ? attention.seconds + seen * attention.secondsPerPosition
        : count * attention.secondsPerRow + pairs * attention.secondsPerPair,
    others: secondsPerPass + (count === 1 ? others.seconds : count * others.secondsPerRow),
  }
}

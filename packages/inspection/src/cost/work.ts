/** What running a model comes to: bytes that are read, numbers that are expanded, multiply-adds. */

import type { CacheScheme, CacheShape, Matrix } from '@lowbit/core'
import type { DecoderConfig } from '@lowbit/model'

/** A matrix as it is stored. */
export interface StoredMatrix {
  readonly module: string
  readonly rows: number
  readonly columns: number
  readonly bytes: number
  /** Whether its numbers are in codes, which must be expanded. */
  readonly coded: boolean
  /** In words: matrices of one kind are run by the same kernels. */
  readonly kind: string
}

/** One pass of some tokens through the model. */
export interface Work {
  /** Weights that are read: each once, however many tokens there are. */
  readonly weightBytes: number
  /** Of the cache, read or written. */
  readonly cacheBytes: number
  /** Multiply-adds of matrices, … */
  readonly matrixMacs: number
  /** … and of queries with keys and of shares with values. */
  readonly attentionMacs: number
  /** Weights that are expanded from codes, once a pass, … */
  readonly codedWeights: number
  /** … and numbers of keys and values that are. */
  readonly codedNumbers: number
}

export interface ModelOnPaper {
  readonly config: DecoderConfig
  /** All matrices, and vectors as matrices of one row that nothing is multiplied with. */
  readonly matrices: readonly StoredMatrix[]
  readonly vectorBytes: number
  readonly cache: CacheScheme
  /** Of each kind the smallest and the largest of the blocks' matrices, for `calibrate`. */
  readonly samples: ReadonlyMap<string, readonly Matrix[]>
}

/** Everything that lies in memory while the model runs, activations left out. */
export function storedBytes({ matrices, vectorBytes }: ModelOnPaper): number {
  return vectorBytes + matrices.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Whether the embedding is the output matrix too. */
function isTied({ config, matrices }: ModelOnPaper): boolean {
  const { head } = config.architecture.modules
  return config.tied && !matrices.some(({ module }) => module === head)
}

/** How many rows meet each matrix when `count` tokens are run. */
export function rowsThrough(
  model: ModelOnPaper,
  count: number,
  makesLogits: boolean,
): (matrix: StoredMatrix) => number {
  const { embedding, head } = model.config.architecture.modules
  const output = isTied(model) ? embedding : head
  return ({ module }) => {
    if (module === output) return makesLogits ? 1 : 0
    return module === embedding ? 0 : count
  }
}

/**
 * `count` tokens behind `past` others, run at once. Of an embedding that is no output matrix too, only the tokens' rows
 * are read. Logits are made of the last token at most, as when text is generated. Norms, rotations and activations are
 * left out: they are a part in a thousand.
 */
export function workOf(model: ModelOnPaper, past: number, count: number, makesLogits = true): Work {
  const { config, cache } = model
  const { architecture, heads, headSize, layers } = config
  const through = rowsThrough(model, count, makesLogits)
  let [weightBytes, codedWeights, matrixMacs] = [model.vectorBytes, 0, 0]
  for (const matrix of model.matrices) {
    const { module, rows, columns, bytes, coded } = matrix
    const met = through(matrix)
    if (met > 0) {
      weightBytes += bytes
      if (coded) codedWeights += rows * columns
      matrixMacs += rows * columns * met
    } else if (module === architecture.modules.embedding && !isTied(model)) {
      weightBytes += (bytes / rows) * count
      if (coded) codedWeights += columns * count
    }
  }
  const shape: Omit<CacheShape, 'capacity'> = config
  const before = cache.size(shape, past)
  // Token i of them attends over what is kept of those before, itself and the i − 1 between.
  const seen = count * before.tokens + (count * (count + 1)) / 2
  return {
    weightBytes,
    cacheBytes: before.bytes + count * bytesOfOne(model),
    matrixMacs,
    attentionMacs: 2 * layers * heads * headSize * seen,
    codedWeights,
    codedNumbers: before.codedNumbers,
  }
}

/** The keys and values of one token as they are made, in f32. */
const bytesOfOne = ({ config }: ModelOnPaper): number =>
  config.layers * config.keyValueHeads * config.headSize * 2 * 4

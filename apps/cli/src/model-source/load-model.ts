/** A model in the kernels' memory, and its bits counted on the way. */

import {
  bitsPerWeight,
  type Checkpoint,
  isQuantized,
  type Kernels,
  measureMatrix,
} from '@lowbit/core'
import { linearsOfBlocks } from '@lowbit/inspection'
import { type Decoder, loadDecoder } from '@lowbit/model'
import type { Activations } from '../flags/device.ts'
import type { Session } from '../session.ts'
import type { OpenedModel } from './open-model.ts'

export interface LoadedModel {
  readonly decoder: Decoder
  /** Counted over what is quantized; over the linears of the blocks where nothing is. */
  readonly bitsPerWeight: number
}

export async function loadModel(
  model: OpenedModel,
  kernels: Kernels,
  activations: Activations,
  session: Session,
): Promise<LoadedModel> {
  const progress = session.progress(`loading ${model.name}`)
  const tally = tallied(model.checkpoint)
  try {
    const decoder = await loadDecoder(tally.checkpoint, kernels, {
      activations,
      signal: session.signal,
      onProgress: (done, total) => progress.update(done / total, `block ${done} of ${total}`),
    })
    // Everything that runs is in memory now.
    await model.checkpoint.close()
    return { decoder, bitsPerWeight: tally.bitsPerWeight() }
  } finally {
    progress.end()
  }
}

/** Passes a checkpoint on and counts the bits of every matrix that is read. */
function tallied(checkpoint: Checkpoint): { checkpoint: Checkpoint; bitsPerWeight(): number } {
  const inBlocks = new Set(linearsOfBlocks(checkpoint))
  /** Tables that several matrices share count once. */
  const counted = new Set<string>()
  const counts = { quantized: { bits: 0, weights: 0 }, dense: { bits: 0, weights: 0 } }
  return {
    checkpoint: {
      ...checkpoint,
      async readMatrix(module) {
        const matrix = await checkpoint.readMatrix(module)
        const kind = isQuantized(matrix) ? 'quantized' : 'dense'
        if (kind === 'quantized' || inBlocks.has(module)) {
          const weights = matrix.rows * matrix.columns
          counts[kind].weights += weights
          counts[kind].bits += isQuantized(matrix)
            ? measureMatrix(matrix, counted).total
            : weights * bitsPerWeight([matrix])
        }
        return matrix
      },
    },
    bitsPerWeight() {
      const { bits, weights } = counts.quantized.weights > 0 ? counts.quantized : counts.dense
      return weights > 0 ? bits / weights : 0
    },
  }
}

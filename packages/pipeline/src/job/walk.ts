/** A block on its way through the calibration set, step by step. */

import type { Tensor } from '@lowbit/core'
import { type Attend, type Block, type BlockContext, type Opened, STEPS } from '@lowbit/model'
import { breathe } from './breathe.ts'

export interface Walk {
  readonly opened: Opened
  readonly context: BlockContext
  readonly block: Block
  readonly attend: Attend
  /** The residual stream of each calibration window, changed in place. */
  readonly streams: readonly Tensor[]
  /**
   * Bytes that the streams and the inputs kept from one step to the next may take together; the rest of the
   * inputs is computed a second time.
   */
  readonly keptBytes: number
  readonly signal?: AbortSignal
  /** Inputs of the step at hand that were kept when the step before ran, by window. */
  kept: (Tensor | undefined)[]
}

/** The input of a step for window i, and whether the caller has to free it. */
export function stepInput(walk: Walk, index: number, i: number): { input: Tensor; own: boolean } {
  const kept = walk.kept[i]
  return kept
    ? { input: kept, own: false }
    : { input: computeInput(walk, index, walk.streams[i]), own: true }
}

function computeInput(walk: Walk, index: number, x: Tensor): Tensor {
  const { opened, context, block, attend } = walk
  const { kernels, config } = opened
  const step = STEPS[index]
  const input = kernels.tensor(x.rows, step.inputSize(config))
  if (step.enter) {
    step.enter(context, block, input, x)
  } else {
    const before = computeInput(walk, index - 1, x)
    STEPS[index - 1].run(context, block, before, x, input, attend)
    kernels.free(before)
  }
  return input
}

/**
 * Runs a step with the block's linears on every window. A step at the end of a path adds to the residual
 * stream; one in the middle leaves the next step's inputs, as many as may be kept.
 */
export async function runStep(walk: Walk, index: number): Promise<void> {
  const { opened, context, block, attend, streams, signal } = walk
  const { kernels, config } = opened
  const following = STEPS[index + 1]
  const inTheMiddle = following !== undefined && following.enter === undefined
  const next: (Tensor | undefined)[] = []
  let bytes = streams.reduce((sum, x) => sum + 4 * x.rows * x.columns, 0)
  for (const [i, x] of streams.entries()) {
    if (inTheMiddle) {
      bytes += 4 * x.rows * following.inputSize(config)
      next.push(bytes <= walk.keptBytes ? computeInput(walk, index + 1, x) : undefined)
    } else {
      const { input } = stepInput(walk, index, i)
      STEPS[index].run(context, block, input, x, undefined, attend)
      kernels.free(input)
    }
    await breathe()
    signal?.throwIfAborted()
  }
  walk.kept = next
}

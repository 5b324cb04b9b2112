/**
 * All Hessians of a block at once, from its original weights: what GPTQ does without `trueSequential`. Every
 * linear then runs twice, and later steps do not see what earlier ones lost; kept for comparison.
 */

import type { Tensor } from '@lowbit/core'
import {
  attendWithin,
  type BlockContext,
  loadBlock,
  type Opened,
  runBlock,
  STEPS,
  unloadBlock,
} from '@lowbit/model'
import { breathe } from './breathe.ts'

export async function blockHessians(
  opened: Opened,
  context: BlockContext,
  layer: number,
  streams: readonly Tensor[],
  signal?: AbortSignal,
): Promise<Tensor[]> {
  const { kernels, config } = opened
  const block = await loadBlock(opened, layer)
  const hessians = STEPS.map((step) => {
    const size = step.inputSize(config)
    return kernels.tensor(size, size)
  })
  const tokens = streams.reduce((sum, { rows }) => sum + rows, 0)
  for (const stream of streams) {
    signal?.throwIfAborted()
    const x = kernels.tensor(stream.rows, stream.columns)
    kernels.copy(x, stream)
    runBlock(context, block, x, attendWithin(context), (index, input) =>
      kernels.gram(hessians[index], input, 1 / tokens),
    )
    kernels.free(x)
    await breathe()
  }
  unloadBlock(kernels, block)
  return hessians
}

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
  STEPS,
  unloadBlock,
} from '@lowbit/model'

export async function blockHessians(
  opened: Opened,
  context: BlockContext,
  layer: number,
  streams: readonly Tensor[],
): Promise<Tensor[]> {
  const { kernels, config } = opened
  const block = await loadBlock(opened, layer)
  const attend = attendWithin(context)
  const hessians = STEPS.map((step) => {
    const size = step.inputSize(config)
    return kernels.tensor(size, size)
  })
  const tokens = streams.reduce((sum, { rows }) => sum + rows, 0)
  for (const stream of streams) {
    const x = kernels.tensor(stream.rows, stream.columns)
    kernels.copy(x, stream)
    let input: Tensor | undefined
    for (const [index, step] of STEPS.entries()) {
      const here = input ?? kernels.tensor(x.rows, step.inputSize(config))
      step.enter?.(context, block, here, x)
      kernels.gram(hessians[index], here, 1 / tokens)
      const following = STEPS[index + 1]
      const next =
        following && !following.enter
          ? kernels.tensor(x.rows, following.inputSize(config))
          : undefined
      step.run(context, block, here, x, next, attend)
      kernels.free(here)
      input = next
    }
    kernels.free(x)
  }
  unloadBlock(kernels, block)
  return hessians
}

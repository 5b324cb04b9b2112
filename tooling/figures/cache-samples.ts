/** Keys and values of texts with their Fisher information: the squares of what a next-token loss says about them. */

import type { CacheSample, Kernels, Tensor } from '@lowbit/core'
import {
  attendWithin,
  backwardBlock,
  backwardHead,
  freeTrace,
  loadBlock,
  loadEmbedding,
  loadFinalNorm,
  loadHead,
  loadRope,
  type openDecoder,
  runBlock,
  traceBlock,
  unloadBlock,
} from '@lowbit/model'

export interface LayerSample {
  readonly layer: number
  readonly keys: CacheSample
  readonly values: CacheSample
}

/** What a tensor's numbers are taken as, gradients likewise: read as they are, or turned first. */
export type Read = (x: Tensor) => Promise<Float32Array>

/** Of all layers, the last one first; the loss is the sum of the text's cross-entropies. */
export async function cacheSamples(
  opened: ReturnType<typeof openDecoder>,
  kernels: Kernels,
  ids: readonly number[],
  read: Read,
): Promise<LayerSample[]> {
  const { config } = opened
  const width = config.keyValueHeads * config.headSize
  const rope = loadRope(opened, ids.length)
  const run = { kernels, config, ...rope }
  const embedding = await loadEmbedding(opened)
  const stream = kernels.tensor(ids.length, config.hidden)
  kernels.gather(stream, embedding, Uint32Array.from(ids))
  const inputs: Tensor[] = []
  for (let layer = 0; layer < config.layers; layer++) {
    const input = kernels.tensor(stream.rows, stream.columns)
    kernels.copy(input, stream)
    inputs.push(input)
    const block = await loadBlock(opened, layer)
    runBlock(run, block, stream, attendWithin(run))
    unloadBlock(kernels, block)
  }
  const output = await loadHead(opened, embedding)
  const finalNorm = await loadFinalNorm(opened)
  const targets = Uint32Array.from(ids.slice(1))
  const scored = kernels.rows(stream, 0, targets.length)
  const part = backwardHead(run, { finalNorm, output }, scored, (logits, from) => {
    const here = targets.subarray(from, from + logits.rows)
    kernels.crossEntropyGradient(logits, logits, here, 1)
  })
  const gradient = kernels.tensor(stream.rows, stream.columns)
  kernels.copy(kernels.rows(gradient, 0, targets.length), part)
  kernels.free(part, stream)
  if (output !== embedding) kernels.unload(output)
  kernels.unload(embedding)
  async function sample(x: Tensor, slope: Tensor): Promise<CacheSample> {
    const [numbers, slopes] = await Promise.all([x, slope].map(read))
    return { numbers, weights: slopes.map((value) => value ** 2), width }
  }
  const found: LayerSample[] = []
  for (let layer = config.layers - 1; layer >= 0; layer--) {
    const block = await loadBlock(opened, layer)
    const trace = traceBlock(run, block, inputs[layer])
    const reads: Promise<void>[] = []
    backwardBlock(run, block, trace, gradient, {
      onKeysAndValues(keys, values) {
        const both = [sample(trace.k, keys), sample(trace.v, values)] as const
        reads.push(
          Promise.all(both).then(([k, v]) => void found.push({ layer, keys: k, values: v })),
        )
      },
    })
    await Promise.all(reads)
    freeTrace(kernels, trace)
    kernels.free(inputs[layer])
    unloadBlock(kernels, block)
  }
  kernels.free(gradient, rope.cos, rope.sin)
  return found
}

/** What arrives at a linear: the mean square of each of its inputs, which is the Hessian's diagonal. */

import type { Tensor } from '@lowbit/core'
import { placesOf } from '@lowbit/inspection'
import {
  type BlockTrace,
  calibrationWindows,
  decoderConfig,
  firstTokens,
  freeTrace,
  loadBlock,
  loadEmbedding,
  loadRope,
  loadTokenizer,
  openDecoder,
  traceBlock,
  unloadBlock,
} from '@lowbit/model'
import { demoText } from './demo.ts'
import { openKernels } from './kernels.ts'
import { openModel } from './models.ts'
import type { ModelSource } from './protocol.ts'

const WINDOWS = 2
const TOKENS = 512

/** By the role of the linear, as tables name it. */
const INPUTS: Readonly<Record<string, (trace: BlockTrace) => Tensor>> = {
  q: ({ attentionInput }) => attentionInput,
  k: ({ attentionInput }) => attentionInput,
  v: ({ attentionInput }) => attentionInput,
  o: ({ attended }) => attended,
  gate: ({ mlpInput }) => mlpInput,
  up: ({ mlpInput }) => mlpInput,
  down: ({ activated }) => activated,
}

/** @returns [columns], over two windows of the text */
export async function inputPower(
  source: ModelSource,
  module: string,
  text: string | undefined,
  signal: AbortSignal,
): Promise<Float32Array> {
  const { checkpoint } = await openModel(source)
  const kernels = await openKernels('cpu', false)
  try {
    const place = placesOf(checkpoint).find((one) => one.module === module)!
    const length = Math.min(TOKENS, decoderConfig(checkpoint.config).context)
    const tokenizer = await loadTokenizer(checkpoint)
    const tokens = firstTokens(tokenizer, text ?? (await demoText('calibration')), WINDOWS * length)
    const windows = calibrationWindows(tokens, WINDOWS, length)
    const opened = openDecoder(checkpoint, kernels)
    const { config } = opened
    const context = { kernels, config, ...loadRope(opened, length) }
    const embedding = await loadEmbedding(opened)
    const streams = windows.map((window) => {
      const x = kernels.tensor(window.length, config.hidden)
      kernels.gather(x, embedding, Uint32Array.from(window))
      return x
    })
    kernels.unload(embedding)
    const sums = new Float64Array(place.columns)
    for (let layer = 0; layer <= place.layer; layer++) {
      const block = await loadBlock(opened, layer)
      for (const x of streams) {
        signal.throwIfAborted()
        const trace = traceBlock(context, block, x)
        if (layer === place.layer) {
          const values = (await kernels.read(INPUTS[place.role](trace))) as Float32Array
          for (let i = 0; i < values.length; i++) sums[i % place.columns] += values[i] ** 2
        }
        freeTrace(kernels, trace)
      }
      unloadBlock(kernels, block)
    }
    const all = windows.reduce((sum, window) => sum + window.length, 0)
    return Float32Array.from(sums, (sum) => sum / all)
  } finally {
    kernels.dispose()
    await checkpoint.close()
  }
}

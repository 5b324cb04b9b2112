/** SmolLM2's linears as tensors, and what its first block's see of a calibration text. */

import { readFile } from 'node:fs/promises'
import path from 'node:path'
import type { Checkpoint, Kernels, Matrix, Tensor } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import {
  attendWithin,
  blockNames,
  calibrationWindows,
  loadBlock,
  loadEmbedding,
  loadRope,
  loadTokenizer,
  openDecoder,
  runBlock,
  STEPS,
  unloadBlock,
} from '@lowbit/model'
import { type Settings, smollm2Folder } from '../settings.ts'

const WINDOW = 2048

export function openSmollm2(settings: Settings): Promise<Checkpoint> {
  return openFolder(nodeFolder(path.join(smollm2Folder(settings), 'hf')))
}

/** The modules of some blocks' linears, block by block. */
export function linearNames(checkpoint: Checkpoint, kernels: Kernels, blocks?: number): string[] {
  const { config } = openDecoder(checkpoint, kernels)
  return Array.from({ length: blocks ?? config.layers }, (_, layer) => [
    ...blockNames(config.architecture, layer).modules.values(),
  ]).flat()
}

export function dense(kernels: Kernels, matrix: Matrix): Tensor {
  const source = kernels.load(matrix)
  const weight = kernels.tensor(source.rows, source.columns)
  kernels.gather(weight, source)
  kernels.unload(source)
  return weight
}

/** Σ x xᵀ / tokens of the inputs of each linear of block 0, as the model is. */
export async function firstBlockHessians(
  { calibration, windows = 8 }: Settings,
  checkpoint: Checkpoint,
  kernels: Kernels,
): Promise<ReadonlyMap<string, Tensor>> {
  if (!calibration) throw new Error('needs --calibration FILE or LOWBIT_CALIBRATION')
  const opened = openDecoder(checkpoint, kernels)
  const { config } = opened
  const tokenizer = await loadTokenizer(checkpoint)
  const text = (await readFile(calibration, 'utf8')).slice(0, windows * WINDOW * 8)
  const tokens = calibrationWindows(tokenizer.encode(text), windows, WINDOW)
  const context = { kernels, config, ...loadRope(opened, WINDOW) }
  const embedding = await loadEmbedding(opened)
  const block = await loadBlock(opened, 0)
  const hessians = STEPS.map((step) => {
    const size = step.inputSize(config)
    return kernels.tensor(size, size)
  })
  const total = tokens.reduce((sum, { length }) => sum + length, 0)
  for (const window of tokens) {
    const x = kernels.tensor(window.length, config.hidden)
    kernels.gather(x, embedding, Uint32Array.from(window))
    runBlock(context, block, x, attendWithin(context), (step, input) =>
      kernels.gram(hessians[step], input, 1 / total),
    )
    kernels.free(x)
  }
  unloadBlock(kernels, block)
  kernels.unload(embedding)
  const { modules } = blockNames(config.architecture, 0)
  return new Map(
    STEPS.flatMap(({ roles }, step) =>
      roles.flatMap((role) => {
        const module = modules.get(role)
        return module ? [[module, hessians[step]] as const] : []
      }),
    ),
  )
}

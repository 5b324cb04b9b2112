/**
 * What each matrix loses at each number of bits: the squared error of its weights, each column's weighed by the mean
 * square of its input (diag H), from one pass of the calibration text through the original model, as a share of the
 * same sum of the weights themselves, times their number. (Norms before every layer make signals alike: without the share the first
 * blocks, whose signals are small, are starved.) A quantizer gets the
 * diagonal as its Hessian, so that methods with error feedback have nothing to feed back: rounding is plain, as is
 * the loss.
 */

import {
  type Checkpoint,
  type Kernels,
  measureMatrix,
  type Quantizer,
  seedFor,
  type Tensor,
} from '@lowbit/core'
import {
  attendWithin,
  type BlockContext,
  blockNames,
  loadBlock,
  loadRope,
  type Opened,
  openDecoder,
  type Role,
  readChecked,
  roleShape,
  runBlock,
  STEPS,
  unloadBlock,
} from '@lowbit/model'
import type { Choice, Sensitivity } from '../recipe/allocate.ts'
import { breathe } from './breathe.ts'
import { embedWindows } from './embed.ts'

export interface SensitivityJob {
  readonly checkpoint: Checkpoint
  readonly kernels: Kernels
  /** Linears of blocks to be measured. */
  readonly modules: ReadonlySet<string>
  readonly candidates: readonly { readonly bits: number; readonly quantizer: Quantizer }[]
  /** Windows of calibration tokens; without any, all inputs count the same. */
  readonly windows: readonly (readonly number[])[]
  readonly seed: number
  readonly signal?: AbortSignal
  /** Says how far it is, 0 … 1. */
  onProgress?(done: number, module: string): void
}

export async function measureSensitivity(job: SensitivityJob): Promise<Sensitivity[]> {
  const { kernels, windows, modules, signal } = job
  const opened = openDecoder(job.checkpoint, kernels)
  const { config } = opened
  const longest = Math.max(1, ...windows.map(({ length }) => length))
  const context: BlockContext = { kernels, config, ...loadRope(opened, longest) }
  const streams = windows.length > 0 ? await embedWindows(opened, windows) : []
  const found: Sensitivity[] = []
  try {
    for (let layer = 0; layer < config.layers; layer++) {
      const names = blockNames(config.architecture, layer).modules
      const diagonals = await inputPowers(opened, context, layer, streams, signal)
      for (const [role, module] of names) {
        if (!modules.has(module)) continue
        signal?.throwIfAborted()
        const step = STEPS.findIndex(({ roles }) => roles.includes(role))
        found.push(await measureMatrixLoss(job, opened, role, module, diagonals[step]))
        job.onProgress?.(found.length / modules.size, module)
        await breathe()
      }
    }
  } finally {
    kernels.free(...streams, context.cos, context.sin)
  }
  return found
}

/** diag(H) of each step's inputs; the streams leave the block as its outputs. */
async function inputPowers(
  opened: Opened,
  context: BlockContext,
  layer: number,
  streams: readonly Tensor[],
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  const { kernels, config } = opened
  const sizes = STEPS.map((step) => step.inputSize(config))
  if (streams.length === 0) return sizes.map((size) => new Float32Array(size).fill(1))
  const powers = sizes.map((size) => new Float64Array(size))
  const tokens = streams.reduce((sum, { rows }) => sum + rows, 0)
  const block = await loadBlock(opened, layer)
  for (const x of streams) {
    signal?.throwIfAborted()
    const moments = sizes.map((size) => kernels.tensor(4, size))
    runBlock(context, block, x, attendWithin(context), (index, input) =>
      kernels.columnMoments(moments[index], input),
    )
    for (const [index, moment] of moments.entries()) {
      // The second row holds the means of squares.
      const squares = (await kernels.read(moment)).subarray(sizes[index], 2 * sizes[index])
      for (const [i, square] of squares.entries()) {
        powers[index][i] += (square * x.rows) / tokens
      }
    }
    kernels.free(...moments)
    await breathe()
  }
  unloadBlock(kernels, block)
  return powers.map((power) => Float32Array.from(power))
}

async function measureMatrixLoss(
  job: SensitivityJob,
  { checkpoint, kernels, config }: Opened,
  role: Role,
  module: string,
  diagonal: Float32Array,
): Promise<Sensitivity> {
  const original = await readChecked(checkpoint, module, roleShape(config, role))
  const { rows, columns } = original
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  const full = new Float32Array(columns * columns)
  for (const [i, power] of diagonal.entries()) full[i * columns + i] = power
  try {
    const hessian = own(kernels.upload(full, columns, columns))
    const roots = own(kernels.upload(diagonal.map(Math.sqrt), 1, columns))
    const [dense, working, weighed] = [0, 1, 2].map(() => own(kernels.tensor(rows, columns)))
    const source = kernels.load(original)
    kernels.gather(dense, source)
    kernels.unload(source)
    kernels.scale(weighed, dense, { columns: roots })
    const power = await kernels.distance(weighed, undefined)
    const choices: Choice[] = []
    for (const { bits, quantizer } of job.candidates) {
      kernels.copy(working, dense)
      const matrix = await quantizer.quantize({
        ...{ name: `${module}.weight`, weight: working, kernels, seed: seedFor(job.seed, module) },
        ...{ ...(quantizer.needs.hessian && { hessian }), signal: job.signal },
      })
      const weight = kernels.load(matrix)
      kernels.gather(working, weight)
      kernels.unload(weight)
      kernels.scale(working, working, { columns: roots })
      const lost = await kernels.distance(weighed, working)
      const share = power > 0 ? lost / power : 0
      choices.push({ bits, size: measureMatrix(matrix).total, loss: share * rows * columns })
    }
    return { module, weights: rows * columns, choices }
  } finally {
    kernels.free(...owned)
  }
}

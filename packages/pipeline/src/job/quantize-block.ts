/**
 * Quantizes one block in true-sequential order with one pass over the calibration set: the linears of a
 * step are quantized when their input is known, and the input of the next step is computed with the
 * quantized ones. A norm's output is computed again when it is needed, which is cheaper than keeping
 * it; other inputs are kept up to a limit, so that only the residual stream grows with the
 * calibration set.
 */

import {
  bitsPerWeight,
  type Entry,
  type Executor,
  isQuantized,
  type Matrix,
  type Quantizer,
  seedFor,
  type Tensor,
  type Weight,
} from '@lowbit/core'
import {
  type Attend,
  attendWithin,
  type Block,
  type BlockContext,
  blockNames,
  loadBias,
  loadBlockFrame,
  type Opened,
  type Role,
  readChecked,
  roleShape,
  STEPS,
  unloadBlock,
} from '@lowbit/model'
import type { Assignment } from '../recipe/resolve.ts'
import { blockHessians } from './block-hessians.ts'
import { breathe } from './breathe.ts'
import type { ModuleReport } from './report.ts'

export interface BlockJob {
  readonly opened: Opened
  readonly context: BlockContext
  readonly layer: number
  readonly quantizers: Assignment
  readonly executor: Executor
  readonly seed: number
  /** Whether each step is calibrated on the outputs of the quantized steps before it. */
  readonly trueSequential: boolean
  /** The residual stream of each calibration window, changed in place; empty when no one needs it. */
  readonly streams: readonly Tensor[]
  /**
   * Bytes that the streams and the inputs kept from one step to the next may take together; the rest
   * of the inputs is computed a second time.
   */
  readonly keptBytes: number
  readonly signal?: AbortSignal
  onStep?(what: string, share: number): void
  onModule?(report: ModuleReport, seconds: number): void
}

export interface QuantizedBlock {
  readonly entries: Entry[]
  readonly reports: ModuleReport[]
}

export async function quantizeBlock(job: BlockJob): Promise<QuantizedBlock> {
  const { opened, context, layer, streams, signal } = job
  const { kernels, config } = opened
  const names = blockNames(config.architecture, layer).modules
  const block = await loadBlockFrame(opened, layer)
  const entries: Entry[] = []
  const reports: ModuleReport[] = []
  const asks = [...names.values()].some((module) => job.quantizers.get(module)?.needs.hessian)
  const early =
    !job.trueSequential && asks && streams.length > 0
      ? await blockHessians(opened, context, layer, streams, signal)
      : undefined
  const walk: Walk = { ...job, block, attend: attendWithin(context), kept: [] }
  for (const [index, step] of STEPS.entries()) {
    signal?.throwIfAborted()
    const roles = step.roles.filter((role) => names.has(role))
    const label = roles.map((role) => names.get(role)!.split('.').at(-1)).join(', ')
    job.onStep?.(`calibrating ${label}`, index / STEPS.length)
    const hessian =
      early?.[index] ??
      (needsHessian(job, roles, names) ? await measureHessian(walk, index) : undefined)
    job.onStep?.(`quantizing ${label}`, (index + 0.5) / STEPS.length)
    const done = await job.executor.run(
      roles.map((role) => () => quantizeRole(job, block, role, names.get(role)!, hessian)),
      signal,
    )
    for (const { entry, report } of done) {
      entries.push(entry)
      if (report) reports.push(report)
    }
    if (hessian) kernels.free(hessian)
    if (streams.length > 0) {
      job.onStep?.(`running ${label}`, (index + 0.6) / STEPS.length)
      await runStep(walk, index)
    }
  }
  unloadBlock(kernels, block)
  return { entries, reports }
}

function needsHessian(
  { quantizers, streams }: BlockJob,
  roles: readonly Role[],
  names: ReadonlyMap<Role, string>,
): boolean {
  return streams.length > 0 && roles.some((role) => quantizers.get(names.get(role)!)?.needs.hessian)
}

/** A block on its way through the calibration set. */
interface Walk extends BlockJob {
  readonly block: Block
  readonly attend: Attend
  /** Inputs of the step at hand that were kept when the step before ran, by window. */
  kept: (Tensor | undefined)[]
}

/** The input of a step for one window, which the caller frees. */
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

/** H = Σ x xᵀ / tokens over the calibration set. */
async function measureHessian(walk: Walk, index: number): Promise<Tensor> {
  const { kernels, config } = walk.opened
  const size = STEPS[index].inputSize(config)
  const hessian = kernels.tensor(size, size)
  const tokens = walk.streams.reduce((sum, { rows }) => sum + rows, 0)
  for (const [i, x] of walk.streams.entries()) {
    walk.signal?.throwIfAborted()
    const kept = walk.kept[i]
    const input = kept ?? computeInput(walk, index, x)
    kernels.gram(hessian, input, 1 / tokens)
    if (!kept) kernels.free(input)
    await breathe()
  }
  return hessian
}

/**
 * Runs a step with its quantized linears on every window. A step at the end of a path adds to the
 * residual stream; one in the middle leaves the next step's inputs, as many as may be kept.
 */
async function runStep(walk: Walk, index: number): Promise<void> {
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
      const input = walk.kept[i] ?? computeInput(walk, index, x)
      STEPS[index].run(context, block, input, x, undefined, attend)
      kernels.free(input)
    }
    await breathe()
    signal?.throwIfAborted()
  }
  walk.kept = next
}

async function quantizeRole(
  job: BlockJob,
  block: Block,
  role: Role,
  module: string,
  hessian: Tensor | undefined,
): Promise<{ entry: Entry; report?: ModuleReport }> {
  const { opened } = job
  const { kernels, config, checkpoint } = opened
  const shape = roleShape(config, role)
  const original = await readChecked(checkpoint, module, shape)
  const quantizer = job.quantizers.get(module)
  let matrix: Matrix = original
  let weight: Weight | undefined
  let report: ModuleReport | undefined
  if (quantizer) {
    const started = performance.now()
    const done = await quantizeMatrix({ ...job, kernels, quantizer, module, original, hessian })
    ;({ matrix, weight, report } = done)
    job.onModule?.(done.report, (performance.now() - started) / 1000)
  }
  // Only whoever runs the block needs it in the kernels' memory.
  if (job.streams.length > 0) {
    block.linears[role] = {
      weight: weight ?? kernels.load(matrix),
      bias: await loadBias(opened, module, shape[0]),
    }
  } else if (weight) {
    kernels.unload(weight)
  }
  return { entry: { module, matrix }, report }
}

export interface MatrixJob {
  readonly kernels: Opened['kernels']
  readonly quantizer: Quantizer
  readonly module: string
  readonly original: Matrix
  readonly hessian?: Tensor
  readonly seed: number
  readonly signal?: AbortSignal
}

/** One matrix through its quantizer, and what that did to it. `weight` is it packed, for the caller to unload. */
export async function quantizeMatrix(
  job: MatrixJob,
): Promise<{ matrix: Matrix; weight: Weight; report: ModuleReport }> {
  const { kernels, quantizer, module, original, hessian } = job
  const { rows, columns } = original
  const source = kernels.load(original)
  const dense = kernels.tensor(rows, columns)
  kernels.gather(dense, source)
  const matrix = await quantizer.quantize({
    name: `${module}.weight`,
    weight: dense,
    hessian,
    kernels,
    seed: seedFor(job.seed, module),
    signal: job.signal,
  })
  // The quantizer may have overwritten it.
  kernels.gather(dense, source)
  kernels.unload(source)
  const weight = kernels.load(matrix)
  const decoded = kernels.tensor(rows, columns)
  kernels.gather(decoded, weight)
  const lost = await kernels.distance(dense, decoded, hessian)
  const power = await kernels.distance(dense, undefined, hessian)
  kernels.free(dense, decoded)
  return {
    matrix,
    weight,
    report: {
      module,
      method: quantizer.name,
      label: quantizer.label,
      rows,
      columns,
      bits: isQuantized(matrix) ? bitsPerWeight([matrix]) : 16,
      error: power > 0 ? lost / power : 0,
      errorOf: hessian ? 'output' : 'weight',
    },
  }
}

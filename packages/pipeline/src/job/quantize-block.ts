/**
 * Quantizes one block in true-sequential order with one pass over the calibration set: the linears of a
 * step are quantized when their input is known, and the input of the next step is computed with the
 * quantized ones. A norm's output is computed again when it is needed, which is cheaper than keeping
 * it; other inputs are kept up to a limit, so that only the residual stream grows with the
 * calibration set.
 */

import {
  type Entry,
  type Executor,
  isQuantized,
  type Matrix,
  measureMatrix,
  type Quantizer,
  seedFor,
  sharedTables,
  type Tensor,
  type Weight,
} from '@lowbit/core'
import {
  attendWithin,
  type Block,
  type BlockContext,
  blockNames,
  loadBias,
  loadBlock,
  loadBlockFrame,
  type Opened,
  type Role,
  readChecked,
  roleShape,
  STEPS,
  unloadBlock,
} from '@lowbit/model'
import type { Assignment } from '../recipe/resolve.ts'
import { type Aim, aimWeight, freeMeasured, type Measured, measureStep } from './aim.ts'
import { blockHessians } from './block-hessians.ts'
import type { ModuleReport } from './report.ts'
import { runStep, type Walk } from './walk.ts'

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
  /** The same through the original model, when weights are aimed at its outputs; else empty. */
  readonly originals: readonly Tensor[]
  /** The Fisher information of a module that asks for it; whoever reads it frees it. */
  fisher(module: string): Promise<Tensor>
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
  const attend = attendWithin(context)
  const walk: Walk = { ...job, block, attend, kept: [] }
  const { originals } = job
  const original: Walk | undefined =
    originals.length > 0
      ? { ...job, streams: originals, block: await loadBlock(opened, layer), attend, kept: [] }
      : undefined
  for (const [index, step] of STEPS.entries()) {
    signal?.throwIfAborted()
    const roles = step.roles.filter((role) => names.has(role))
    const label = roles.map((role) => names.get(role)!.split('.').at(-1)).join(', ')
    job.onStep?.(`calibrating ${label}`, index / STEPS.length)
    const measured = early?.[index]
      ? { hessian: early[index] }
      : needsHessian(job, roles, names)
        ? await measureStep(walk, original, index)
        : undefined
    job.onStep?.(`quantizing ${label}`, (index + 0.5) / STEPS.length)
    const done = await job.executor.run(
      roles.map((role) => () => quantizeRole(job, block, role, names.get(role)!, measured)),
      signal,
    )
    for (const { entry, report } of done) {
      entries.push(entry)
      if (report) reports.push(report)
    }
    if (measured) freeMeasured(kernels, measured)
    if (streams.length > 0) {
      job.onStep?.(`running ${label}`, (index + 0.6) / STEPS.length)
      await runStep(walk, index)
      if (original) await runStep(original, index)
    }
  }
  unloadBlock(kernels, block)
  if (original) unloadBlock(kernels, original.block)
  return { entries, reports }
}

function needsHessian(
  { quantizers, streams }: BlockJob,
  roles: readonly Role[],
  names: ReadonlyMap<Role, string>,
): boolean {
  return streams.length > 0 && roles.some((role) => quantizers.get(names.get(role)!)?.needs.hessian)
}

async function quantizeRole(
  job: BlockJob,
  block: Block,
  role: Role,
  module: string,
  measured: Measured | undefined,
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
    const fisher = quantizer.needs.fisher ? await job.fisher(module) : undefined
    const done = await quantizeMatrix({
      ...{ ...job, kernels, quantizer, module, original, fisher },
      // A method that asks for no measurements means the weight as it is.
      ...(quantizer.needs.hessian && measured),
    })
    if (fisher) kernels.free(fisher)
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

/** Bits per weight of the matrix alone, and what it shares. */
function countedBits(matrix: Matrix): Pick<ModuleReport, 'bits' | 'shared'> {
  if (!isQuantized(matrix)) return { bits: matrix.type === 'f32' ? 32 : 16 }
  const shared = sharedTables(matrix)
  const { total } = measureMatrix(matrix, new Set(shared.keys()))
  return {
    bits: total / (matrix.rows * matrix.columns),
    ...(shared.size > 0 && { shared: Object.fromEntries(shared) }),
  }
}

export interface MatrixJob {
  readonly kernels: Opened['kernels']
  readonly quantizer: Quantizer
  readonly module: string
  readonly original: Matrix
  readonly hessian?: Tensor
  readonly aim?: Aim
  readonly fisher?: Tensor
  readonly seed: number
  readonly signal?: AbortSignal
}

/** One matrix through its quantizer, and what that did to it. `weight` is it packed, for the caller to unload. */
export async function quantizeMatrix(
  job: MatrixJob,
): Promise<{ matrix: Matrix; weight: Weight; report: ModuleReport }> {
  const { kernels, quantizer, module, original, hessian, aim, fisher } = job
  const { rows, columns } = original
  const source = kernels.load(original)
  const dense = kernels.tensor(rows, columns)
  kernels.gather(dense, source)
  kernels.unload(source)
  if (aim) aimWeight(kernels, dense, aim)
  // The quantizer may overwrite what it gets.
  const working = kernels.tensor(rows, columns)
  kernels.copy(working, dense)
  const matrix = await quantizer.quantize({
    name: `${module}.weight`,
    weight: working,
    hessian,
    fisher,
    kernels,
    seed: seedFor(job.seed, module),
    signal: job.signal,
  })
  kernels.free(working)
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
      ...countedBits(matrix),
      error: power > 0 ? lost / power : 0,
      errorOf: hessian ? 'output' : 'weight',
    },
  }
}

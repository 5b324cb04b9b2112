/**
 * Fisher information of the original model's weights, Σ (∂loss/∂w)² (SqueezeLLM, 2306.07629, section 4.1). A sample is
 * a sequence of up to 512 tokens of the calibration text and its loss the sum of its next-token
 * cross-entropies. Squares are taken sample by sample; on the demo palettes came out alike for samples of
 * 32, 128 and 512 tokens, and shorter ones would see less context.
 *
 * Forward, the residual stream is kept before every √layers-th block; backward, from the last block to the first,
 * the streams between are made again. So memory holds one block, its Fisher information and about 2·√layers residual
 * streams. What was measured goes to the working folder, a part for each block, and is read when the block is
 * quantized. A job that was stopped runs the gradient through again, but forms no gradients of weights that it has.
 */

import { type Kernels, LowbitError, type Tensor } from '@lowbit/core'
import { dropParts, openPart, writePart } from '@lowbit/formats'
import {
  attendWithin,
  type BlockContext,
  backwardBlock,
  backwardHead,
  blockNames,
  type DifferentiableBlock,
  freeTrace,
  loadBlock,
  loadEmbedding,
  loadFinalNorm,
  loadHead,
  loadRope,
  type Opened,
  type Role,
  runBlock,
  traceBlock,
  unloadBlock,
} from '@lowbit/model'
import type { Assignment } from '../recipe/resolve.ts'
import { breathe } from './breathe.ts'
import { embedWindows } from './embed.ts'
import type { QuantizeJob } from './job.ts'
import { blockPart, type Journal, writeJournal } from './journal.ts'

/** Tokens of a sample. */
const SAMPLE = 512

const fisherPart = (layer: number): string => `fisher-${String(layer).padStart(5, '0')}`

export const asksForFisher = (quantizers: Assignment): boolean =>
  [...quantizers.values()].some(({ needs }) => needs.fisher)

/** Measures every block that still needs it, into the working folder. `onStep` is told the share that is done. */
export async function measureFisher(
  job: QuantizeJob,
  opened: Opened,
  journal: Journal,
  quantizers: Assignment,
  windows: readonly (readonly number[])[],
  onStep?: (what: string, done: number) => void,
): Promise<void> {
  const { config, kernels } = opened
  const wanting = (layer: number): boolean =>
    !journal.parts[blockPart(layer)] &&
    !journal.fisher.includes(layer) &&
    askedRoles(opened, quantizers, layer).size > 0
  const missing = Array.from({ length: config.layers }, (_, layer) => layer).filter(wanting)
  if (missing.length === 0) return
  const samples = samplesOf(windows)
  const run: Run = {
    ...{ job, opened, samples, steps: { done: 0, of: stepsOf(config.layers, missing[0]), onStep } },
    context: { kernels, config, ...loadRope(opened, Math.max(...samples.map((s) => s.length))) },
  }
  const kept = await forward(run, missing[0])
  const streams = kept.get(config.layers)!
  kept.delete(config.layers)
  const gradients = await lossGradients(run, streams)
  for (let layer = config.layers - 1; layer >= missing[0]; layer--) {
    const inputs = await inputsOf(run, kept, layer)
    const roles = missing.includes(layer)
      ? askedRoles(opened, quantizers, layer)
      : new Map<Role, string>()
    announce(run, `measuring gradients, block ${layer}`, BACKWARD)
    const fisher = await backward(run, layer, inputs, gradients, roles)
    if (roles.size === 0) continue
    await store(run, layer, roles, fisher)
    journal.fisher.push(layer)
    await writeJournal(job.folder, journal)
  }
  kernels.free(...gradients, run.context.cos, run.context.sin)
  for (const inputs of kept.values()) kernels.free(...inputs)
}

/** What was measured of one weight, [rows, columns]; the caller frees it. */
export async function readFisher(
  { folder, checkpoint, kernels }: QuantizeJob,
  layer: number,
  module: string,
): Promise<Tensor> {
  const { quantization_config: _, ...plain } = checkpoint.config
  const part = await openPart(folder, fisherPart(layer), plain)
  const weight = kernels.load(await part.readMatrix(module))
  await part.close()
  const fisher = kernels.tensor(weight.rows, weight.columns)
  kernels.gather(fisher, weight)
  kernels.unload(weight)
  return fisher
}

export async function dropFisher(
  { folder }: QuantizeJob,
  layers: readonly number[],
): Promise<void> {
  await dropParts(folder, layers.map(fisherPart))
}

interface Run {
  readonly job: QuantizeJob
  readonly opened: Opened
  readonly context: BlockContext
  readonly samples: readonly (readonly number[])[]
  /** A block forward is one. */
  readonly steps: { done: number; readonly of: number; readonly onStep?: OnStep }
}

type OnStep = (what: string, done: number) => void

/** What a block backward takes beside one forward: it runs forward, and back to its inputs and to its weights. */
const BACKWARD = 3

/** The roles of a block whose quantizers ask for Fisher information, and their modules. */
function askedRoles({ config }: Opened, quantizers: Assignment, layer: number): Map<Role, string> {
  const { modules } = blockNames(config.architecture, layer)
  return new Map([...modules].filter(([, module]) => quantizers.get(module)?.needs.fisher))
}

/** Sequences with something to predict. */
function samplesOf(windows: readonly (readonly number[])[]): number[][] {
  const samples: number[][] = []
  for (const window of windows) {
    for (let from = 0; from + 1 < window.length; from += SAMPLE) {
      const sample = window.slice(from, from + SAMPLE)
      if (sample.length > 1) samples.push(sample)
    }
  }
  if (samples.length > 0) return samples
  throw new LowbitError(
    'text-too-short',
    'gradients need calibration windows of two tokens or more: there is no next token to predict',
    { option: 'length' },
  )
}

/** Says what begins, and how much of all is done by then. */
function announce({ job, steps }: Run, what: string, size = 1): void {
  job.signal?.throwIfAborted()
  steps.onStep?.(what, Math.min(1, steps.done / steps.of))
  steps.done += size
}

/** Whether the streams that go into a block are kept on the way forward: every √layers-th, and the last few. */
function isKept(layer: number, layers: number, lowest: number): boolean {
  const step = Math.ceil(Math.sqrt(layers))
  const last = Math.floor((layers - 1) / step) * step
  return layer + step > lowest && (layer % step === 0 || layer >= last)
}

/** All blocks forward, the output, those from the lowest on backward, and again those before one that is not kept. */
function stepsOf(layers: number, lowest: number): number {
  let steps = layers + 1
  for (let layer = 0; layer < layers; layer++) {
    if (layer >= lowest) steps += BACKWARD
    const again = layer + 1 < layers && !isKept(layer + 1, layers, lowest)
    if (again && layer + Math.ceil(Math.sqrt(layers)) > lowest) steps++
  }
  return steps
}

/** Streams by the block that they go into: those that are kept, and the model's output. */
async function forward(run: Run, lowest: number): Promise<Map<number, Tensor[]>> {
  const { opened, samples } = run
  const { layers } = opened.config
  const kept = new Map<number, Tensor[]>()
  const streams = await embedWindows(opened, samples)
  for (let layer = 0; layer < layers; layer++) {
    if (isKept(layer, layers, lowest)) kept.set(layer, copies(opened.kernels, streams))
    announce(run, `running block ${layer} for gradients`)
    await advance(run, layer, streams)
  }
  kept.set(layers, streams)
  return kept
}

function copies(kernels: Kernels, tensors: readonly Tensor[]): Tensor[] {
  return tensors.map((tensor) => {
    const copy = kernels.tensor(tensor.rows, tensor.columns)
    kernels.copy(copy, tensor)
    return copy
  })
}

async function advance(
  { job, opened, context }: Run,
  layer: number,
  streams: Tensor[],
): Promise<void> {
  const block = await loadBlock(opened, layer)
  for (const x of streams) {
    runBlock(context, block, x, attendWithin(context))
    await breathe()
    job.signal?.throwIfAborted()
  }
  unloadBlock(opened.kernels, block)
}

/** The streams that go into a block, taken out of those kept; what lies between it and the nearest kept is made again. */
async function inputsOf(run: Run, kept: Map<number, Tensor[]>, layer: number): Promise<Tensor[]> {
  const nearest = Math.max(...[...kept.keys()].filter((key) => key <= layer))
  for (let before = nearest; before < layer; before++) {
    announce(run, `running block ${before} again for gradients`)
    const streams = copies(run.opened.kernels, kept.get(before)!)
    await advance(run, before, streams)
    kept.set(before + 1, streams)
  }
  const inputs = kept.get(layer)!
  kept.delete(layer)
  return inputs
}

/** Gradients of each sample's loss by the model's last residual stream, which is freed. */
async function lossGradients(run: Run, streams: readonly Tensor[]): Promise<Tensor[]> {
  const { job, opened, context, samples } = run
  const { kernels } = opened
  announce(run, 'measuring gradients, output')
  const embedding = await loadEmbedding(opened)
  const output = await loadHead(opened, embedding)
  const finalNorm = await loadFinalNorm(opened)
  const gradients: Tensor[] = []
  let power = 0
  for (const [i, x] of streams.entries()) {
    const targets = Uint32Array.from(samples[i].slice(1))
    // The last position has nothing to predict.
    const scored = kernels.rows(x, 0, targets.length)
    const part = backwardHead(context, { finalNorm, output }, scored, (logits, from) => {
      const here = targets.subarray(from, from + logits.rows)
      kernels.crossEntropyGradient(logits, logits, here, 1)
    })
    power += await kernels.distance(part, undefined)
    const gradient = kernels.tensor(x.rows, x.columns)
    kernels.copy(kernels.rows(gradient, 0, targets.length), part)
    kernels.free(part, x)
    gradients.push(gradient)
    await breathe()
    job.signal?.throwIfAborted()
  }
  if (output !== embedding) kernels.unload(output)
  kernels.unload(embedding)
  kernels.free(finalNorm.gain, ...(finalNorm.bias ? [finalNorm.bias] : []))
  if (power > 0 && Number.isFinite(power)) return gradients
  throw new LowbitError(
    'bad-gradients',
    power === 0
      ? 'every gradient of the loss is zero: the model predicts the same whatever its blocks compute (a final norm or output matrix of zeros?), so no weight is more sensitive than another'
      : 'the gradients of the loss are NaN or infinite; check the checkpoint or calibrate on another text',
    { file: opened.checkpoint.location },
  )
}

/** Takes the gradients, changed in place, through a block; gives the Fisher information of the roles asked for. */
async function backward(
  run: Run,
  layer: number,
  inputs: readonly Tensor[],
  gradients: readonly Tensor[],
  roles: ReadonlyMap<Role, string>,
): Promise<Map<Role, Tensor>> {
  const { job, opened, context } = run
  const { kernels } = opened
  const block = await loadDense(opened, layer)
  const fisher = new Map<Role, Tensor>()
  for (const [i, x] of inputs.entries()) {
    const trace = traceBlock(context, block, x)
    backwardBlock(context, block, trace, gradients[i], {
      onLinear(role, input, output) {
        if (!roles.has(role)) return
        const sum = fisher.get(role) ?? kernels.tensor(output.columns, input.columns)
        fisher.set(role, sum)
        addSquares(kernels, sum, output, input)
      },
    })
    freeTrace(kernels, trace)
    kernels.free(x)
    await breathe()
    job.signal?.throwIfAborted()
  }
  freeDense(kernels, block)
  return fisher
}

/** sum += (dYᵀ·X)² */
function addSquares(kernels: Kernels, sum: Tensor, output: Tensor, input: Tensor): void {
  const gradient = kernels.tensor(sum.rows, sum.columns)
  const square = kernels.tensor(sum.rows, sum.columns)
  kernels.crossGram(gradient, output, input, 1)
  kernels.copy(square, gradient)
  kernels.times(square, gradient)
  kernels.add(sum, square)
  kernels.free(gradient, square)
}

/** A block with its weights as dense tensors, which both directions multiply by. */
async function loadDense(opened: Opened, layer: number): Promise<DifferentiableBlock> {
  const { kernels } = opened
  const { linears, ...norms } = await loadBlock(opened, layer)
  const dense = Object.entries(linears).map(([role, { weight, bias }]) => {
    const tensor = kernels.tensor(weight.rows, weight.columns)
    kernels.gather(tensor, weight)
    kernels.unload(weight)
    return [role, { weight: tensor, bias }]
  })
  return { ...norms, linears: Object.fromEntries(dense) }
}

function freeDense(
  kernels: Kernels,
  { linears, attentionNorm, mlpNorm }: DifferentiableBlock,
): void {
  for (const { weight, bias } of Object.values(linears)) {
    kernels.free(weight as Tensor, ...(bias ? [bias] : []))
  }
  for (const { gain, bias } of [attentionNorm, mlpNorm]) {
    kernels.free(gain, ...(bias ? [bias] : []))
  }
}

async function store(
  { job, opened }: Run,
  layer: number,
  roles: ReadonlyMap<Role, string>,
  fisher: ReadonlyMap<Role, Tensor>,
): Promise<void> {
  const entries = []
  for (const [role, tensor] of fisher) {
    const { rows, columns } = tensor
    const values = await opened.kernels.read(tensor)
    entries.push({
      module: roles.get(role)!,
      matrix: { rows, columns, type: 'f32' as const, values },
    })
    opened.kernels.free(tensor)
  }
  await writePart(job.folder, fisherPart(layer), entries, job.format, job.signal)
}

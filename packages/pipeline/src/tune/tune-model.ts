/**
 * End-to-end tuning: the scales of rows and columns, tables and the gains of the norms move toward what makes the model's
 * next-token distributions those of the original, KL(original ‖ quantized) on the calibration text. Codes
 * stay. One block's activations are held at a time: each block keeps its input alone and runs again on the
 * way back.
 */

import {
  type Checkpoint,
  isQuantized,
  LowbitError,
  type Matrix,
  type Numbers,
  type QuantizedMatrix,
  type Tensor,
  toNumbers,
  type Vector,
  type Weight,
} from '@lowbit/core'
import {
  attendWithin,
  type BlockContext,
  backwardBlock,
  backwardHead,
  blockNames,
  type DifferentiableBlock,
  freeTrace,
  loadBlock,
  loadRope,
  type Opened,
  type Role,
  runBlock,
  traceBlock,
  unloadBlock,
} from '@lowbit/model'
import { breathe } from '../job/breathe.ts'
import { adam, type Factors, factors, rateAt } from './adam.ts'
import { scaleGradients } from './gradients.ts'
import {
  addTableGradients,
  collectTables,
  moveTables,
  storedTable,
  type TunedTables,
  tableKey,
  withTables,
} from './tables.ts'

export interface TuneOptions {
  readonly steps: number
  readonly rate: number
  /** The same for entries of tables, in root mean squares of their table; 0 leaves them as they are. */
  readonly tableRate: number
  /** Tokens of a step's window. */
  readonly length: number
}

/** What a tuner of models is shown. */
export interface TuneModel {
  /** The original. */
  readonly opened: Opened
  /** The quantized matrices of a block, by module. */
  readBlock(layer: number): Promise<Checkpoint>
  readonly windows: readonly (readonly number[])[]
  readonly signal?: AbortSignal
  onStep?(done: number, loss: number): void
}

interface TuneJob extends TuneModel, TuneOptions {}

/** What has moved: by module its scales, by `tableKey` tables, by tensor name a norm's gain. */
export interface Tuned {
  readonly scales: ReadonlyMap<string, Pick<QuantizedMatrix, 'rowScale' | 'columnScale'>>
  readonly tables: ReadonlyMap<string, Numbers>
  readonly vectors: ReadonlyMap<string, Vector>
}

interface TunedMatrix {
  readonly module: string
  readonly role: Role
  readonly matrix: Matrix
  readonly rows?: Factors
  readonly columns?: Factors
}

interface TunedNorm {
  readonly tensor: string
  readonly value: Vector
  readonly factors: Factors
}

interface TunedBlock {
  readonly layer: number
  readonly matrices: readonly TunedMatrix[]
  readonly attentionNorm: TunedNorm
  readonly mlpNorm: TunedNorm
}

export async function tuneModel(job: TuneJob): Promise<Tuned> {
  const { opened, steps, signal } = job
  const { kernels, config, checkpoint } = opened
  const windows = cut(job.windows, job.length)
  const longest = Math.max(...windows.map(({ length }) => length))
  const context: BlockContext = { kernels, config, ...loadRope(opened, longest) }
  const names = config.architecture.modules
  const embedding = kernels.load(await checkpoint.readMatrix(names.embedding))
  const output = checkpoint.hasModule(names.head)
    ? kernels.load(await checkpoint.readMatrix(names.head))
    : embedding
  const embed = (window: readonly number[]): Tensor => {
    const x = kernels.tensor(window.length, config.hidden)
    kernels.gather(x, embedding, Uint32Array.from(window))
    return x
  }
  // The original's residual streams after its last block; its blocks are let go one by one.
  const used = Array.from({ length: Math.min(steps, windows.length) }, (_, i) => i)
  const targets = used.map((i) => embed(windows[i]))
  const blocks: TunedBlock[] = []
  const tables: TunedTables = new Map()
  for (let layer = 0; layer < config.layers; layer++) {
    signal?.throwIfAborted()
    const block = await loadBlock(opened, layer)
    for (const x of targets) {
      runBlock(context, block, x, attendWithin(context))
      await breathe()
    }
    unloadBlock(kernels, block)
    const tuned = await tunedBlock(job, layer)
    blocks.push(tuned)
    for (const { module, matrix } of tuned.matrices) {
      if (job.tableRate > 0 && isQuantized(matrix)) collectTables(tables, module, matrix)
    }
  }
  const finalNorm = await tunedNorm(checkpoint, `${names.finalNorm}.weight`)
  const finalGain = kernels.upload(finalNorm.value.values, 1, config.hidden)
  const originalNorm = { gain: finalGain }
  try {
    for (let step = 1; step <= steps; step++) {
      signal?.throwIfAborted()
      const at = (step - 1) % used.length
      const window = windows[used[at]]
      const rate = rateAt(step, steps, job.rate)
      const loaded = await Promise.all(blocks.map((block) => loadTuned(context, block, tables)))
      const x = embed(window)
      const inputs: Tensor[] = []
      for (const block of loaded) {
        const input = kernels.tensor(x.rows, config.hidden)
        kernels.copy(input, x)
        inputs.push(input)
        freeTrace(kernels, traceBlock(context, block, x))
        await breathe()
        signal?.throwIfAborted()
      }
      const gainSum = kernels.tensor(1, config.hidden)
      const gain = kernels.upload(scaledVector(finalNorm), 1, config.hidden)
      const losses: Promise<Float32Array>[] = []
      const gradient = backwardHead(
        context,
        { finalNorm: { gain }, output },
        x,
        (logits, from) => {
          const rows = logits.rows
          const target = kernels.rows(targets[at], from, from + rows)
          const hidden = kernels.tensor(rows, config.hidden)
          kernels.rmsNorm(hidden, target, originalNorm.gain, config.epsilon)
          const reference = kernels.tensor(rows, logits.columns)
          kernels.matmul(reference, hidden, output)
          const loss = kernels.tensor(rows, 1)
          kernels.divergence(loss, reference, logits)
          losses.push(kernels.read(loss))
          kernels.divergenceGradient(logits, reference, logits, 1 / window.length)
          kernels.free(hidden, reference, loss)
        },
        { finalNorm: { gain: gainSum } },
      )
      const all = (await Promise.all(losses)).flatMap((part) => [...part])
      const loss = all.reduce((sum, value) => sum + value, 0) / all.length
      if (!Number.isFinite(loss)) {
        throw new LowbitError('not-finite', `tuning diverged at step ${step}; try a smaller rate`, {
          option: 'tune.rate',
        })
      }
      await moveNorm(finalNorm, context, gainSum, step, rate)
      for (let layer = loaded.length - 1; layer >= 0; layer--) {
        signal?.throwIfAborted()
        const trace = traceBlock(context, loaded[layer], inputs[layer])
        await backThrough(
          ...([
            context,
            blocks[layer],
            tables,
            loaded[layer],
            trace,
            gradient,
            step,
            rate,
          ] as const),
        )
        freeTrace(kernels, trace)
        await breathe()
      }
      kernels.free(x, gradient, gainSum, gain, ...inputs)
      for (const block of loaded) unloadTuned(context, block)
      moveTables(tables, step, (rate / job.rate) * job.tableRate)
      job.onStep?.(step / steps, loss)
    }
  } finally {
    kernels.free(finalGain, ...targets, context.cos, context.sin)
    if (output !== embedding) kernels.unload(output)
    kernels.unload(embedding)
  }
  return collect(blocks, tables, finalNorm)
}

/** Windows of at most `length` tokens, the same number from each. */
function cut(windows: readonly (readonly number[])[], length: number): (readonly number[])[] {
  return windows.flatMap((window) => {
    const pieces = Math.max(1, Math.floor(window.length / length))
    return Array.from({ length: pieces }, (_, i) => window.slice(i * length, (i + 1) * length))
  })
}

async function tunedNorm(checkpoint: Checkpoint, tensor: string): Promise<TunedNorm> {
  const value = await checkpoint.readVector(tensor)
  return { tensor, value, factors: factors(value.values.length) }
}

async function tunedBlock({ opened, readBlock }: TuneJob, layer: number): Promise<TunedBlock> {
  const part = await readBlock(layer)
  const names = blockNames(opened.config.architecture, layer)
  const matrices: TunedMatrix[] = []
  for (const [role, module] of names.modules) {
    const matrix = await part.readMatrix(module)
    const { rowScale, columnScale } = isQuantized(matrix) ? matrix : {}
    matrices.push({
      ...{ module, role, matrix },
      ...(rowScale && { rows: factors(rowScale.values.length) }),
      ...(columnScale && { columns: factors(columnScale.values.length) }),
    })
  }
  const tuned = {
    ...{ layer, matrices },
    attentionNorm: await tunedNorm(part, `${names.attentionNorm}.weight`),
    mlpNorm: await tunedNorm(part, `${names.mlpNorm}.weight`),
  }
  await part.close()
  return tuned
}

const scaledVector = ({ value, factors: { values } }: TunedNorm): Float32Array =>
  value.values.map((x, i) => x * values[i])

const scaledNumbers = (
  numbers: Numbers | undefined,
  by: Factors | undefined,
  type: Numbers['type'],
): Numbers | undefined =>
  numbers &&
  by &&
  toNumbers(
    type,
    numbers.values.map((x, i) => x * by.values[i]),
  )

/** The scales as they are now, in a type of numbers. */
function scalesOf(
  { matrix, rows, columns }: TunedMatrix,
  type?: Numbers['type'],
): Pick<QuantizedMatrix, 'rowScale' | 'columnScale'> {
  if (!isQuantized(matrix)) return {}
  const { rowScale, columnScale } = matrix
  return {
    ...(rowScale && { rowScale: scaledNumbers(rowScale, rows, type ?? rowScale.type) }),
    ...(columnScale && {
      columnScale: scaledNumbers(columnScale, columns, type ?? columnScale.type),
    }),
  }
}

/** A matrix as it is now: scales before they are rounded, tables as they are stored. */
const matrixNow = (
  tuned: TunedMatrix,
  matrix: QuantizedMatrix,
  tables: TunedTables,
): QuantizedMatrix => ({
  ...withTables(tables, tuned.module, matrix),
  ...scalesOf(tuned, 'f32'),
})

async function loadTuned(
  { kernels }: BlockContext,
  block: TunedBlock,
  tables: TunedTables,
): Promise<DifferentiableBlock> {
  const linears: Partial<Record<Role, { weight: Weight }>> = {}
  for (const tuned of block.matrices) {
    const { matrix } = tuned
    const now = isQuantized(matrix) ? matrixNow(tuned, matrix, tables) : matrix
    linears[tuned.role] = { weight: kernels.load(now) }
  }
  const gain = (norm: TunedNorm): { gain: Tensor } => {
    const values = scaledVector(norm)
    return { gain: kernels.upload(values, 1, values.length) }
  }
  return { linears, attentionNorm: gain(block.attentionNorm), mlpNorm: gain(block.mlpNorm) }
}

function unloadTuned({ kernels }: BlockContext, block: DifferentiableBlock): void {
  for (const { weight } of Object.values(block.linears)) kernels.unload(weight as Weight)
  kernels.free(block.attentionNorm.gain, block.mlpNorm.gain)
}

async function backThrough(
  context: BlockContext,
  tuned: TunedBlock,
  tables: TunedTables,
  block: DifferentiableBlock,
  trace: ReturnType<typeof traceBlock>,
  gradient: Tensor,
  step: number,
  rate: number,
): Promise<void> {
  const { kernels, config } = context
  const [attention, mlp] = [kernels.tensor(1, config.hidden), kernels.tensor(1, config.hidden)]
  const found: Promise<void>[] = []
  backwardBlock(context, block, trace, gradient, {
    attentionNorm: { gain: attention },
    mlpNorm: { gain: mlp },
    onLinear(role, input, output) {
      const mine = tuned.matrices.find((one) => one.role === role)!
      const { matrix, rows, columns } = mine
      if (!isQuantized(matrix)) return
      const hasTables = matrix.stages.some((stage, i) => {
        return tables.has(tableKey(mine.module, stage, i) ?? '')
      })
      if (!rows && !columns && !hasTables) return
      const weight = block.linears[role]!.weight as Weight
      const now = matrixNow(mine, matrix, tables)
      const move = async (): Promise<void> => {
        const by = await scaleGradients(kernels, now, weight, input, output, hasTables)
        if (by.entries) {
          await addTableGradients(tables, kernels, mine.module, now, by.entries)
          kernels.free(by.entries)
        }
        if (rows && by.rows) adam(rows, by.rows, step, rate)
        if (columns && by.columns) adam(columns, by.columns, step, rate)
      }
      found.push(move())
    },
  })
  await Promise.all(found)
  await moveNorm(tuned.attentionNorm, context, attention, step, rate)
  await moveNorm(tuned.mlpNorm, context, mlp, step, rate)
  kernels.free(attention, mlp)
}

/** The gradient of a gain times the gain is that of a factor on it. */
async function moveNorm(
  norm: TunedNorm,
  { kernels }: BlockContext,
  sum: Tensor,
  step: number,
  rate: number,
): Promise<void> {
  const gradient = await kernels.read(sum)
  adam(
    norm.factors,
    gradient.map((g, i) => g * norm.value.values[i]),
    step,
    rate,
  )
}

function collect(blocks: readonly TunedBlock[], tables: TunedTables, finalNorm: TunedNorm): Tuned {
  const vectors = new Map<string, Vector>()
  const keep = (norm: TunedNorm): void => {
    const { type } = norm.value
    vectors.set(norm.tensor, { type, values: toNumbers(type, scaledVector(norm)).values })
  }
  for (const { attentionNorm, mlpNorm } of blocks) {
    keep(attentionNorm)
    keep(mlpNorm)
  }
  keep(finalNorm)
  return {
    scales: new Map(
      blocks.flatMap(({ matrices }) =>
        matrices.map((tuned) => [tuned.module, scalesOf(tuned)] as const),
      ),
    ),
    tables: new Map([...tables].map(([key, table]) => [key, storedTable(table)])),
    vectors,
  }
}

/**
 * Weights trained through the differentiable k-means layer on the output of their own linear: with W̃(V) what the layer
 * makes of latent weights V, Adam moves V against the gradient of tr((W − W̃)·H·(W − W̃)ᵀ), whose gradient
 * with regard to W̃ is 2·(W̃ − W)·H. V begins at W. In the end each V has the code of its nearest entry.
 *
 * Rows do not see each other in that loss, so groups of rows with palettes of their own are trained one by one.
 */

import type { Kernels, Tensor } from '@lowbit/core'
import { attend, backward, freeTrace, type LayerOptions } from './layer.ts'

export interface Training {
  readonly kernels: Kernels
  /** [rows, columns] */
  readonly weight: Tensor
  readonly hessian: Tensor
  /** What each weight counts where entries are means of weights: [1, columns]; all alike by default. */
  readonly importance?: Tensor
  /** [rows, 1]: what a row's palette is multiplied by. */
  readonly rowScale?: Tensor
  /** Rows that share a palette. */
  readonly groupRows: number
  readonly mode: 'dkm' | 'gsm' | 'hard'
  readonly steps: number
  /** Of Adam at first, in standard deviations of the first palette's error. */
  readonly rate: number
  /** τ at first, in variances of the first palette's error. */
  readonly temperature: number
  /** Iterations of the layer in each step. */
  readonly iterations: number
  readonly seed: number
  readonly signal?: AbortSignal
}

export interface Trained {
  /** [groups, entries], ascending. */
  readonly tables: Float32Array
  /** [rows, columns]: the latent weights times the row scale. The caller frees it. */
  readonly latent: Tensor
}

/** `tables` [groups, entries] are where it begins. */
export async function train(
  job: Training,
  tables: Float32Array,
  entries: number,
): Promise<Trained> {
  const { kernels, weight, rowScale, groupRows } = job
  const { rows, columns } = weight
  const latent = kernels.tensor(rows, columns)
  const found = new Float32Array(tables.length)
  for (let top = 0, group = 0; top < rows; top += groupRows, group++) {
    const bottom = Math.min(rows, top + groupRows)
    const view = (tensor: Tensor): Tensor => kernels.rows(tensor, top, bottom)
    const start = tables.subarray(group * entries, (group + 1) * entries)
    const part = { weight: view(weight), ...(rowScale && { rowScale: view(rowScale) }) }
    const table = await trainGroup({ ...job, ...part, seed: job.seed + group }, view(latent), start)
    found.set(table.sort(), group * entries)
  }
  return { tables: found, latent }
}

/** Of the rate, for `hard`: all weights of an entry move together, none turns back alone. */
const HARD_SHARE = 0.1

/** Falls along a cosine. */
function rateAt({ mode, rate, steps }: Training, step: number): number {
  const share = 0.5 + 0.5 * Math.cos((Math.PI * (step - 1)) / steps)
  return rate * share * (mode === 'hard' ? HARD_SHARE : 1)
}

/** What the temperature has fallen to in the last step. */
const COOLING = 0.03

async function trainGroup(
  job: Training,
  latent: Tensor,
  start: Float32Array,
): Promise<Float32Array> {
  const { kernels, weight, hessian, rowScale, steps, signal } = job
  const { rows, columns } = weight
  const size = rows * columns
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const inverse = rowScale && own(await reciprocal(kernels, rowScale))
    kernels.scale(latent, weight, inverse ? { rows: inverse } : {})
    const codes = own(kernels.tensor(rows, columns, 'u16'))
    const most = Math.min(65_536, size)
    const values = own(kernels.tensor(most, 1))
    const counts = own(kernels.tensor(most, 1))
    const [decoded, gradient] = [
      own(kernels.tensor(rows, columns)),
      own(kernels.tensor(rows, columns)),
    ]
    const [mean, square] = [own(kernels.tensor(rows, columns)), own(kernels.tensor(rows, columns))]
    const down = own(kernels.upload(new Float32Array(rows).fill(-1), rows, 1))
    const mass = await massesOf(job, rows, columns)
    if (mass) own(mass)
    let table = start
    let variance = 0
    for (let step = 1; step <= steps; step++) {
      signal?.throwIfAborted()
      const n = await kernels.distinct(values, counts, codes, latent)
      const points = {
        kernels,
        values: kernels.rows(values, 0, n),
        counts: kernels.rows(counts, 0, n),
      }
      if (mass) {
        const plain = {
          length: 1,
          along: 'in',
          tables: [{ values: points.values, entries: n }],
        } as const
        kernels.scatterVectors([points.counts], mass, [codes], plain)
      }
      if (step === 1) variance = await errorOf(points, table)
      if (!(variance > 0)) break
      const options = optionsAt(job, step, variance)
      const trace = await attend(points, table, options)
      const spread = { length: 1, along: 'in' as const, rowScale }
      const from = (x: Tensor) => ({ ...spread, tables: [{ values: x, entries: n }] })
      kernels.decodeVectors(decoded, [codes], from(trace.output))
      kernels.scale(decoded, decoded, { rows: down })
      kernels.add(decoded, weight)
      // (W − W̃)·H, half the gradient with its sign turned; Adam does not mind the half.
      kernels.multiply(gradient, decoded, hessian)
      kernels.scale(gradient, gradient, { rows: down })
      const sums = kernels.tensor(n, 1)
      kernels.scatterVectors([sums], gradient, [codes], from(trace.output))
      const { slope, shared } = await backward(points, trace, sums, options)
      kernels.decodeVectors(decoded, [codes], from(slope))
      kernels.times(gradient, decoded)
      kernels.decodeVectors(decoded, [codes], { ...from(shared), rowScale: undefined })
      if (mass) kernels.times(decoded, mass)
      kernels.add(gradient, decoded)
      const rate = rateAt(job, step) * Math.sqrt(variance)
      kernels.adam(latent, mean, square, gradient, { step, rate })
      table = trace.tables[job.iterations]
      freeTrace(kernels, trace)
      kernels.free(sums, slope, shared)
    }
    kernels.scale(latent, latent, rowScale ? { rows: rowScale } : {})
    return table.slice()
  } finally {
    kernels.free(...owned)
  }
}

/** The temperature falls from step to step by one factor. */
function optionsAt(
  { mode, temperature, steps, iterations, seed }: Training,
  step: number,
  variance: number,
): LayerOptions {
  if (mode === 'hard') return { temperature: 0, iterations }
  const share = steps > 1 ? (step - 1) / (steps - 1) : 1
  return {
    temperature: variance * temperature * COOLING ** share,
    iterations,
    ...(mode === 'gsm' && { gumbel: (seed + Math.imul(step, 0x9e3779b9)) | 0 }),
  }
}

/** importance · rowScale² of each weight, 1 on average; none where all count the same. */
async function massesOf(
  { kernels, importance, rowScale }: Training,
  rows: number,
  columns: number,
): Promise<Tensor | undefined> {
  if (!importance) return undefined
  const values = await kernels.read(importance)
  const scales = rowScale ? await kernels.read(rowScale) : new Float32Array(rows).fill(1)
  const squares = scales.map((scale) => scale * scale)
  const sum = (x: Float32Array): number => x.reduce((total, each) => total + each, 0)
  const mean = (sum(values) / columns) * (sum(squares) / rows)
  if (!(mean > 0)) return undefined
  const across = kernels.upload(values, 1, columns)
  const down = kernels.upload(
    squares.map((square) => square / mean),
    rows,
    1,
  )
  const mass = kernels.tensor(rows, columns)
  kernels.add(mass, across)
  kernels.scale(mass, mass, { rows: down })
  kernels.free(across, down)
  return mass
}

/** Mean squared distance of weights to their nearest entries. */
async function errorOf(
  { kernels, values, counts }: { kernels: Kernels; values: Tensor; counts: Tensor },
  table: Float32Array,
): Promise<number> {
  const entries = kernels.upload(table, table.length, 1)
  const codes = kernels.tensor(values.rows, 1, 'u16')
  const distances = kernels.tensor(values.rows, 1)
  kernels.nearest(codes, values, entries, distances)
  kernels.times(distances, counts)
  const [d, n] = [await kernels.read(distances), await kernels.read(counts)]
  kernels.free(entries, codes, distances)
  const sum = (x: Float32Array): number => x.reduce((total, each) => total + each, 0)
  return sum(d) / sum(n)
}

async function reciprocal(kernels: Kernels, scale: Tensor): Promise<Tensor> {
  const values = await kernels.read(scale)
  return kernels.upload(
    values.map((x) => (x === 0 ? 0 : 1 / x)),
    scale.rows,
    1,
  )
}

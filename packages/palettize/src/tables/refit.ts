/**
 * Tables refitted to codes: the values t that make tr((W − Q)(H + λ1)(W − Q)ᵀ) least while the codes are held, Q = t[code]
 * (· the row's scale). That is linear least squares; with S the sum over the weights of each code,
 *
 *   S(P(t)·(H + λ1)) = S(W·(H + λ1)),   P(t) the weights that codes and tables mean,
 *
 * solved by conjugate gradients, each table for itself. The matrix on the left is never made: a step costs
 * one product with H. A few steps suffice, since a table has few values (LNQ of GuidedQuant, 2505.07004, solves the
 * same system for each row).
 */

import type { Kernels, TableBlocks, Tensor } from '@lowbit/core'

export interface Refit {
  readonly kernels: Kernels
  readonly weight: Tensor
  readonly hessian: Tensor
  /** λ. */
  readonly damping: number
  readonly codes: Tensor
  /** What the codes mean now. */
  readonly decoded: Tensor
  readonly blocks: TableBlocks
}

/** More change the error of the demo's outputs by a thousandth of itself. */
const STEPS = 2

/** Moves the tables [blocks, entries] to where the error is least; values that no code has stay. */
export async function refitTables(
  job: Refit,
  tables: Float32Array,
  entries: number,
): Promise<Float32Array> {
  const { kernels, weight, hessian, decoded } = job
  const { rows, columns } = weight
  const count = tables.length / entries
  const [product, part] = [kernels.tensor(rows, columns), kernels.tensor(rows, columns)]
  const sums = kernels.tensor(count, entries)
  const owned = [product, part, sums]
  try {
    const summed = async (x: Tensor): Promise<Float64Array> => {
      kernels.sumByCode(sums, x, job.codes, job.blocks)
      return Float64Array.from(await kernels.read(sums))
    }
    /** S(x·(H + λ1)). */
    const weighed = async (x: Tensor): Promise<Float64Array> => {
      kernels.multiply(product, x, hessian)
      const result = await summed(product)
      const own = await summed(x)
      return result.map((sum, i) => sum + job.damping * own[i])
    }
    // The residual of where we are, from W − Q; afterwards only the step away from there is of interest.
    const minus = kernels.upload(new Float32Array(columns).fill(-1), 1, columns)
    kernels.scale(part, decoded, { columns: minus })
    kernels.add(part, weight)
    kernels.free(minus)
    const residual = await weighed(part)
    const diagonal = await diagonalOf(job, part, summed)
    const step = new Float64Array(tables.length)
    const direction = new Float64Array(tables.length)
    let before = new Float64Array(count)
    for (let iteration = 0; iteration < STEPS; iteration++) {
      const preconditioned = residual.map((r, i) => (diagonal[i] > 0 ? r / diagonal[i] : 0))
      const now = dots(residual, preconditioned, entries)
      for (let i = 0; i < direction.length; i++) {
        const table = Math.floor(i / entries)
        const kept = before[table] > 0 ? now[table] / before[table] : 0
        direction[i] = preconditioned[i] + kept * direction[i]
      }
      const values = kernels.upload(Float32Array.from(direction), count, entries)
      kernels.decodeCodes(part, job.codes, values, job.blocks)
      kernels.free(values)
      const image = await weighed(part)
      const curvature = dots(direction, image, entries)
      for (let i = 0; i < step.length; i++) {
        const table = Math.floor(i / entries)
        const length = curvature[table] > 0 ? now[table] / curvature[table] : 0
        step[i] += length * direction[i]
        residual[i] -= length * image[i]
      }
      before = now
    }
    return tables.map((value, i) => value + step[i])
  } finally {
    kernels.free(...owned)
  }
}

/** S of H's diagonal + λ in every row: the system's own diagonal but for what equal codes in a row share. */
async function diagonalOf(
  { kernels, hessian, damping }: Refit,
  room: Tensor,
  summed: (x: Tensor) => Promise<Float64Array>,
): Promise<Float64Array> {
  const { rows, columns } = room
  const diagonal = kernels.tensor(1, columns)
  kernels.diagonal(diagonal, hessian)
  const damped = (await kernels.read(diagonal)).map((h) => h + damping)
  const row = kernels.upload(damped, 1, columns)
  const zeros = kernels.tensor(rows, columns)
  kernels.copy(room, zeros)
  kernels.add(room, row)
  kernels.free(diagonal, row, zeros)
  return summed(room)
}

/** The scalar product of each table's part of a and b. */
function dots(a: Float64Array, b: Float64Array, entries: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(a.length / entries)
  for (let i = 0; i < a.length; i++) out[Math.floor(i / entries)] += a[i] * b[i]
  return out
}

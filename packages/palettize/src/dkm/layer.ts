/**
 * The differentiable k-means layer (DKM, Cho et al., 2108.12659, section 3): points attend to entries, entries move to
 * the mean of what attends to them, a few times over, and a point means the entries that it attends to at last:
 *
 *   A = softmax(−|w − c|² / τ),   c ← Aᵀ(n·w) / Aᵀn,   w̃ = A·c
 *
 * A point stands for n weights that are equal in 16 bits and so share its row of A (eDKM, 2309.00964, section 3.2). Backward
 * through all of it in closed form: with p = A and logits l_j = −|w − c_j|² / τ, a gradient E of l (times 2/τ) has rows
 * that sum to 0, so that what reaches w is E·c and what reaches c is Eᵀw − c·Eᵀ1.
 */

import type { Kernels, Tensor } from '@lowbit/core'

export interface Points {
  readonly kernels: Kernels
  /**
   * [n, 1] different values, and how many weights have each, or what those weights count together; the gradient
   * through the entries is then that of a weight that counts 1.
   */
  readonly values: Tensor
  readonly counts: Tensor
}

export interface LayerOptions {
  /** τ; 0 assigns each point to its nearest entry (`hard`). */
  readonly temperature: number
  readonly iterations: number
  /** Gumbel noise for the last assignment, by seed (`gsm`). */
  readonly gumbel?: number
}

export interface Trace {
  /** Entries before each iteration, and after the last: iterations + 1 of them. */
  readonly tables: readonly Float32Array[]
  /** Attention of each iteration and of the output, [n, k] each. */
  readonly attentions: readonly Tensor[]
  /** Σ attention · count of each entry, by iteration. */
  readonly masses: readonly Float32Array[]
  /** w̃ of each point, [n, 1]. */
  readonly output: Tensor
}

/** Forward; the caller frees the trace. */
export async function attend(
  points: Points,
  start: Float32Array,
  options: LayerOptions,
): Promise<Trace> {
  const { kernels, values, counts } = points
  const [n, k] = [values.rows, start.length]
  const attentions: Tensor[] = []
  const masses: Float32Array[] = []
  const tables = [start]
  const weighed = kernels.tensor(n, 1)
  kernels.copy(weighed, values)
  kernels.times(weighed, counts)
  const assign = (table: Float32Array, gumbel?: number): Tensor => {
    const out = kernels.tensor(n, k)
    const entries = kernels.upload(table, k, 1)
    kernels.softAssign(out, values, entries, { temperature: options.temperature, gumbel })
    kernels.free(entries)
    attentions.push(out)
    return out
  }
  for (let i = 0; i < options.iterations; i++) {
    const table = tables[i]
    const attention = assign(table)
    const sums = await columnSums(kernels, attention, weighed)
    const mass = await columnSums(kernels, attention, counts)
    masses.push(mass)
    // An entry that nothing attends to stays.
    tables.push(table.map((c, j) => (mass[j] > 0 ? sums[j] / mass[j] : c)))
  }
  const table = tables[options.iterations]
  const attention = assign(table, options.gumbel)
  const output = kernels.tensor(n, 1)
  const row = kernels.upload(table, 1, k)
  kernels.multiply(output, attention, row)
  kernels.free(row, weighed)
  return { tables, attentions, masses, output }
}

export function freeTrace(kernels: Kernels, { attentions, output }: Trace): void {
  kernels.free(...attentions, output)
}

/**
 * The gradient of a single weight at a point is `slope` · (its gradient of w̃) + `shared`, [n, 1] each: the first
 * through its own attention, the second through the entries, which all weights move together.
 */
export interface PointGradients {
  readonly slope: Tensor
  readonly shared: Tensor
}

/** Backward; `gradient` [n, 1] is the sum of the gradients of w̃ over the weights of each point. */
export async function backward(
  points: Points,
  { tables, attentions, masses }: Trace,
  gradient: Tensor,
  { temperature, iterations }: LayerOptions,
): Promise<PointGradients> {
  const { kernels, values, counts } = points
  const [n, k] = [values.rows, tables[0].length]
  const factor = temperature > 0 ? 2 / temperature : 0
  const [slope, shared] = [kernels.tensor(n, 1), kernels.tensor(n, 1)]
  const room = kernels.tensor(n, k)
  const part = kernels.tensor(n, 1)
  const ones = kernels.upload(new Float32Array(n).fill(1), n, 1)
  /** out = x·c. */
  const along = (out: Tensor, x: Tensor, c: Float32Array): void => {
    const row = kernels.upload(c, 1, k)
    kernels.multiply(out, x, row)
    kernels.free(row)
  }
  /** What reaches the entries of `table` from E, whose rows count `weights` times. */
  const reach = async (table: Float32Array, weights: Tensor): Promise<Float32Array> => {
    kernels.copy(part, values)
    kernels.times(part, weights)
    const first = await columnSums(kernels, room, part)
    const zeroth = await columnSums(kernels, room, weights)
    return first.map((sum, j) => sum - table[j] * zeroth[j])
  }

  // The output: E for a gradient of 1, the same in each row but for the row's own gradient.
  const last = attentions[iterations]
  const entries = kernels.upload(tables[iterations], k, 1)
  kernels.multiply(room, ones, entries)
  kernels.free(entries)
  kernels.softmaxGradient(room, last, room, factor)
  along(slope, room, tables[iterations])
  const direct = await columnSums(kernels, last, gradient)
  const bent = await reach(tables[iterations], gradient)
  let toTable = direct.map((sum, j) => sum + bent[j])

  for (let i = iterations - 1; i >= 0; i--) {
    const [table, attention, mass] = [tables[i], attentions[i], masses[i]]
    const pull = toTable.map((g, j) => (mass[j] > 0 ? g / mass[j] : 0))
    along(part, attention, pull)
    kernels.add(shared, part)
    // ∂c_j/∂A_ij = (w_i − c_j) / mass_j for each weight of the point
    const moved = kernels.upload(
      pull.map((p, j) => p * tables[i + 1][j]),
      1,
      k,
    )
    const column = kernels.upload(pull, k, 1)
    kernels.multiply(room, values, column)
    kernels.scale(room, room, { bias: moved })
    kernels.free(moved, column)
    kernels.softmaxGradient(room, attention, room, factor)
    along(part, room, table)
    kernels.add(shared, part)
    const reached = await reach(table, counts)
    toTable = reached.map((g, j) => (mass[j] > 0 ? g : g + toTable[j]))
  }
  kernels.free(room, part, ones)
  return { slope, shared }
}

/** Σ_i x[i, j] · weights[i] for each column j. */
async function columnSums(kernels: Kernels, x: Tensor, weights: Tensor): Promise<Float32Array> {
  const sums = kernels.tensor(x.columns, 1)
  kernels.crossGram(sums, x, weights, 1)
  const read = await kernels.read(sums)
  kernels.free(sums)
  return read
}

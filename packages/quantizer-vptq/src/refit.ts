/**
 * Scales of rows and columns fitted to codes: with x the decoded entries, W' = r·x·s, and
 * tr((W − W')·H·(W − W')ᵀ) is quadratic in s for fixed r and in r for fixed s.
 */

import type { Kernels, Numbers, Tensor } from '@lowbit/core'
import { stored } from './normalize.ts'

export interface RefitInput {
  readonly kernels: Kernels
  /** [rows, columns] */
  readonly weight: Tensor
  readonly hessian: Tensor
  /** λ, added to the Hessian's diagonal. */
  readonly damping: number
  /** The entries of the codes, without scales. */
  readonly entries: Tensor
  readonly rowScale: Numbers
}

/** First the scales of the columns, from all of them at once, then each row's. */
export async function refitScales(
  input: RefitInput,
): Promise<{ rowScale: Numbers; columnScale: Numbers } | undefined> {
  const { kernels, weight, hessian, entries, rowScale } = input
  const { rows, columns } = weight
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const target = own(kernels.tensor(rows, columns))
    kernels.multiply(target, weight, hessian)
    const scaled = own(kernels.tensor(rows, columns))
    kernels.scale(scaled, entries, { rows: own(kernels.upload(rowScale.values, rows, 1)) })
    // A_jk = H_jk · Σ_i r_i² x_ij x_ik,  b_j = Σ_i r_i x_ij (W·H)_ij,  A·s = b
    const normal = own(kernels.tensor(columns, columns))
    kernels.gram(normal, scaled, 1)
    kernels.times(normal, hessian)
    const diagonal = own(kernels.tensor(1, columns))
    kernels.diagonal(diagonal, normal)
    const power = (await kernels.read(diagonal)).reduce((sum, x) => sum + x, 0) / columns
    if (!(power > 0)) return undefined
    kernels.times(scaled, target)
    const right = own(kernels.tensor(1, columns))
    const ones = own(kernels.upload(new Float32Array(rows).fill(1), 1, rows))
    const turned = own(kernels.tensor(columns, rows))
    kernels.transpose(turned, scaled)
    kernels.multiply(right, ones, turned)
    const factor = own(kernels.tensor(columns, columns))
    // A hair of damping: columns that never saw an input have no equation.
    if (!(await kernels.factorInverse(factor, normal, 1e-5 * power))) return undefined
    const half = own(kernels.tensor(1, columns))
    kernels.multiply(half, right, factor)
    const upright = own(kernels.tensor(columns, columns))
    kernels.transpose(upright, factor)
    const solution = own(kernels.tensor(1, columns))
    kernels.multiply(solution, half, upright)
    const columnScale = stored(await kernels.read(solution))
    // r_i = (W·H)_i·q_i / (q_i·H·q_i) with q_i = x_i·s
    const scale = own(kernels.upload(columnScale.values, 1, columns))
    kernels.scale(scaled, entries, { columns: scale })
    const spread = own(kernels.tensor(rows, columns))
    kernels.multiply(spread, scaled, hessian)
    kernels.times(spread, scaled)
    kernels.times(scaled, target)
    const [above, below] = [own(kernels.tensor(rows, 1)), own(kernels.tensor(rows, 1))]
    const all = own(kernels.upload(new Float32Array(columns).fill(1), 1, columns))
    kernels.multiply(above, scaled, all)
    kernels.multiply(below, spread, all)
    const [a, b] = [await kernels.read(above), await kernels.read(below)]
    const found = a.map((x, i) => (b[i] > 0 ? x / b[i] : rowScale.values[i]))
    return { rowScale: stored(found), columnScale }
  } finally {
    kernels.free(...owned)
  }
}

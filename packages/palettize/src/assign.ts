/** Which value of its palette each weight gets. */

import {
  columnOrder,
  type Factor,
  factorHessian,
  inverseOrder,
  type QuantizeInput,
  type Tensor,
} from '@lowbit/core'
import type { PaletteScheme } from './options.ts'
import type { StoredTables } from './tables/stored.ts'

/** What the feedback pass needs of the Hessian, made once for all rounds. */
export interface Feedback extends Factor {
  /** Column i of the factor is column order[i] of the weight; the natural order where there is none. */
  readonly order?: Uint32Array
}

export async function prepareFeedback(
  { kernels, hessian, name }: QuantizeInput,
  { damping }: PaletteScheme,
  diagonal: Float32Array,
  ordered = true,
): Promise<Feedback> {
  const order = columnOrder(ordered ? 'activation' : 'none', diagonal, diagonal.length)
  const made = await factorHessian(kernels, hessian!, diagonal, order, damping, name)
  return { ...made, order }
}

export interface Assignment {
  readonly kernels: QuantizeInput['kernels']
  readonly weight: Tensor
  readonly hessian?: Tensor
  /** Its tables as they are stored, in f32. */
  readonly grid: StoredTables['meaning']
  /** [rows, 1]: what a row's palette is multiplied by. */
  readonly rowScale?: Tensor
}

/** Codes and their values take the place of what `codes` (u8) and `decoded`, if any, hold: to the nearest value. */
export function assignNearest(job: Assignment, codes: Tensor, decoded?: Tensor): void {
  const { kernels, weight } = job
  const { scale, rounding, free } = scaling(job)
  kernels.round(codes, decoded, weight, scale, undefined, rounding)
  free()
}

/** The same by GPTQ's feedback pass, columns by falling diag(H). */
export function assignWithFeedback(
  job: Assignment,
  { factor, order = naturalOrder(factor.columns) }: Feedback,
  codes: Tensor,
  decoded: Tensor,
): void {
  const { kernels, weight, grid } = job
  const { rows, columns } = weight
  const { scale, rounding, free } = scaling(job)
  const working = kernels.tensor(rows, columns)
  kernels.permuteColumns(working, weight, order)
  kernels.feedback(codes, working, factor, scale, undefined, {
    ...{ ...rounding, from: 0, to: columns },
    blockOf: new Uint32Array(columns),
    tableOf: order.map((column) => Math.floor(column / grid.blocks.columns)),
  })
  kernels.permuteColumns(decoded, working, inverseOrder(order))
  kernels.free(working)
  // The pass leaves codes in its own order; values on the palette are their own nearest.
  kernels.round(codes, undefined, decoded, scale, undefined, rounding)
  free()
}

/** Sweeps of coordinate descent on (w − q)(H + λ1)(w − q)ᵀ of every row. */
export function descend(
  job: Assignment,
  { lambda }: Feedback,
  sweeps: number,
  codes: Tensor,
  decoded: Tensor,
): void {
  const { kernels, weight, hessian } = job
  const { scale, rounding, free } = scaling(job)
  for (let sweep = 0; sweep < sweeps; sweep++) {
    kernels.descend(codes, decoded, weight, hessian!, scale, undefined, {
      ...rounding,
      damping: lambda,
    })
  }
  free()
}

function scaling({ kernels, weight, grid, rowScale }: Assignment) {
  const { rows, columns } = weight
  const one = rowScale ? undefined : kernels.upload(Float32Array.of(1), 1, 1)
  return {
    scale: rowScale ?? one!,
    rounding: { grid, blockRows: rowScale ? 1 : rows, blockColumns: columns },
    free: () => {
      if (one) kernels.free(one)
    },
  }
}

const naturalOrder = (columns: number): Uint32Array =>
  Uint32Array.from({ length: columns }, (_, i) => i)

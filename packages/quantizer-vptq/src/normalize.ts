/** Scales that bring the weights of all rows and columns to one size, so that one codebook serves them all. */

import { type Kernels, type Numbers, type Tensor, toNumbers } from '@lowbit/core'
import type { VptqOptions } from './options.ts'

export interface Norm {
  /** [rows, 1] and [1, columns] as they are stored: f16. */
  readonly rowScale?: Numbers
  readonly columnScale?: Numbers
  readonly columnBias?: Numbers
}

/** Scales of rows and columns are found in turn; they hardly change after this many rounds. */
const ROUNDS = 3

/** Finds the scales of `weight` [rows, columns]: weight ≈ rowScale · x · columnScale + columnBias with x of size 1. */
export async function findNorm(
  kernels: Kernels,
  weight: Tensor,
  kind: VptqOptions['norm'],
): Promise<Norm> {
  const { rows, columns } = weight
  if (kind === 'none') return {}
  if (kind === 'range') {
    // VPTQ's own: (w − min) / (max − min) of each column.
    const [, , least, largest] = await momentsOf(kernels, weight)
    const range = largest.map((x, i) => x - least[i])
    return { columnScale: stored(range), columnBias: toNumbers('f16', least) }
  }
  let rowScale: Float32Array = new Float32Array(rows).fill(1)
  let columnScale: Float32Array = new Float32Array(columns).fill(1)
  const scaled = kernels.tensor(rows, columns)
  const turned = kernels.tensor(columns, rows)
  for (let round = 0; round < ROUNDS; round++) {
    divide(kernels, scaled, weight, rowScale, undefined)
    columnScale = root((await momentsOf(kernels, scaled))[1])
    divide(kernels, scaled, weight, undefined, columnScale)
    kernels.transpose(turned, scaled)
    rowScale = root((await momentsOf(kernels, turned))[1])
  }
  kernels.free(scaled, turned)
  // Both can be scaled against each other: rows around 1 lie best in f16.
  const mean = rowScale.reduce((sum, x) => sum + x, 0) / rows || 1
  return {
    rowScale: stored(rowScale.map((x) => x / mean)),
    columnScale: stored(columnScale.map((x) => x * mean)),
  }
}

/** out = (weight − bias) / rows / columns. */
export function divideByNorm(kernels: Kernels, out: Tensor, weight: Tensor, norm: Norm): void {
  const { rowScale, columnScale, columnBias } = norm
  divide(kernels, out, weight, rowScale?.values, columnScale?.values, columnBias?.values)
}

function divide(
  kernels: Kernels,
  out: Tensor,
  weight: Tensor,
  rows?: Float32Array,
  columns?: Float32Array,
  bias?: Float32Array,
): void {
  const inverse = (values: Float32Array): Float32Array => values.map((x) => (x === 0 ? 0 : 1 / x))
  const tensors = {
    ...(rows && { rows: kernels.upload(inverse(rows), rows.length, 1) }),
    ...(columns && { columns: kernels.upload(inverse(columns), 1, columns.length) }),
    ...(bias && { bias: kernels.upload(bias, 1, bias.length) }),
  }
  kernels.scale(out, weight, tensors)
  kernels.free(...Object.values(tensors))
}

async function momentsOf(kernels: Kernels, x: Tensor): Promise<Float32Array[]> {
  const moments = kernels.tensor(4, x.columns)
  kernels.columnMoments(moments, x)
  const values = await kernels.read(moments)
  kernels.free(moments)
  return [0, 1, 2, 3].map((i) => values.slice(i * x.columns, (i + 1) * x.columns))
}

const root = (squares: Float32Array): Float32Array => squares.map(Math.sqrt)

/** f16, and never 0 but where all weights are. */
export function stored(values: Float32Array): Numbers {
  const numbers = toNumbers('f16', values)
  numbers.values.forEach((x, i) => {
    if (x === 0 && values[i] !== 0) numbers.values[i] = Math.sign(values[i]) * 2 ** -24
  })
  return numbers
}

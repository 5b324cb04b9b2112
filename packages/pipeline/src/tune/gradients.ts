/** Gradients of the factors by which a matrix's scales are tuned, and what its tables need. */

import type { Kernels, QuantizedMatrix, Tensor, Weight } from '@lowbit/core'

export interface ScaleGradients {
  /** Of the sum of the stages, [rows, columns] in stored order, if asked for; the caller frees it. */
  readonly entries?: Tensor
  readonly rows?: Float64Array
  readonly columns?: Float64Array
}

/**
 * With W' = rowScale · x · columnScale in the domain of the rotated inputs, a factor on row i has the gradient
 * Σ_j dW'_ij·W'_ij and one on column j the sum over i. dW = dYᵀ·X, turned as the inputs are.
 */
export async function scaleGradients(
  kernels: Kernels,
  matrix: QuantizedMatrix,
  weight: Weight,
  input: Tensor,
  output: Tensor,
  wantsEntries: boolean,
): Promise<ScaleGradients> {
  const { rows, columns } = matrix
  const gradient = kernels.tensor(rows, columns)
  kernels.crossGram(gradient, output, input, 1)
  const dense = kernels.tensor(rows, columns)
  kernels.gather(dense, weight)
  if (matrix.rotation?.input) {
    kernels.rotate(gradient, matrix.rotation.input)
    kernels.rotate(dense, matrix.rotation.input)
  }
  const entries = wantsEntries ? entryGradient(kernels, matrix, gradient) : undefined
  kernels.times(gradient, dense)
  kernels.free(dense)
  const across = kernels.upload(new Float32Array(columns).fill(1), 1, columns)
  const down = kernels.upload(new Float32Array(rows).fill(1), 1, rows)
  const byRow = kernels.tensor(rows, 1)
  const byColumn = kernels.tensor(1, columns)
  kernels.multiply(byRow, gradient, across)
  kernels.multiplyTransposed(byColumn, down, gradient)
  const found = {
    entries,
    ...(matrix.rowScale && { rows: Float64Array.from(await kernels.read(byRow)) }),
    ...(matrix.columnScale && { columns: Float64Array.from(await kernels.read(byColumn)) }),
  }
  kernels.free(gradient, across, down, byRow, byColumn)
  return found
}

/** dW · rowScale · columnScale with columns in the order in which they are stored. */
function entryGradient(kernels: Kernels, matrix: QuantizedMatrix, gradient: Tensor): Tensor {
  const { rows, columns, rowScale, columnScale, order } = matrix
  const out = kernels.tensor(rows, columns)
  const scales = {
    ...(rowScale && { rows: kernels.upload(rowScale.values, rows, 1) }),
    ...(columnScale && { columns: kernels.upload(columnScale.values, 1, columns) }),
  }
  if (!order) {
    kernels.scale(out, gradient, scales)
  } else {
    const natural = kernels.tensor(rows, columns)
    kernels.scale(natural, gradient, scales)
    kernels.permuteColumns(out, natural, order)
    kernels.free(natural)
  }
  kernels.free(...Object.values(scales))
  return out
}

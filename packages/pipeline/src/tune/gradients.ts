/** Gradients of the factors by which a matrix's scales are tuned. */

import type { Kernels, QuantizedMatrix, Tensor, Weight } from '@lowbit/core'

export interface ScaleGradients {
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
  kernels.times(gradient, dense)
  kernels.free(dense)
  const across = kernels.upload(new Float32Array(columns).fill(1), 1, columns)
  const down = kernels.upload(new Float32Array(rows).fill(1), 1, rows)
  const byRow = kernels.tensor(rows, 1)
  const byColumn = kernels.tensor(1, columns)
  kernels.multiply(byRow, gradient, across)
  kernels.multiplyTransposed(byColumn, down, gradient)
  const found = {
    ...(matrix.rowScale && { rows: Float64Array.from(await kernels.read(byRow)) }),
    ...(matrix.columnScale && { columns: Float64Array.from(await kernels.read(byColumn)) }),
  }
  kernels.free(gradient, across, down, byRow, byColumn)
  return found
}

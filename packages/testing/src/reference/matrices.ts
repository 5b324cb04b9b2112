/** Products with a loaded matrix: decoded once, then multiplied as if it had always been dense. */

import {
  type DenseMatrix,
  decode,
  isQuantized,
  type Kernels,
  LowbitError,
  type Matrix,
  toFloat32,
  validateMatrix,
  type Weight,
} from '@lowbit/core'
import { checkIndices, checkShape, type Memory } from './memory.ts'

/** The dense values of any matrix. */
export function denseValues(matrix: Matrix): Float32Array {
  return isQuantized(matrix) ? decode(matrix) : denseFloats(matrix)
}

function denseFloats({ rows, columns, type, values }: DenseMatrix): Float32Array {
  if (values.length !== rows * columns) {
    throw new LowbitError('bad-shape', `${values.length} values for ${rows} × ${columns}`)
  }
  if (values instanceof Float32Array) return values.slice()
  return toFloat32(type === 'bf16' ? 'bf16' : 'f16', values)
}

export function matrixOperations(
  memory: Memory,
): Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'> {
  const loaded = new WeakMap<Weight, Float32Array>()

  const values = (weight: Weight): Float32Array => {
    const found = loaded.get(weight)
    if (!found) throw new LowbitError('bad-weight', 'a weight that is not loaded here')
    return found
  }

  return {
    load(matrix) {
      if (isQuantized(matrix)) validateMatrix(matrix, 'matrix')
      const dense = denseValues(matrix)
      const { rows, columns } = matrix
      const weight = { rows, columns, bytes: dense.byteLength, variant: 'decoded to f32' }
      memory.count(weight.bytes)
      loaded.set(weight, dense)
      return weight
    },
    unload(weight) {
      values(weight)
      loaded.delete(weight)
      memory.count(-weight.bytes)
    },
    matmul(out, x, weight, options = {}) {
      const { rows, columns } = weight
      checkShape('x', x, x.rows, columns)
      checkShape('out', out, x.rows, rows)
      const w = values(weight)
      const a = memory.floats(x)
      const y = memory.floats(out)
      for (let t = 0; t < x.rows; t++) {
        for (let n = 0; n < rows; n++) {
          let sum = options.accumulate ? y[t * rows + n] : 0
          for (let k = 0; k < columns; k++) sum += a[t * columns + k] * w[n * columns + k]
          y[t * rows + n] = sum
        }
      }
    },
    gather(out, weight, rows) {
      const { columns } = weight
      if (rows) checkIndices('rows', rows, weight.rows)
      checkShape('out', out, rows?.length ?? weight.rows, columns)
      const w = values(weight)
      const y = memory.floats(out)
      for (let i = 0; i < out.rows; i++) {
        const row = rows ? rows[i] : i
        y.set(w.subarray(row * columns, (row + 1) * columns), i * columns)
      }
    },
  }
}

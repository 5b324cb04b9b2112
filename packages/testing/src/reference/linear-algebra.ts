/** Products and factorizations of calibration, summed in f64. */

import type { Kernels } from '@lowbit/core'
import { checkIndices, checkShape, type Memory } from './memory.ts'

/** A pivot below this share of its diagonal is noise in f32. */
const SMALLEST_PIVOT = 2 ** -24

export function linearAlgebra(
  memory: Memory,
): Pick<
  Kernels,
  | 'multiply'
  | 'gram'
  | 'crossGram'
  | 'factorInverse'
  | 'diagonal'
  | 'permuteColumns'
  | 'columnMoments'
  | 'scale'
  | 'times'
  | 'distance'
> {
  const { floats } = memory
  return {
    multiply(out, a, b) {
      const size = a.columns
      checkShape('b', b, b.rows, size)
      checkShape('out', out, a.rows, b.rows)
      const [y, p, q] = [floats(out), floats(a), floats(b)]
      for (let t = 0; t < a.rows; t++) {
        for (let n = 0; n < b.rows; n++) {
          let sum = 0
          for (let k = 0; k < size; k++) sum += p[t * size + k] * q[n * size + k]
          y[t * b.rows + n] = sum
        }
      }
    },
    gram(hessian, x, factor) {
      const n = x.columns
      checkShape('hessian', hessian, n, n)
      const [h, values] = [floats(hessian), floats(x)]
      for (let i = 0; i < n; i++) {
        for (let j = 0; j <= i; j++) {
          let sum = 0
          for (let t = 0; t < x.rows; t++) sum += values[t * n + i] * values[t * n + j]
          h[i * n + j] += factor * sum
          if (i !== j) h[j * n + i] += factor * sum
        }
      }
    },
    crossGram(out, a, b, factor) {
      const [m, n] = [a.columns, b.columns]
      checkShape('b', b, a.rows, n)
      checkShape('out', out, m, n)
      const [y, p, q] = [floats(out), floats(a), floats(b)]
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0
          for (let t = 0; t < a.rows; t++) sum += p[t * m + i] * q[t * n + j]
          y[i * n + j] += factor * sum
        }
      }
    },
    async factorInverse(out, hessian, damping, order) {
      const n = hessian.rows
      checkShape('hessian', hessian, n, n)
      checkShape('out', out, n, n)
      if (order) {
        checkIndices('order', order, n)
        checkShape('order', { rows: 1, columns: order.length, type: 'f32' }, 1, n)
      }
      const h = floats(hessian)
      const at = (i: number): number => (order ? order[i] : i)
      const damped = Float64Array.from({ length: n * n }, (_, index) => {
        const [i, j] = [Math.floor(index / n), index % n]
        return h[at(i) * n + at(j)] + (i === j ? damping : 0)
      })
      const factor = inverseFactor(damped, n)
      if (factor) floats(out).set(factor)
      return factor !== undefined
    },
    diagonal(out, matrix) {
      const n = matrix.rows
      checkShape('matrix', matrix, n, n)
      checkShape('out', out, 1, n)
      const [y, values] = [floats(out), floats(matrix)]
      for (let i = 0; i < n; i++) y[i] = values[i * n + i]
    },
    permuteColumns(out, x, order) {
      checkIndices('order', order, x.columns)
      checkShape('out', out, x.rows, order.length)
      const [y, values] = [floats(out), floats(x)]
      for (let row = 0; row < x.rows; row++) {
        order.forEach((from, to) => {
          y[row * order.length + to] = values[row * x.columns + from]
        })
      }
    },
    columnMoments(out, x) {
      const { rows, columns } = x
      checkShape('out', out, 4, columns)
      const values = floats(x)
      for (let column = 0; column < columns; column++) {
        let [sum, squares, least, largest] = [0, 0, Number.POSITIVE_INFINITY, -Infinity]
        for (let row = 0; row < rows; row++) {
          const value = values[row * columns + column]
          sum += value
          squares += value * value
          least = Math.min(least, value)
          largest = Math.max(largest, value)
        }
        const moments = [sum / rows, squares / rows, least, largest]
        moments.forEach((moment, i) => {
          floats(out)[i * columns + column] = moment
        })
      }
    },
    scale(out, x, factors) {
      const { rows, columns } = x
      checkShape('out', out, rows, columns)
      if (factors.rows) checkShape('rows', factors.rows, rows, 1)
      if (factors.columns) checkShape('columns', factors.columns, 1, columns)
      if (factors.bias) checkShape('bias', factors.bias, 1, columns)
      const [r, c, b] = [factors.rows, factors.columns, factors.bias].map((t) => t && floats(t))
      const [y, values] = [floats(out), floats(x)]
      for (let i = 0; i < rows * columns; i++) {
        const [row, column] = [Math.floor(i / columns), i % columns]
        y[i] = (values[i] - (b ? b[column] : 0)) * (r ? r[row] : 1) * (c ? c[column] : 1)
      }
    },
    times(x, y) {
      checkShape('y', y, x.rows, x.columns)
      const [values, factors] = [floats(x), floats(y)]
      for (let i = 0; i < values.length; i++) values[i] *= factors[i]
    },
    async distance(a, b, hessian) {
      const n = a.columns
      if (b) checkShape('b', b, a.rows, n)
      if (hessian) checkShape('hessian', hessian, n, n)
      const [p, q, h] = [floats(a), b && floats(b), hessian && floats(hessian)]
      let sum = 0
      for (let row = 0; row < a.rows; row++) {
        const d = Array.from({ length: n }, (_, k) => {
          const index = row * n + k
          return p[index] - (q ? q[index] : 0)
        })
        for (let i = 0; i < n; i++) {
          let product = h ? 0 : d[i]
          if (h) for (let j = 0; j < n; j++) product += h[i * n + j] * d[j]
          sum += d[i] * product
        }
      }
      return sum
    },
  }
}

/**
 * U with A⁻¹ = UᵀU. With A = R·Rᵀ for an upper triangular R (Cholesky's algorithm from the last row
 * up) it is U = R⁻¹, and no inverse needs factoring. Undefined where A is not positive definite.
 */
function inverseFactor(a: Float64Array, n: number): Float32Array | undefined {
  const r = new Float64Array(n * n)
  for (let j = n - 1; j >= 0; j--) {
    let pivot = a[j * n + j]
    for (let k = j + 1; k < n; k++) pivot -= r[j * n + k] ** 2
    if (!(pivot > SMALLEST_PIVOT * a[j * n + j] && Number.isFinite(pivot))) return undefined
    r[j * n + j] = Math.sqrt(pivot)
    for (let i = 0; i < j; i++) {
      let sum = a[i * n + j]
      for (let k = j + 1; k < n; k++) sum -= r[i * n + k] * r[j * n + k]
      r[i * n + j] = sum / r[j * n + j]
    }
  }
  const u = new Float32Array(n * n)
  for (let j = 0; j < n; j++) {
    const column = new Float64Array(n)
    column[j] = 1 / r[j * n + j]
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0
      for (let k = i + 1; k <= j; k++) sum -= r[i * n + k] * column[k]
      column[i] = sum / r[i * n + i]
    }
    for (let i = 0; i <= j; i++) u[i * n + j] = column[i]
  }
  return u.every(Number.isFinite) ? u : undefined
}

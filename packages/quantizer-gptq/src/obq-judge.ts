/**
 * Optimal Brain Quantization, slow and plain (Frantar & Alistarh, 2208.11580, section 5): one weight at a
 * time is rounded and removed, the inverse Hessian is downdated in full. GPTQ in the same order must
 * give the same codes. For tests only.
 */

export interface ObqGrid {
  /** One scale and zero point a row. */
  readonly scale: Float32Array
  readonly zero: Float32Array
  readonly top: number
  /** Share of the mean diagonal. */
  readonly damping: number
}

export function obq(
  weight: Float32Array,
  hessian: Float32Array,
  rows: number,
  columns: number,
  { scale, zero, top, damping }: ObqGrid,
): Uint8Array {
  const codes = new Uint8Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    const w = Float64Array.from(weight.subarray(row * columns, (row + 1) * columns))
    const inverse = invert(damped(hessian, columns, damping), columns)
    for (let p = 0; p < columns; p++) {
      const code = Math.min(top, Math.max(0, roundHalfEven(w[p] / scale[row]) + zero[row]))
      codes[row * columns + p] = code
      const error = (w[p] - scale[row] * (code - zero[row])) / inverse[p * columns + p]
      for (let k = p; k < columns; k++) w[k] -= error * inverse[p * columns + k]
      const pivot = inverse[p * columns + p]
      for (let i = p + 1; i < columns; i++) {
        const factor = inverse[i * columns + p] / pivot
        for (let j = p; j < columns; j++)
          inverse[i * columns + j] -= factor * inverse[p * columns + j]
      }
    }
  }
  return codes
}

function damped(hessian: Float32Array, n: number, share: number): Float64Array {
  const out = Float64Array.from(hessian)
  let mean = 0
  for (let i = 0; i < n; i++) mean += out[i * n + i] / n
  for (let i = 0; i < n; i++) out[i * n + i] += share * mean
  return out
}

/** Gauss–Jordan with pivots on the diagonal: the matrix is positive definite. */
function invert(matrix: Float64Array, n: number): Float64Array {
  const a = matrix.slice()
  const out = new Float64Array(n * n)
  for (let i = 0; i < n; i++) out[i * n + i] = 1
  for (let p = 0; p < n; p++) {
    const pivot = a[p * n + p]
    for (let j = 0; j < n; j++) {
      a[p * n + j] /= pivot
      out[p * n + j] /= pivot
    }
    for (let i = 0; i < n; i++) {
      if (i === p) continue
      const factor = a[i * n + p]
      for (let j = 0; j < n; j++) {
        a[i * n + j] -= factor * a[p * n + j]
        out[i * n + j] -= factor * out[p * n + j]
      }
    }
  }
  return out
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x)
  const rest = x - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor
}

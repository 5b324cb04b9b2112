/** The operations between a decoder's matrices. */

import { type Kernels, LowbitError, normalDistribution } from '@lowbit/core'
import { checkShape, type Memory } from './memory.ts'

const ACTIVATIONS = {
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_erf: (x: number) => x * normalDistribution(x),
  relu: (x: number) => Math.max(0, x),
}

export function decoder(
  memory: Memory,
): Pick<Kernels, 'rmsNorm' | 'layerNorm' | 'add' | 'rope' | 'activate' | 'attention'> {
  const { floats } = memory
  return {
    rmsNorm(out, x, gain, epsilon) {
      const n = x.columns
      checkShape('gain', gain, 1, n)
      checkShape('out', out, x.rows, n)
      const [y, values, g] = [floats(out), floats(x), floats(gain)]
      for (let row = 0; row < x.rows; row++) {
        const line = values.slice(row * n, (row + 1) * n)
        const square = mean(line.length, (i) => line[i] ** 2)
        const factor = 1 / Math.sqrt(square + epsilon)
        for (let i = 0; i < n; i++) y[row * n + i] = line[i] * factor * g[i]
      }
    },
    layerNorm(out, x, gain, bias, epsilon) {
      const n = x.columns
      checkShape('gain', gain, 1, n)
      if (bias) checkShape('bias', bias, 1, n)
      checkShape('out', out, x.rows, n)
      const [y, values, g, b] = [floats(out), floats(x), floats(gain), bias && floats(bias)]
      for (let row = 0; row < x.rows; row++) {
        const line = values.slice(row * n, (row + 1) * n)
        const center = mean(n, (i) => line[i])
        const variance = mean(n, (i) => (line[i] - center) ** 2)
        const factor = 1 / Math.sqrt(variance + epsilon)
        for (let i = 0; i < n; i++) {
          y[row * n + i] = (line[i] - center) * factor * g[i] + (b ? b[i] : 0)
        }
      }
    },
    add(x, y) {
      if (y.rows !== 1) checkShape('y', y, x.rows, x.columns)
      else checkShape('y', y, 1, x.columns)
      const [a, b] = [floats(x), floats(y)]
      for (let i = 0; i < a.length; i++) a[i] += b[i % b.length]
    },
    rope(x, cos, sin, headSize, start) {
      const half = headSize / 2
      checkShape('cos', cos, cos.rows, half)
      checkShape('sin', sin, cos.rows, half)
      if (x.columns % headSize !== 0 || start < 0 || start + x.rows > cos.rows) {
        throw new LowbitError(
          'bad-shape',
          `${x.rows} × ${x.columns} from position ${start} on, heads of ${headSize}, ${cos.rows} positions`,
        )
      }
      const [values, c, s] = [floats(x), floats(cos), floats(sin)]
      for (let t = 0; t < x.rows; t++) {
        for (let head = 0; head < x.columns; head += headSize) {
          for (let i = 0; i < half; i++) {
            const first = t * x.columns + head + i
            const turn = (start + t) * half + i
            const [a, b] = [values[first], values[first + half]]
            values[first] = a * c[turn] - b * s[turn]
            values[first + half] = b * c[turn] + a * s[turn]
          }
        }
      }
    },
    activate(out, gate, up, kind) {
      checkShape('out', out, gate.rows, gate.columns)
      if (up) checkShape('up', up, gate.rows, gate.columns)
      const [y, g, u] = [floats(out), floats(gate), up && floats(up)]
      for (let i = 0; i < y.length; i++) y[i] = ACTIVATIONS[kind](g[i]) * (u ? u[i] : 1)
    },
    attention(out, q, k, v, { heads, keyValueHeads, headSize, scale, start }) {
      const width = keyValueHeads * headSize
      checkShape('q', q, q.rows, heads * headSize)
      checkShape('out', out, q.rows, heads * headSize)
      checkShape('k', k, Math.max(k.rows, start + q.rows), width)
      checkShape('v', v, Math.max(v.rows, start + q.rows), width)
      if (start < 0 || heads % keyValueHeads !== 0) {
        throw new LowbitError('bad-shape', `${heads} heads share ${keyValueHeads} of keys`)
      }
      const [y, queries, keys, values] = [floats(out), floats(q), floats(k), floats(v)]
      const result = new Float32Array(y.length)
      for (let t = 0; t < q.rows; t++) {
        for (let head = 0; head < heads; head++) {
          const query = t * heads * headSize + head * headSize
          const shared = Math.floor((head * keyValueHeads) / heads) * headSize
          const scores = Array.from({ length: start + t + 1 }, (_, s) => {
            let sum = 0
            for (let i = 0; i < headSize; i++) {
              sum += queries[query + i] * keys[s * width + shared + i]
            }
            return sum * scale
          })
          const weights = softmaxOf(scores)
          for (let i = 0; i < headSize; i++) {
            let sum = 0
            for (let s = 0; s < weights.length; s++)
              sum += weights[s] * values[s * width + shared + i]
            result[query + i] = sum
          }
        }
      }
      y.set(result)
    },
  }
}

function mean(count: number, value: (i: number) => number): number {
  let sum = 0
  for (let i = 0; i < count; i++) sum += value(i)
  return sum / count
}

/** exp(x − max) / Σ: no overflow whatever the size of x. */
export function softmaxOf(x: ArrayLike<number>): Float64Array {
  let most = -Infinity
  for (let i = 0; i < x.length; i++) most = Math.max(most, x[i])
  const powers = Float64Array.from(x, (value) => Math.exp(value - most))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / sum)
}

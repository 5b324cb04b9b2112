/** The decoder's operations backward, as the chain rule has them. */

import {
  type Activation,
  type GradientKernels,
  LowbitError,
  normalDistribution,
} from '@lowbit/core'
import { softmaxOf } from './decoder.ts'
import { checkIndices, checkShape, type Memory } from './memory.ts'

/** [f(x), f′(x)] */
const ACTIVATIONS: Record<Activation, (x: number) => readonly [number, number]> = {
  silu(x) {
    const s = 1 / (1 + Math.exp(-x))
    return [x * s, s + silent(x * s * (1 - s))]
  },
  gelu(x) {
    const root = Math.sqrt(2 / Math.PI)
    const t = Math.tanh(root * (x + 0.044715 * x ** 3))
    const slope = silent(0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x))
    return [0.5 * x * (1 + t), 0.5 * (1 + t) + slope]
  },
  gelu_erf(x) {
    const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI)
    return [x * normalDistribution(x), normalDistribution(x) + silent(x * density)]
  },
  relu: (x) => [Math.max(0, x), x > 0 ? 1 : 0],
}

/** Far out the products of a vanishing factor and a huge one are 0, not ∞ · 0. */
const silent = (x: number): number => (Number.isFinite(x) ? x : 0)

export function gradients(memory: Memory): GradientKernels {
  const { floats } = memory
  return {
    multiplyTransposed(out, a, b, { accumulate = false } = {}) {
      const [depth, columns] = [b.rows, b.columns]
      checkShape('a', a, a.rows, depth)
      checkShape('out', out, a.rows, columns)
      const [y, p, q] = [floats(out), floats(a), floats(b)]
      for (let t = 0; t < a.rows; t++) {
        for (let n = 0; n < columns; n++) {
          let sum = accumulate ? y[t * columns + n] : 0
          for (let k = 0; k < depth; k++) sum += p[t * depth + k] * q[k * columns + n]
          y[t * columns + n] = sum
        }
      }
    },
    normGradient(gradients, out, x, gain, { kind, epsilon }) {
      const { rows, columns: n } = x
      checkShape('out', out, rows, n)
      checkShape('gain', gain, 1, n)
      checkShape('the gradient of x', gradients.input, rows, n)
      if (gradients.gain) checkShape('the gradient of gain', gradients.gain, 1, n)
      if (gradients.bias) checkShape('the gradient of bias', gradients.bias, 1, n)
      const [dy, values, g, dx] = [out, x, gain, gradients.input].map(floats)
      const dGain = new Float64Array(n)
      const dBias = new Float64Array(n)
      for (let row = 0; row < rows; row++) {
        const at = row * n
        const line = Float64Array.from(values.subarray(at, at + n))
        const center = kind === 'layer' ? average(line) : 0
        const factor = 1 / Math.sqrt(average(line.map((v) => (v - center) ** 2)) + epsilon)
        const unit = line.map((v) => (v - center) * factor)
        const d = unit.map((_, i) => dy[at + i] * g[i])
        const along = average(d.map((v, i) => v * unit[i]))
        const level = kind === 'layer' ? average(d) : 0
        for (let i = 0; i < n; i++) {
          dGain[i] += dy[at + i] * unit[i]
          dBias[i] += dy[at + i]
          dx[at + i] += factor * (d[i] - level - unit[i] * along)
        }
      }
      for (const [tensor, sums] of [
        [gradients.gain, dGain],
        [gradients.bias, dBias],
      ] as const) {
        if (tensor) for (let i = 0; i < n; i++) floats(tensor)[i] += sums[i]
      }
    },
    activateGradient(gradients, out, gate, up, kind) {
      const { rows, columns } = gate
      for (const tensor of [out, up, gradients.gate, gradients.up]) {
        if (tensor) checkShape('a gradient or up', tensor, rows, columns)
      }
      checkPair(up !== undefined, gradients.up !== undefined)
      const [dGate, dUp] = [floats(gradients.gate), gradients.up && floats(gradients.up)]
      const [dy, g, u] = [floats(out), floats(gate), up && floats(up)]
      for (let i = 0; i < g.length; i++) {
        const [value, slope] = ACTIVATIONS[kind](g[i])
        const [d, factor] = [dy[i], u ? u[i] : 1]
        dGate[i] = d * factor * slope
        if (dUp) dUp[i] = d * value
      }
    },
    attentionGradient(gradients, out, q, k, v, { heads, keyValueHeads, headSize, scale, start }) {
      const [width, keyWidth] = [heads * headSize, keyValueHeads * headSize]
      const keys = start + q.rows
      checkShape('q', q, q.rows, width)
      checkShape('out', out, q.rows, width)
      checkShape('k', k, Math.max(k.rows, keys), keyWidth)
      checkShape('v', v, Math.max(v.rows, keys), keyWidth)
      checkShape('the gradient of q', gradients.q, q.rows, width)
      checkShape('the gradient of k', gradients.k, k.rows, keyWidth)
      checkShape('the gradient of v', gradients.v, v.rows, keyWidth)
      if (start < 0 || heads % keyValueHeads !== 0) {
        throw new LowbitError('bad-shape', `${heads} heads share ${keyValueHeads} of keys`)
      }
      const [dy, queries, keyed, values] = [out, q, k, v].map(floats)
      const dq = new Float64Array(queries.length)
      const dk = new Float64Array(keyed.length)
      const dv = new Float64Array(values.length)
      for (let t = 0; t < q.rows; t++) {
        for (let head = 0; head < heads; head++) {
          const at = t * width + head * headSize
          const shared = Math.floor((head * keyValueHeads) / heads) * headSize
          const seen = Array.from({ length: start + t + 1 }, (_, s) => s * keyWidth + shared)
          const dot = (a: Float32Array, b: Float32Array, from: number): number => {
            let sum = 0
            for (let i = 0; i < headSize; i++) sum += a[at + i] * b[from + i]
            return sum
          }
          const p = softmaxOf(seen.map((from) => scale * dot(queries, keyed, from)))
          const dp = seen.map((from) => dot(dy, values, from))
          const level = dp.reduce((sum, d, s) => sum + p[s] * d, 0)
          for (const [s, from] of seen.entries()) {
            const ds = scale * p[s] * (dp[s] - level)
            for (let i = 0; i < headSize; i++) {
              dq[at + i] += ds * keyed[from + i]
              dk[from + i] += ds * queries[at + i]
              dv[from + i] += p[s] * dy[at + i]
            }
          }
        }
      }
      floats(gradients.q).set(dq)
      floats(gradients.k).set(dk)
      floats(gradients.v).set(dv)
    },
    crossEntropyGradient(out, logits, targets, factor) {
      const { rows, columns } = logits
      checkShape('out', out, rows, columns)
      checkShape('targets', { rows: targets.length, columns: 1, type: 'f32' }, rows, 1)
      checkIndices('targets', targets, columns)
      const [y, values] = [floats(out), floats(logits)]
      for (let row = 0; row < rows; row++) {
        const p = softmaxOf(values.subarray(row * columns, (row + 1) * columns))
        p[targets[row]] -= 1
        for (let i = 0; i < columns; i++) y[row * columns + i] = factor * p[i]
      }
    },
    divergenceGradient(out, reference, logits, factor) {
      const { rows, columns } = logits
      checkShape('out', out, rows, columns)
      checkShape('reference', reference, rows, columns)
      const [y, truth, guess] = [floats(out), floats(reference), floats(logits)]
      for (let row = 0; row < rows; row++) {
        const [p, q] = [truth, guess].map((x) =>
          softmaxOf(x.subarray(row * columns, (row + 1) * columns)),
        )
        for (let i = 0; i < columns; i++) y[row * columns + i] = factor * (q[i] - p[i])
      }
    },
  }
}

function checkPair(up: boolean, gradient: boolean): void {
  if (up !== gradient) {
    throw new LowbitError('bad-shape', 'up and its gradient come together or not at all')
  }
}

function average(x: Float64Array): number {
  return x.reduce((sum, value) => sum + value, 0) / x.length
}

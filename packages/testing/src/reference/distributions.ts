/** What is done with logits. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { softmaxOf } from './decoder.ts'
import { checkIndices, checkShape, type Memory } from './memory.ts'

export function distributions(
  memory: Memory,
): Pick<Kernels, 'softmax' | 'crossEntropy' | 'divergence' | 'sample'> {
  const { floats } = memory
  return {
    softmax(x) {
      const values = floats(x)
      for (let row = 0; row < x.rows; row++) {
        const from = row * x.columns
        values.set(softmaxOf(values.subarray(from, from + x.columns)), from)
      }
    },
    crossEntropy(out, logits, targets) {
      checkShape('out', out, logits.rows, 1)
      checkShape('targets', { rows: targets.length, columns: 1, type: 'f32' }, logits.rows, 1)
      checkIndices('targets', targets, logits.columns)
      const [y, values] = [floats(out), floats(logits)]
      for (let row = 0; row < logits.rows; row++) {
        const from = row * logits.columns
        y[row] = -logSoftmax(values.subarray(from, from + logits.columns))[targets[row]]
      }
    },
    divergence(out, reference, logits) {
      const { rows, columns } = reference
      checkShape('logits', logits, rows, columns)
      checkShape('out', out, rows, 1)
      const [y, p, q] = [floats(out), floats(reference), floats(logits)]
      for (let row = 0; row < rows; row++) {
        const from = row * columns
        const truth = logSoftmax(p.subarray(from, from + columns))
        const guess = logSoftmax(q.subarray(from, from + columns))
        y[row] = truth.reduce((sum, log, i) => {
          return log === -Infinity ? sum : sum + Math.exp(log) * (log - guess[i])
        }, 0)
      }
    },
    async sample(logits, { temperature, topK, topP, random }) {
      checkShape('logits', logits, 1, logits.columns)
      const values = floats(logits)
      if (values.length === 0) throw new LowbitError('bad-shape', 'no logits to sample from')
      const falling = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b)
      if (temperature === 0) return falling[0]
      const kept = topK > 0 ? falling.slice(0, topK) : falling
      const scaled = kept.map((token) => (values[token] - values[falling[0]]) / temperature)
      const probabilities = softmaxOf(scaled)
      // The fewest tokens that together reach topP.
      let count = 0
      let mass = 0
      while (count < kept.length && (count === 0 || mass < topP)) mass += probabilities[count++]
      let left = random * mass
      for (let i = 0; i < count; i++) {
        left -= probabilities[i]
        if (left < 0) return kept[i]
      }
      return kept[count - 1]
    },
  }
}

/** x − max − log Σ exp(x − max). */
function logSoftmax(x: Float32Array): Float64Array {
  const most = x.reduce((a, b) => Math.max(a, b), -Infinity)
  const sum = x.reduce((total, value) => total + Math.exp(value - most), 0)
  return Float64Array.from(x, (value) => value - most - Math.log(sum))
}

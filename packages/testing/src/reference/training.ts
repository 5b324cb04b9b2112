/** Soft assignment, equal values and Adam, as their definitions have them. */

import { LowbitError, type TrainingKernels } from '@lowbit/core'
import { softmaxOf } from './decoder.ts'
import { checkShape, type Memory } from './memory.ts'

const MOST_VALUES = 65536

export function training(memory: Memory): TrainingKernels {
  const { floats, codes: codesOf } = memory
  return {
    softAssign(out, x, table, { temperature, gumbel }) {
      const [k, d] = [table.rows, table.columns]
      checkShape('x', x, x.rows, d)
      checkShape('out', out, x.rows, k)
      if (k > 256 || d > 16) throw new LowbitError('bad-shape', `no table is ${k} × ${d}`)
      if (!(temperature >= 0)) throw new LowbitError('bad-option', 'a temperature is 0 or more')
      const [y, points, entries] = [out, x, table].map(floats)
      for (let i = 0; i < x.rows; i++) {
        const distances = Array.from({ length: k }, (_, j) => {
          let sum = 0
          for (let e = 0; e < d; e++) sum += (points[i * d + e] - entries[j * d + e]) ** 2
          return sum
        })
        if (temperature === 0) {
          const nearest = distances.indexOf(Math.min(...distances))
          for (let j = 0; j < k; j++) y[i * k + j] = j === nearest ? 1 : 0
          continue
        }
        const logits = distances.map((distance, j) => {
          const noise = gumbel === undefined ? 0 : gumbelNoise(gumbel, i * k + j)
          return -distance / temperature + noise
        })
        y.set(softmaxOf(Float64Array.from(logits)), i * k)
      }
    },

    softmaxGradient(out, p, gradient, factor) {
      const { rows, columns } = p
      checkShape('the gradient', gradient, rows, columns)
      checkShape('out', out, rows, columns)
      const [y, q, g] = [out, p, gradient].map(floats)
      for (let row = 0; row < rows; row++) {
        let mean = 0
        for (let j = 0; j < columns; j++) mean += q[row * columns + j] * g[row * columns + j]
        for (let i = row * columns; i < (row + 1) * columns; i++)
          y[i] = factor * q[i] * (g[i] - mean)
      }
    },

    async distinct(values, counts, codes, x) {
      const most = Math.min(MOST_VALUES, x.rows * x.columns)
      checkShape('values', values, most, 1)
      checkShape('counts', counts, most, 1)
      checkShape('codes', codes, x.rows, x.columns)
      if (codes.type !== 'u16') throw new LowbitError('bad-type', 'codes of values are u16')
      const [v, n, c] = [floats(values), floats(counts), codesOf(codes)]
      const rounded = (bits: number) => Array.from(floats(x), (value) => significant(value, bits))
      let all = rounded(11)
      if (new Set(all).size > most) all = rounded(8)
      const sorted = [...new Set(all)].sort((a, b) => a - b)
      const place = new Map(sorted.map((value, i) => [value, i]))
      v.set(sorted)
      n.fill(0, 0, sorted.length)
      for (const [i, value] of all.entries()) {
        c[i] = place.get(value)!
        n[c[i]]++
      }
      return sorted.length
    },

    adam(x, mean, square, gradient, { step, rate, beta1 = 0.9, beta2 = 0.95 }) {
      for (const tensor of [mean, square, gradient]) {
        checkShape('moments and gradient', tensor, x.rows, x.columns)
      }
      const [w, m, v, g] = [x, mean, square, gradient].map(floats)
      for (let i = 0; i < w.length; i++) {
        m[i] = beta1 * m[i] + (1 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
        const size = Math.sqrt(v[i] / (1 - beta2 ** step))
        if (size > 0) w[i] -= (rate * (m[i] / (1 - beta1 ** step))) / size
      }
    },
  }
}

/** Rounded to so many significant bits, ties away from zero; numbers too small for them keep f32's grid of them. */
function significant(value: number, bits: number): number {
  if (value === 0) return 0
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(value))))
  const step = 2 ** (exponent + 1 - bits)
  const rounded = Math.sign(value) * Math.floor(Math.abs(value) / step + 0.5) * step
  return rounded === 0 ? 0 : rounded
}

function gumbelNoise(seed: number, index: number): number {
  let t = (seed + Math.imul(index + 1, 0x6d2b79f5)) | 0
  t = Math.imul(t ^ (t >>> 15), 1 | t)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  const u = (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32
  return -Math.log(-Math.log(u))
}

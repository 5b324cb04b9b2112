/** What trains weights that are on their way to a palette: soft assignment, its gradient, equal values, Adam. */

import { type Kernels, LowbitError } from '@lowbit/core'
import type { Device } from './driver/device.ts'
import { blocksOf, expect, expectCodes, own } from './tensors.ts'

type Operations = Pick<Kernels, 'softAssign' | 'softmaxGradient' | 'distinct' | 'adam'>

const MOST_ENTRIES = 256
const LONGEST = 16

export function trainingOperations(device: Device): Operations {
  return {
    softAssign(target, input, tableTensor, { temperature, gumbel }) {
      const table = own(tableTensor)
      const { rows: k, columns: d } = table
      const x = expect(input, input.rows, d, 'x')
      const out = expect(target, x.rows, k, 'out')
      if (k > MOST_ENTRIES || d > LONGEST) {
        throw new LowbitError('bad-shape', `no table is ${k} × ${d}`)
      }
      if (!(temperature >= 0)) {
        throw new LowbitError('bad-option', 'a temperature is 0 or more', { option: 'temperature' })
      }
      const noise = { noisy: gumbel === undefined ? 0 : 1, seed: (gumbel ?? 0) >>> 0 }
      device.run('soft_assign', { x, table, out, k, d, temperature, ...noise }, x.rows)
    },

    softmaxGradient(target, probabilities, gradient, factor) {
      const q = own(probabilities)
      const { rows, columns } = q
      const g = expect(gradient, rows, columns, 'the gradient')
      const out = expect(target, rows, columns, 'out')
      device.run('softmax_gradient', { q, g, out, columns, factor }, rows)
    },

    async distinct(valueTensor, countTensor, codeTensor, input) {
      const x = own(input)
      const count = x.rows * x.columns
      const most = Math.min(65536, count)
      const values = expect(valueTensor, most, 1, 'values')
      const counts = expect(countTensor, most, 1, 'counts')
      const codes = expectCodes(codeTensor, x.rows, x.columns, most, 'u16')
      const different = new Uint32Array(1)
      // 11 significant bits; 8 where there are too many.
      for (const drop of [13, 16]) {
        const size = 2 ** (32 - drop) + 1
        const held = [size * 4, size * 4, 4].map((bytes) => device.allocate(bytes))
        const [bins, index, found] = held
        try {
          device.zero(bins)
          const sizes = { count, drop, size, most }
          const args = { x, bins, index, values, counts, codes, found, ...sizes }
          device.run('distinct_count', args, blocksOf(count))
          device.run('distinct_list', args, 1)
          device.run('distinct_assign', args, blocksOf(count))
          await device.read(found, different)
        } finally {
          for (const span of held) device.release(span)
        }
        if (different[0] <= most) return different[0]
      }
      throw new LowbitError('bad-device', 'the GPU counts more numbers of 8 bits than there are')
    },

    adam(target, meanTensor, squareTensor, gradient, { step, rate, beta1 = 0.9, beta2 = 0.95 }) {
      const x = own(target)
      const { rows, columns } = x
      const [mean, square, g] = [meanTensor, squareTensor, gradient].map((tensor) =>
        expect(tensor, rows, columns, 'moments and gradient'),
      )
      const count = rows * columns
      const corrected = { first: 1 / (1 - beta1 ** step), second: 1 / (1 - beta2 ** step) }
      const args = { g, x, mean, square, count, rate, beta1, beta2, ...corrected }
      device.run('adam', args, blocksOf(count))
    },
  }
}

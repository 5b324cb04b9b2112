/** A decoder's operations backward. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { ACTIVATIONS, attentionInputs } from './decoder.ts'
import type { Device } from './driver/device.ts'
import { blocksOf, expect, own } from './tensors.ts'

type Operations = Pick<Kernels, 'normGradient' | 'activateGradient' | 'attentionGradient'>

export function gradientOperations(device: Device): Operations {
  return {
    normGradient(gradients, outTensor, input, gainTensor, { kind, epsilon }) {
      const x = own(input)
      const { rows, columns } = x
      const dy = expect(outTensor, rows, columns, 'out')
      const gain = expect(gainTensor, 1, columns, 'gain')
      const dx = expect(gradients.input, rows, columns, 'the gradient of x')
      const terms = [gradients.gain, gradients.bias].map(
        (tensor) => tensor && expect(tensor, 1, columns, 'the gradient of gain or bias'),
      )
      device.borrow(device.allocate(2 * rows * 4), (stats) => {
        const centred = kind === 'layer' ? 1 : 0
        device.run('norm_gradient', { dy, x, gain, dx, stats, columns, epsilon, centred }, rows)
        for (const [i, out] of terms.entries()) {
          if (!out) continue
          const sizes = { count: columns, rows, scaled: i === 0 ? 1 : 0 }
          device.run('norm_terms', { dy, x, stats, out, ...sizes }, blocksOf(columns))
        }
      })
    },

    activateGradient(gradients, outTensor, gateTensor, upTensor, kind) {
      const gate = own(gateTensor)
      const { rows, columns } = gate
      if ((upTensor === undefined) !== (gradients.up === undefined)) {
        throw new LowbitError('bad-shape', 'up and its gradient come together or not at all')
      }
      const dy = expect(outTensor, rows, columns, 'out')
      const up = upTensor && expect(upTensor, rows, columns, 'up')
      const d_gate = expect(gradients.gate, rows, columns, 'the gradient of gate')
      const d_up = gradients.up && expect(gradients.up, rows, columns, 'the gradient of up')
      const count = rows * columns
      const sizes = { count, kind: ACTIVATIONS[kind] }
      device.run('activate_gradient', { dy, gate, up, d_gate, d_up, ...sizes }, blocksOf(count))
    },

    attentionGradient(gradients, outTensor, query, key, value, shape) {
      const { q, k, v, rows } = attentionInputs(query, key, value, shape)
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const dy = expect(outTensor, rows, q.columns, 'out')
      const dq = expect(gradients.q, rows, q.columns, 'the gradient of q')
      const dk = expect(gradients.k, k.rows, k.columns, 'the gradient of k')
      const dv = expect(gradients.v, v.rows, v.columns, 'the gradient of v')
      if (k.rows !== v.rows) {
        throw new LowbitError('not-supported', 'there are as many keys as values')
      }
      const sizes = { heads, sharers: keyValueHeads, size: headSize, start, rows, scale }
      device.borrow(device.allocate(3 * rows * heads * 4), (stats) => {
        const args = { q, k, v, dy, dq, dk, dv, stats, ...sizes }
        device.run('attention_gradient_queries', args, rows * heads)
        device.run('attention_gradient_keys', args, k.rows * keyValueHeads)
      })
    },
  }
}

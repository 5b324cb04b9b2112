/** A decoder's operations backward. */

import { type GradientKernels, LowbitError } from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { writeSource } from '../weights/source.ts'
import { ACTIVATION, attentionInputs, copyTargets, KEYS, QUERY_ROWS } from './operations.ts'

/** Columns of a task of normSums, as in assembly/norm-gradient.ts. */
const SUM_COLUMNS = 256

export function gradientOperations(device: Device): GradientKernels {
  const { memory } = device
  return {
    multiplyTransposed(target, left, right, { accumulate = false } = {}) {
      const [depth, columns] = [right.rows, right.columns]
      const a = expect(left, left.rows, depth, 'a')
      const b = own(right)
      const out = expect(target, a.rows, columns, 'out')
      const source = writeSource(memory, {
        ...{ kind: 'columns', data: b.at, stride: columns * 4, rows: columns, depth },
      })
      product(device, {
        ...{ out: out.at, outStride: columns * 4, left: a.at, leftStride: depth * 4 },
        ...{ rows: a.rows, source, columns, depth, accumulate },
      })
    },
    normGradient(gradients, target, input, gain, { kind, epsilon }) {
      const { at, rows, columns } = own(input)
      const out = expect(target, rows, columns, 'out').at
      const g = expect(gain, 1, columns, 'gain').at
      const dx = expect(gradients.input, rows, columns, 'the gradient of x').at
      const [dGain, dBias] = [gradients.gain, gradients.bias].map((tensor) =>
        tensor ? expect(tensor, 1, columns, 'the gradient of gain or bias').at : 0,
      )
      const [size, stats] = [rows * columns, device.room('norms', rows * 8)]
      const centered = kind === 'layer' ? 1 : 0
      device.run('normGradient', size, dx, out, at, g, rows, columns, epsilon, centered, stats)
      if (dGain === 0 && dBias === 0) return
      const sums = device.roomPerThread('normSums', SUM_COLUMNS * 16)
      const args = [dGain, dBias, out, at, stats, rows, columns, sums.at, sums.each]
      device.run('normSums', size, ...args)
    },
    activateGradient(gradients, target, gate, up, kind) {
      const { at, rows, columns } = own(gate)
      const out = expect(target, rows, columns, 'out').at
      const other = up ? expect(up, rows, columns, 'up').at : 0
      const dGate = expect(gradients.gate, rows, columns, 'the gradient of gate').at
      const dUp = gradients.up ? expect(gradients.up, rows, columns, 'the gradient of up').at : 0
      if ((other === 0) !== (dUp === 0)) {
        throw new LowbitError('bad-shape', 'up and its gradient come together or not at all')
      }
      const count = rows * columns
      const args = [dGate, dUp, out, at, other, count, ACTIVATION[kind]]
      device.run('activateGradient', count * 8, ...args)
    },
    attentionGradient(gradients, target, query, key, value, shape) {
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const { q, k, v, rows, keys } = attentionInputs(query, key, value, shape)
      const [size, keySize] = [heads * headSize, keyValueHeads * headSize]
      const out = expect(target, rows, size, 'out').at
      const dq = expect(gradients.q, rows, size, 'the gradient of q').at
      const dk = expect(gradients.k, key.rows, keySize, 'the gradient of k').at
      const dv = expect(gradients.v, value.rows, keySize, 'the gradient of v').at
      const group = heads / keyValueHeads
      const apart = keys * size * 4
      const [partK, partV] =
        group === 1
          ? [dk, dv]
          : [device.room('key gradients', apart), device.room('value gradients', apart)]
      const width = Math.ceil(keys / 8) * 8 + 8
      const depth = Math.max(headSize, KEYS)
      const panels = QUERY_ROWS * 2 * (width + Math.ceil(headSize / 8) * 8)
      const packed = (QUERY_ROWS + KEYS) * depth
      const scratch = device.roomPerThread('attention', (panels + packed) * 4 + 64 + 192)
      device.run(
        'attentionGradient',
        rows * keys * size,
        ...[dq, partK, partV, out, q, k, v, rows, heads, keyValueHeads, headSize, scale, start],
        ...[width, scratch.at, scratch.each],
      )
      for (const [to, part, all] of [
        [dk, partK, key.rows],
        [dv, partV, value.rows],
      ]) {
        if (group > 1) {
          device.run('sumHeads', keys * size, to, part, keys, keyValueHeads, group, headSize)
        }
        memory.u8.fill(0, to + keys * keySize * 4, to + all * keySize * 4)
      }
    },
    crossEntropyGradient(target, logits, targets, factor) {
      const { at, rows, columns } = own(logits)
      const out = expect(target, rows, columns, 'out').at
      const indices = copyTargets(device, targets, rows, columns)
      device.run('entropyGradient', rows * columns * 8, out, at, rows, columns, indices, factor)
    },
    divergenceGradient(target, reference, logits, factor) {
      const { at, rows, columns } = own(logits)
      const r = expect(reference, rows, columns, 'reference').at
      const out = expect(target, rows, columns, 'out').at
      device.run('divergenceGradient', rows * columns * 32, out, r, at, rows, columns, factor)
    },
  }
}

/** A decoder's operations between its matrices, and what is done with logits. */

import {
  type Activation,
  type AttentionShape,
  checkAttention,
  checkRope,
  checkTargets,
  type Kernels,
  LowbitError,
  sampleLogits,
  type Tensor,
} from '@lowbit/core'
import type { Device } from './driver/device.ts'
import { blocksOf, expect, own } from './tensors.ts'

type Operations = Pick<
  Kernels,
  | 'rmsNorm'
  | 'layerNorm'
  | 'add'
  | 'rope'
  | 'activate'
  | 'attention'
  | 'softmax'
  | 'crossEntropy'
  | 'divergence'
  | 'crossEntropyGradient'
  | 'divergenceGradient'
  | 'sample'
>

/** As in kernels/activations.cuh. */
export const ACTIVATIONS: Readonly<Record<Activation, number>> = {
  ...{ silu: 0, gelu: 1, gelu_erf: 2, relu: 3 },
}

/** As in kernels/attention.cuh. */
export const LARGEST_HEAD = 512

export function attentionInputs(query: Tensor, key: Tensor, value: Tensor, shape: AttentionShape) {
  checkAttention(query, key, value, shape)
  checkHeads(shape)
  const [q, k, v] = [query, key, value].map((tensor) => own(tensor))
  return { q, k, v, rows: q.rows }
}

export function checkHeads({ headSize }: AttentionShape): void {
  if (headSize <= LARGEST_HEAD) return
  const most = `the ${LARGEST_HEAD} that attention on CUDA takes`
  throw new LowbitError('not-supported', `heads of ${headSize} are larger than ${most}`)
}

export function decoderOperations(device: Device): Operations {
  function normalize(
    target: Tensor,
    input: Tensor,
    gainTensor: Tensor,
    biasTensor: Tensor | undefined,
    epsilon: number,
    centred: 0 | 1,
  ): void {
    const x = own(input)
    const { rows, columns } = x
    const gain = expect(gainTensor, 1, columns, 'gain')
    const bias = biasTensor && expect(biasTensor, 1, columns, 'bias')
    const out = expect(target, rows, columns, 'out')
    device.run('normalize', { x, gain, bias, out, columns, epsilon, centred }, rows)
  }

  /** A block a row of logits; `out` and what they are compared with differ. */
  function overTargets(
    kernel: string,
    out: Tensor,
    logits: Tensor,
    targets: Uint32Array,
    factor: number,
  ): void {
    const x = own(logits)
    const { rows, columns } = x
    checkTargets(targets, rows, columns)
    device.borrow(device.place(targets), (span) => {
      device.run(kernel, { x, targets: span, out: own(out), columns, factor }, rows)
    })
  }

  return {
    rmsNorm: (out, x, gain, epsilon) => normalize(out, x, gain, undefined, epsilon, 0),
    layerNorm: (out, x, gain, bias, epsilon) => normalize(out, x, gain, bias, epsilon, 1),
    add(target, other) {
      const x = own(target)
      const { rows, columns } = x
      const y = expect(other, other.rows === 1 ? 1 : rows, columns, 'y')
      const count = rows * columns
      device.run('add', { x, y, count, period: y.rows * columns }, blocksOf(count))
    },
    rope(target, cos, sin, headSize, start) {
      const x = own(target)
      const { rows, columns } = x
      const half = headSize / 2
      const cosines = expect(cos, cos.rows, half, 'cos')
      const sines = expect(sin, cos.rows, half, 'sin')
      checkRope(x, cos, headSize, start)
      const count = (rows * columns) / 2
      device.run('rope', { x, cosines, sines, count, columns, half, start }, blocksOf(count))
    },
    activate(target, gateTensor, upTensor, kind) {
      const gate = own(gateTensor)
      const { rows, columns } = gate
      const out = expect(target, rows, columns, 'out')
      const up = upTensor && expect(upTensor, rows, columns, 'up')
      const count = rows * columns
      device.run('activate', { gate, up, out, count, kind: ACTIVATIONS[kind] }, blocksOf(count))
    },
    attention(target, query, key, value, shape) {
      const { q, k, v, rows } = attentionInputs(query, key, value, shape)
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const out = expect(target, rows, q.columns, 'out')
      const sizes = { heads, sharers: keyValueHeads, size: headSize, start, scale }
      device.run('attention', { q, k, v, out, ...sizes }, rows * heads)
    },
    softmax(tensor) {
      const x = own(tensor)
      device.run('softmax', { x, out: x, columns: x.columns, factor: 1 }, x.rows)
    },
    crossEntropy(out, logits, targets) {
      expect(out, logits.rows, 1, 'out')
      overTargets('cross_entropy', out, logits, targets, 1)
    },
    crossEntropyGradient(out, logits, targets, factor) {
      expect(out, logits.rows, logits.columns, 'out')
      overTargets('cross_entropy_gradient', out, logits, targets, factor)
    },
    divergence(target, reference, logits) {
      const truth = own(reference)
      const { rows, columns } = truth
      const x = expect(logits, rows, columns, 'logits')
      const out = expect(target, rows, 1, 'out')
      device.run('divergence', { x, truth, out, columns, factor: 1 }, rows)
    },
    divergenceGradient(target, reference, logits, factor) {
      const x = own(logits)
      const { rows, columns } = x
      const truth = expect(reference, rows, columns, 'reference')
      const out = expect(target, rows, columns, 'out')
      device.run('divergence_gradient', { x, truth, out, columns, factor }, rows)
    },
    async sample(logits, options) {
      const x = expect(logits, 1, logits.columns, 'logits')
      if (x.columns === 0) throw new LowbitError('bad-shape', 'no logits to sample from')
      const values = new Float32Array(x.columns)
      await device.read(x, values)
      return sampleLogits(values, options)
    },
  }
}

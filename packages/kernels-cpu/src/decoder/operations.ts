/** A decoder's small operations. */

import {
  type AttentionShape,
  checkAttention,
  checkRope,
  checkTargets,
  type Kernels,
  sampleLogits,
  type Tensor,
} from '@lowbit/core'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'

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
  | 'sample'
>

export const ACTIVATION = { silu: 0, gelu: 1, gelu_erf: 2, relu: 3 } as const

/** Up to so many query rows each go through attention by themselves. */
const FEW_ROWS = 5
/** Query rows of a block, and keys of a panel, as in assembly/attention.ts. */
export const QUERY_ROWS = 48
export const KEYS = 64

export function decoderOperations(device: Device): Operations {
  const { memory } = device
  return {
    rmsNorm(target, input, gain, epsilon) {
      const { at, rows, columns } = own(input)
      const out = expect(target, rows, columns, 'out').at
      const g = expect(gain, 1, columns, 'gain').at
      device.run('rmsNorm', rows * columns, out, at, g, rows, columns, epsilon)
    },
    layerNorm(target, input, gain, bias, epsilon) {
      const { at, rows, columns } = own(input)
      const out = expect(target, rows, columns, 'out').at
      const g = expect(gain, 1, columns, 'gain').at
      const b = bias ? expect(bias, 1, columns, 'bias').at : 0
      device.run('layerNorm', rows * columns, out, at, g, b, rows, columns, epsilon)
    },
    add(x, y) {
      const { at, rows, columns } = own(x)
      const other = expect(y, y.rows === 1 ? 1 : rows, columns, 'y').at
      const next = y.rows === 1 ? 0 : columns * 4
      device.run('add', rows * columns, at, other, rows, columns, next)
    },
    rope(x, cos, sin, headSize, start) {
      const { at, rows, columns } = own(x)
      const half = headSize / 2
      checkRope(x, cos, headSize, start)
      const c = expect(cos, cos.rows, half, 'cos').at
      const s = expect(sin, cos.rows, half, 'sin').at
      device.run('rope', rows * columns * 2, at, c, s, rows, columns, headSize, start)
    },
    activate(target, gate, up, kind) {
      const { at, rows, columns } = own(gate)
      const out = expect(target, rows, columns, 'out').at
      const other = up ? expect(up, rows, columns, 'up').at : 0
      const count = rows * columns
      device.run('activate', count * 8, out, at, other, count, ACTIVATION[kind])
    },
    attention(target, query, key, value, shape) {
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const { q, k, v, rows, keys } = attentionInputs(query, key, value, shape)
      const out = expect(target, rows, heads * headSize, 'out').at
      const block = rows <= FEW_ROWS ? 1 : QUERY_ROWS
      const width = Math.ceil(keys / 8) * 8 + 8
      const depth = Math.max(headSize, KEYS)
      const panels = (QUERY_ROWS + KEYS) * depth * 4 + 64 + 192
      const bytes = block === 1 ? width * 4 : QUERY_ROWS * width * 4 + panels
      const scratch = device.roomPerThread('attention', bytes)
      device.run(
        'attention',
        rows * keys * heads * headSize,
        ...[out, q, k, v, rows, heads, keyValueHeads, headSize, scale, start, width, block],
        ...[scratch.at, scratch.each],
      )
    },
    softmax(x) {
      const { at, rows, columns } = own(x)
      device.run('softmax', rows * columns * 8, at, rows, columns)
    },
    crossEntropy(target, logits, targets) {
      const { at, rows, columns } = own(logits)
      const out = expect(target, rows, 1, 'out').at
      const indices = copyTargets(device, targets, rows, columns)
      const parts = device.room('parts', rows * 16)
      device.run('entropyParts', rows * columns * 8, parts, at, rows, columns, indices)
      for (let row = 0; row < rows; row++) {
        const p = parts / 8 + row * 2
        memory.f32[out / 4 + row] = Math.log(memory.f64[p]) + memory.f64[p + 1]
      }
    },
    divergence(target, reference, logits) {
      const { at, rows, columns } = own(logits)
      const r = expect(reference, rows, columns, 'reference').at
      const out = expect(target, rows, 1, 'out').at
      const parts = device.room('parts', rows * 24)
      device.run('divergenceParts', rows * columns * 16, parts, r, at, rows, columns)
      for (let row = 0; row < rows; row++) {
        const [z, other, mean] = memory.f64.subarray(parts / 8 + row * 3, parts / 8 + row * 3 + 3)
        memory.f32[out / 4 + row] = Math.max(0, mean - Math.log(z) + Math.log(other))
      }
    },
    async sample(logits, options) {
      const { at, columns } = expect(logits, 1, logits.columns, 'logits')
      return sampleLogits(memory.f32.subarray(at / 4, at / 4 + columns), options)
    },
  }
}

export function attentionInputs(query: Tensor, key: Tensor, value: Tensor, shape: AttentionShape) {
  const keys = checkAttention(query, key, value, shape)
  const [q, k, v] = [query, key, value].map((tensor) => own(tensor).at)
  return { q, k, v, rows: query.rows, keys }
}

/** Targets where the kernels can read them. */
export function copyTargets(
  device: Device,
  targets: Uint32Array,
  rows: number,
  columns: number,
): number {
  checkTargets(targets, rows, columns)
  const at = device.room('indices', rows * 4)
  device.memory.u32.set(targets, at / 4)
  return at
}

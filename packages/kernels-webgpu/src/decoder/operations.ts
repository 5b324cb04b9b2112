/** A decoder's operations between its matrices. */

import {
  type AttentionShape,
  checkAttention,
  checkRope,
  type Kernels,
  LowbitError,
  type Tensor,
} from '@lowbit/core'
import type { Device, Span } from '../gpu/device.ts'
import { elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { expect, own } from '../tensors.ts'
import { ACTIVATION_CODE, ACTIVATIONS } from './activations.ts'
import {
  ATTENTION_HEAD,
  fewQueries,
  HELD_HEAD,
  MANY_QUERIES,
  manyQueries,
  type Positions,
} from './attention.ts'

type Operations = Pick<Kernels, 'rmsNorm' | 'layerNorm' | 'add' | 'rope' | 'activate' | 'attention'>

const NORM = `
  let at = p.x_at + group * p.columns;
  var centre = 0.0;
  if (p.centred == 1u) {
    var sum = 0.0;
    for (var i = lane; i < p.columns; i += lanes) { sum += x[at + i]; }
    centre = total_of(lane, sum) / f32(p.columns);
  }
  var squares = 0.0;
  for (var i = lane; i < p.columns; i += lanes) { let d = x[at + i] - centre; squares += d * d; }
  let mean = total_of(lane, squares) / f32(p.columns);
  let factor = 1.0 / sqrt(mean + p.epsilon);`

const norm = groupwise('norm', {
  reads: { x: 'f32', gain: 'f32', bias: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', epsilon: 'f32', centred: 'u32', biased: 'u32' },
  body: `${NORM}
  for (var i = lane; i < p.columns; i += lanes) {
    var value = (x[at + i] - centre) * factor * gain[p.gain_at + i];
    if (p.biased == 1u) { value += bias[p.bias_at + i]; }
    out[p.out_at + group * p.columns + i] = value;
  }`,
})

const add = elementwise('add', {
  reads: { y: 'f32' },
  writes: { x: 'f32' },
  params: { period: 'u32' },
  body: 'x[p.x_at + i] += y[p.y_at + i % p.period];',
})

const rope = elementwise('rope', {
  reads: { cosines: 'f32', sines: 'f32' },
  writes: { x: 'f32' },
  params: { columns: 'u32', half: 'u32', start: 'u32' },
  body: `
  let pairs = p.columns / 2u;
  let row = i / pairs;
  let pair = i % pairs;
  let first = p.x_at + row * p.columns + (pair / p.half) * p.half * 2u + pair % p.half;
  let turn = (p.start + row) * p.half + pair % p.half;
  let c = cosines[p.cosines_at + turn];
  let s = sines[p.sines_at + turn];
  let a = x[first];
  let b = x[first + p.half];
  x[first] = a * c - b * s;
  x[first + p.half] = b * c + a * s;`,
})

const activate = elementwise('activate', {
  reads: { gate: 'f32', up: 'f32' },
  writes: { out: 'f32' },
  params: { kind: 'u32', gated: 'u32' },
  functions: ACTIVATION_CODE,
  body: `
  var value = activated(p.kind, gate[p.gate_at + i]);
  if (p.gated == 1u) { value *= up[p.up_at + i]; }
  out[p.out_at + i] = value;`,
})

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
    const params = { columns, epsilon, centred, biased: bias ? 1 : 0 }
    device.run(norm, { x, gain, bias: bias ?? gain, out }, params, rows)
  }

  return {
    rmsNorm: (out, x, gain, epsilon) => normalize(out, x, gain, undefined, epsilon, 0),
    layerNorm: (out, x, gain, bias, epsilon) => normalize(out, x, gain, bias, epsilon, 1),
    add(target, other) {
      const x = own(target)
      const { rows, columns } = x
      const y = expect(other, other.rows === 1 ? 1 : rows, columns, 'y')
      const count = rows * columns
      device.run(add, { x, y }, { count, period: y.length }, Math.ceil(count / 64))
    },
    rope(target, cos, sin, headSize, start) {
      const x = own(target)
      const { rows, columns } = x
      const half = headSize / 2
      const cosines = expect(cos, cos.rows, half, 'cos')
      const sines = expect(sin, cos.rows, half, 'sin')
      checkRope(x, cos, headSize, start)
      const count = (rows * columns) / 2
      const params = { count, columns, half, start }
      device.run(rope, { x, cosines, sines }, params, Math.ceil(count / 64))
    },
    activate(target, gateTensor, upTensor, kind) {
      const gate = own(gateTensor)
      const { rows, columns } = gate
      const out = expect(target, rows, columns, 'out')
      const up = upTensor && expect(upTensor, rows, columns, 'up')
      const count = rows * columns
      const params = { count, kind: ACTIVATIONS[kind], gated: up ? 1 : 0 }
      device.run(activate, { gate, up: up ?? gate, out }, params, Math.ceil(count / 64))
    },
    attention(target, query, key, value, shape) {
      const { q, k, v, rows } = attentionInputs(query, key, value, shape)
      const out = expect(target, rows, q.columns, 'out')
      runAttention(device, shape, rows, { q, k, v, out })
    },
  }
}

/** Attention of `rows` queries over dense positions, or those that `from` describes. */
export function runAttention(
  device: Device,
  { heads, keyValueHeads, headSize, scale, start }: AttentionShape,
  rows: number,
  spans: Readonly<Record<string, Span>>,
  from?: Positions,
  more: Readonly<Record<string, number>> = {},
): void {
  if (headSize > ATTENTION_HEAD) {
    throw new LowbitError(
      'not-supported',
      `heads of ${headSize} are larger than the ${ATTENTION_HEAD} that WebGPU's attention takes`,
    )
  }
  const params = { heads, sharers: keyValueHeads, size: headSize, scale, start, rows, ...more }
  if (rows >= MANY_QUERIES && headSize <= HELD_HEAD) {
    const groups = Math.ceil(rows / LANES) * heads
    device.run(manyQueries(headSize, from), spans, params, groups)
  } else device.run(fewQueries(from), spans, params, rows * heads)
}

export function attentionInputs(query: Tensor, key: Tensor, value: Tensor, shape: AttentionShape) {
  checkAttention(query, key, value, shape)
  const [q, k, v] = [query, key, value].map((tensor) => own(tensor))
  return { q, k, v, rows: q.rows }
}

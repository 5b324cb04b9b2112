/** A decoder's operations backward. */

import { type Kernels, LowbitError } from '@lowbit/core'
import type { Device } from '../gpu/device.ts'
import { elementwise, groupwise, LANES, type Shader } from '../gpu/shader.ts'
import { expect, own } from '../tensors.ts'
import { ACTIVATION_CODE, ACTIVATIONS } from './activations.ts'
import { ATTENTION_HEAD } from './attention.ts'
import { attentionInputs } from './operations.ts'

type Operations = Pick<Kernels, 'normGradient' | 'activateGradient' | 'attentionGradient'>

/** Adds the gradient of x, row by row; leaves each row's centre and factor for those of gain and bias. */
const normInput = groupwise('normGradient, input', {
  reads: { dy: 'f32', x: 'f32', gain: 'f32' },
  writes: { dx: 'f32', stats: 'f32' },
  params: { columns: 'u32', epsilon: 'f32', centred: 'u32' },
  body: `
  let at = p.x_at + group * p.columns;
  let dy_row = p.dy_at + group * p.columns;
  let size = f32(p.columns);
  var centre = 0.0;
  if (p.centred == 1u) {
    var sum = 0.0;
    for (var i = lane; i < p.columns; i += lanes) { sum += x[at + i]; }
    centre = total_of(lane, sum) / size;
  }
  var squares = 0.0;
  for (var i = lane; i < p.columns; i += lanes) { let d = x[at + i] - centre; squares += d * d; }
  let factor = 1.0 / sqrt(total_of(lane, squares) / size + p.epsilon);
  var together = 0.0;
  var alone = 0.0;
  for (var i = lane; i < p.columns; i += lanes) {
    let d = dy[dy_row + i] * gain[p.gain_at + i];
    together += d * (x[at + i] - centre) * factor;
    alone += d;
  }
  let along = total_of(lane, together) / size;
  var level = total_of(lane, alone) / size;
  if (p.centred == 0u) { level = 0.0; }
  for (var i = lane; i < p.columns; i += lanes) {
    let unit = (x[at + i] - centre) * factor;
    let d = dy[dy_row + i] * gain[p.gain_at + i];
    dx[p.dx_at + group * p.columns + i] += factor * (d - level - unit * along);
  }
  if (lane == 0u) {
    stats[p.stats_at + group * 2u] = centre;
    stats[p.stats_at + group * 2u + 1u] = factor;
  }`,
})

/** Added to the gradients of gain (times the normalized x) or bias, column by column. */
const normTerms = elementwise('normGradient, gain and bias', {
  reads: { dy: 'f32', x: 'f32', stats: 'f32' },
  writes: { out: 'f32' },
  params: { rows: 'u32', scaled: 'u32' },
  body: `
  var sum = 0.0;
  for (var begin = 0u; begin < p.rows; begin += 64u) {
    var part = 0.0;
    for (var row = begin; row < min(begin + 64u, p.rows); row++) {
      var value = dy[p.dy_at + row * p.count + i];
      if (p.scaled == 1u) {
        let at = p.stats_at + row * 2u;
        value *= (x[p.x_at + row * p.count + i] - stats[at]) * stats[at + 1u];
      }
      part += value;
    }
    sum += part;
  }
  out[p.out_at + i] += sum;`,
})

const activation = elementwise('activateGradient', {
  reads: { dy: 'f32', gate: 'f32', up: 'f32' },
  writes: { d_gate: 'f32', d_up: 'f32' },
  params: { kind: 'u32', gated: 'u32' },
  functions: ACTIVATION_CODE,
  body: `
  let x = gate[p.gate_at + i];
  var d = dy[p.dy_at + i];
  if (p.gated == 1u) {
    d_up[p.d_up_at + i] = d * activated(p.kind, x);
    d *= up[p.up_at + i];
  }
  d_gate[p.d_gate_at + i] = d * slope(p.kind, x);`,
})

const ATTENTION: Shader['params'] = {
  ...{ heads: 'u32', sharers: 'u32', size: 'u32', scale: 'f32', start: 'u32', rows: 'u32' },
}

/** Four numbers a thread, up to the largest head. */
const PARTS = ATTENTION_HEAD / LANES

/**
 * The gradient of a query: a workgroup for each query and head. Keeps the largest score, the sum of the exponentials
 * and Σ p · dp, from which keys and values are found.
 */
const queryGradient = groupwise('attentionGradient, queries', {
  reads: { q: 'f32', k: 'f32', v: 'f32', dy: 'f32' },
  writes: { dq: 'f32', stats: 'f32' },
  params: ATTENTION,
  functions: `
var<workgroup> query: array<f32, ${ATTENTION_HEAD}>;
var<workgroup> slope: array<f32, ${ATTENTION_HEAD}>;
var<workgroup> weights: array<f32, ${LANES}>;`,
  body: `
  let row = group / p.heads;
  let head = group % p.heads;
  let seen = p.start + row + 1u;
  let width = p.sharers * p.size;
  let at = row * p.heads * p.size + head * p.size;
  let column = (head * p.sharers / p.heads) * p.size;
  for (var i = lane; i < p.size; i += lanes) {
    query[i] = q[p.q_at + at + i] * p.scale;
    slope[i] = dy[p.dy_at + at + i];
  }
  workgroupBarrier();
  var peak = -3.0e38;
  var mass = 0.0;
  var level = 0.0;
  for (var key = lane; key < seen; key += lanes) {
    let line = key * width + column;
    var score = 0.0;
    var d = 0.0;
    for (var i = 0u; i < p.size; i++) {
      score += query[i] * k[p.k_at + line + i];
      d += slope[i] * v[p.v_at + line + i];
    }
    let most = max(peak, score);
    let shrink = exp(max(peak - most, -87.0));
    let weight = exp(score - most);
    mass = mass * shrink + weight;
    level = level * shrink + weight * d;
    peak = most;
  }
  let top = most_of(lane, peak);
  let share = exp(max(peak - top, -87.0));
  let whole = total_of(lane, mass * share);
  let mean = total_of(lane, level * share) / whole;
  var sums: array<f32, ${PARTS}>;
  for (var begin = 0u; begin < seen; begin += lanes) {
    let key = begin + lane;
    var ds = 0.0;
    if (key < seen) {
      let line = key * width + column;
      var score = 0.0;
      var d = 0.0;
      for (var i = 0u; i < p.size; i++) {
        score += query[i] * k[p.k_at + line + i];
        d += slope[i] * v[p.v_at + line + i];
      }
      ds = p.scale * exp(max(score - top, -87.0)) / whole * (d - mean);
    }
    weights[lane] = ds;
    workgroupBarrier();
    let count = min(lanes, seen - begin);
    for (var s = 0u; s < count; s++) {
      let line = p.k_at + (begin + s) * width + column;
      for (var part = 0u; part < ${PARTS}u; part++) {
        let i = lane + part * lanes;
        if (i < p.size) { sums[part] += weights[s] * k[line + i]; }
      }
    }
    workgroupBarrier();
  }
  for (var part = 0u; part < ${PARTS}u; part++) {
    let i = lane + part * lanes;
    if (i < p.size) { dq[p.dq_at + at + i] = sums[part]; }
  }
  if (lane == 0u) {
    stats[p.stats_at + group * 3u] = top;
    stats[p.stats_at + group * 3u + 1u] = whole;
    stats[p.stats_at + group * 3u + 2u] = mean;
  }`,
})

/** The gradients of a key and its value: a workgroup for each position and head of keys, over all that have seen it. */
const keyGradient = groupwise('attentionGradient, keys and values', {
  reads: { q: 'f32', k: 'f32', v: 'f32', dy: 'f32', stats: 'f32' },
  writes: { dk: 'f32', dv: 'f32' },
  params: ATTENTION,
  functions: `
var<workgroup> key: array<f32, ${ATTENTION_HEAD}>;
var<workgroup> value: array<f32, ${ATTENTION_HEAD}>;
var<workgroup> slopes: array<f32, ${LANES}>;
var<workgroup> shares: array<f32, ${LANES}>;`,
  body: `
  let position = group / p.sharers;
  let head_of_keys = group % p.sharers;
  let line = position * p.sharers * p.size + head_of_keys * p.size;
  let first = u32(max(0, i32(position) - i32(p.start)));
  let together = p.heads / p.sharers;
  var key_sums: array<f32, ${PARTS}>;
  var value_sums: array<f32, ${PARTS}>;
  let begin_row = min(first, p.rows);
  let count = (p.rows - begin_row) * together;
  if (count > 0u) {
    for (var i = lane; i < p.size; i += lanes) {
      key[i] = k[p.k_at + line + i];
      value[i] = v[p.v_at + line + i];
    }
  }
  workgroupBarrier();
  for (var begin = 0u; begin < count; begin += lanes) {
    let n = begin + lane;
    var ds = 0.0;
    var share = 0.0;
    if (n < count) {
      let row = begin_row + n / together;
      let head = head_of_keys * together + n % together;
      let at = (row * p.heads + head) * p.size;
      var score = 0.0;
      var d = 0.0;
      for (var i = 0u; i < p.size; i++) {
        score += q[p.q_at + at + i] * key[i];
        d += dy[p.dy_at + at + i] * value[i];
      }
      let stat = p.stats_at + (row * p.heads + head) * 3u;
      share = exp(max(score * p.scale - stats[stat], -87.0)) / stats[stat + 1u];
      ds = p.scale * share * (d - stats[stat + 2u]);
    }
    slopes[lane] = ds;
    shares[lane] = share;
    workgroupBarrier();
    let these = min(lanes, count - begin);
    for (var s = 0u; s < these; s++) {
      let m = begin + s;
      let at = ((begin_row + m / together) * p.heads + head_of_keys * together + m % together) * p.size;
      for (var part = 0u; part < ${PARTS}u; part++) {
        let i = lane + part * lanes;
        if (i < p.size) {
          key_sums[part] += slopes[s] * q[p.q_at + at + i];
          value_sums[part] += shares[s] * dy[p.dy_at + at + i];
        }
      }
    }
    workgroupBarrier();
  }
  for (var part = 0u; part < ${PARTS}u; part++) {
    let i = lane + part * lanes;
    if (i < p.size) {
      dk[p.dk_at + line + i] = key_sums[part];
      dv[p.dv_at + line + i] = value_sums[part];
    }
  }`,
})

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
      const stats = device.allocate(2 * rows)
      try {
        const params = { columns, epsilon, centred: kind === 'layer' ? 1 : 0 }
        device.run(normInput, { dy, x, gain, dx, stats }, params, rows)
        for (const [i, out] of terms.entries()) {
          if (!out) continue
          const shape = { count: columns, rows, scaled: i === 0 ? 1 : 0 }
          device.run(normTerms, { dy, x, stats, out }, shape, Math.ceil(columns / LANES))
        }
      } finally {
        device.release(stats)
      }
    },

    activateGradient(gradients, outTensor, gateTensor, upTensor, kind) {
      const gate = own(gateTensor)
      const { rows, columns } = gate
      if ((upTensor === undefined) !== (gradients.up === undefined)) {
        throw new LowbitError('bad-shape', 'up and its gradient come together or not at all')
      }
      const dy = expect(outTensor, rows, columns, 'out')
      const up = upTensor && expect(upTensor, rows, columns, 'up')
      const dGate = expect(gradients.gate, rows, columns, 'the gradient of gate')
      const dUp = gradients.up && expect(gradients.up, rows, columns, 'the gradient of up')
      const count = rows * columns
      device.run(
        activation,
        { dy, gate, up: up ?? gate, d_gate: dGate, d_up: dUp ?? device.scratch(1) },
        { count, kind: ACTIVATIONS[kind], gated: up ? 1 : 0 },
        Math.ceil(count / LANES),
      )
    },

    attentionGradient(gradients, outTensor, query, key, value, shape) {
      const { q, k, v, rows } = attentionInputs(query, key, value, shape)
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const dy = expect(outTensor, rows, heads * headSize, 'out')
      const dq = expect(gradients.q, rows, q.columns, 'the gradient of q')
      const dk = expect(gradients.k, k.rows, k.columns, 'the gradient of k')
      const dv = expect(gradients.v, v.rows, v.columns, 'the gradient of v')
      if (headSize > ATTENTION_HEAD || k.rows !== v.rows) {
        throw new LowbitError(
          'not-supported',
          `heads of ${headSize} are larger than ${ATTENTION_HEAD}, or keys and values differ in number`,
        )
      }
      const params = { heads, sharers: keyValueHeads, size: headSize, scale, start, rows }
      const stats = device.allocate(3 * rows * heads)
      try {
        device.run(queryGradient, { q, k, v, dy, dq, stats }, params, rows * heads)
        device.run(keyGradient, { q, k, v, dy, stats, dk, dv }, params, k.rows * keyValueHeads)
      } finally {
        device.release(stats)
      }
    },
  }
}

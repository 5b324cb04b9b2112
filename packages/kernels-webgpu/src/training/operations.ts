/** What trains weights that are on their way to a palette: soft assignment, its gradient, equal values, Adam. */

import { type Kernels, LowbitError } from '@lowbit/core'
import type { Device } from '../gpu/device.ts'
import { bestOf, elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { expect, expectCodes, own } from '../tensors.ts'
import { findDistinct } from './distinct.ts'

type Operations = Pick<Kernels, 'softAssign' | 'softmaxGradient' | 'distinct' | 'adam'>

/**
 * −log(−log(u)) of an evenly distributed u, of which the hash gives 32 bits (mulberry32). Above ½ the logarithm is
 * that of the distance to 1, by the series of atanh, since f32 has few numbers there.
 */
const GUMBEL = `
fn gumbel(index: u32) -> f32 {
  var t = p.seed + (index + 1u) * 0x6d2b79f5u;
  t = (t ^ (t >> 15u)) * (1u | t);
  t = (t + (t ^ (t >> 7u)) * (61u | t)) ^ t;
  t = t ^ (t >> 14u);
  var heavy = 0.0;
  if (t >= 0x80000000u) {
    let w = (f32(~t) + 0.5) / 4294967296.0;
    let z = w / (2.0 - w);
    let s = z * z;
    heavy = 2.0 * z * (1.0 + s * (1.0 / 3.0 + s * (0.2 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0
      + s * (1.0 / 13.0 + s / 15.0)))))));
  } else {
    heavy = -log((f32(t) + 0.5) / 4294967296.0);
  }
  return -log(heavy);
}`

const softAssign = groupwise('softAssign', {
  reads: { x: 'f32', table: 'f32' },
  writes: { out: 'f32' },
  params: { k: 'u32', d: 'u32', temperature: 'f32', noisy: 'u32', seed: 'u32' },
  functions: `${bestOf(LANES)}${GUMBEL}
fn distance_to(row: u32, j: u32) -> f32 {
  var sum = 0.0;
  for (var e = 0u; e < p.d; e++) {
    let apart = x[p.x_at + row * p.d + e] - table[p.table_at + j * p.d + e];
    sum += apart * apart;
  }
  return sum;
}`,
  body: `
  let at = p.out_at + group * p.k;
  if (p.temperature == 0.0) {
    var least = 3.4e38;
    var best = 0xffffffffu;
    for (var j = lane; j < p.k; j += lanes) {
      let far = distance_to(group, j);
      if (far < least) { least = far; best = j; }
    }
    reduced[lane] = least;
    places[lane] = best;
    let hit = best_of(lane, 0u);
    for (var j = lane; j < p.k; j += lanes) { out[at + j] = select(0.0, 1.0, j == hit); }
    return;
  }
  var logits: array<f32, 4>;
  var most = -3.4e38;
  for (var n = 0u; n < 4u; n++) {
    let j = lane + n * lanes;
    if (j < p.k) {
      logits[n] = -distance_to(group, j) / p.temperature;
      if (p.noisy == 1u) { logits[n] += gumbel(group * p.k + j); }
      most = max(most, logits[n]);
    }
  }
  let peak = most_of(lane, most);
  var mass = 0.0;
  for (var n = 0u; n < 4u; n++) {
    if (lane + n * lanes < p.k) {
      logits[n] = select(0.0, exp(logits[n] - peak), logits[n] - peak > -87.0);
      mass += logits[n];
    }
  }
  let all = total_of(lane, mass);
  for (var n = 0u; n < 4u; n++) {
    let j = lane + n * lanes;
    if (j < p.k) { out[at + j] = logits[n] / all; }
  }`,
})

const softmaxGradient = groupwise('softmaxGradient', {
  reads: { q: 'f32', g: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', factor: 'f32' },
  body: `
  let q_row = p.q_at + group * p.columns;
  let g_row = p.g_at + group * p.columns;
  var sum = 0.0;
  for (var i = lane; i < p.columns; i += lanes) { sum += q[q_row + i] * g[g_row + i]; }
  let mean = total_of(lane, sum);
  for (var i = lane; i < p.columns; i += lanes) {
    out[p.out_at + group * p.columns + i] = p.factor * q[q_row + i] * (g[g_row + i] - mean);
  }`,
})

/** `first` and `second` are 1 / (1 − βᵗ). */
const adam = elementwise('adam', {
  reads: { g: 'f32' },
  writes: { x: 'f32', mean: 'f32', square: 'f32' },
  params: { rate: 'f32', beta1: 'f32', beta2: 'f32', first: 'f32', second: 'f32' },
  body: `
  let gradient = g[p.g_at + i];
  let m = p.beta1 * mean[p.mean_at + i] + (1.0 - p.beta1) * gradient;
  let v = p.beta2 * square[p.square_at + i] + (1.0 - p.beta2) * gradient * gradient;
  mean[p.mean_at + i] = m;
  square[p.square_at + i] = v;
  let size = sqrt(v * p.second);
  if (size > 0.0) { x[p.x_at + i] -= p.rate * m * p.first / size; }`,
})

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
      device.run(softAssign, { x, table, out }, { k, d, temperature, ...noise }, x.rows)
    },

    softmaxGradient(target, probabilities, gradient, factor) {
      const q = own(probabilities)
      const { rows, columns } = q
      const g = expect(gradient, rows, columns, 'the gradient')
      const out = expect(target, rows, columns, 'out')
      device.run(softmaxGradient, { q, g, out }, { columns, factor }, rows)
    },

    async distinct(valueTensor, countTensor, codeTensor, input) {
      const x = own(input)
      const most = Math.min(65536, x.length)
      const values = expect(valueTensor, most, 1, 'values')
      const counts = expect(countTensor, most, 1, 'counts')
      const codes = expectCodes(codeTensor, x.rows, x.columns, most, 'u16')
      return findDistinct(device, { x, values, counts, codes }, most)
    },

    adam(target, meanTensor, squareTensor, gradient, { step, rate, beta1 = 0.9, beta2 = 0.95 }) {
      const x = own(target)
      const { rows, columns } = x
      const [mean, square, g] = [meanTensor, squareTensor, gradient].map((tensor) =>
        expect(tensor, rows, columns, 'moments and gradient'),
      )
      const corrected = { first: 1 / (1 - beta1 ** step), second: 1 / (1 - beta2 ** step) }
      const params = { count: x.length, rate, beta1, beta2, ...corrected }
      device.run(adam, { g, x, mean, square }, params, Math.ceil(x.length / LANES))
    },
  }
}

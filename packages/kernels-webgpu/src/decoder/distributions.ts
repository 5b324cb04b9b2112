/** What is done with logits. */

import { checkTargets, type Kernels } from '@lowbit/core'
import type { Device } from '../gpu/device.ts'
import { groupwise } from '../gpu/shader.ts'
import { expect, own } from '../tensors.ts'
import { sampleToken } from './sampling.ts'

type Operations = Pick<
  Kernels,
  | 'softmax'
  | 'crossEntropy'
  | 'divergence'
  | 'sample'
  | 'crossEntropyGradient'
  | 'divergenceGradient'
>

const LANES = 256

/** `peak` and `mass` of a row of `x`: softmax is exp(x − peak) / mass. */
const softmaxOf = (x: string): string => `
  var ${x}_most = -3.4e38;
  for (var i = lane; i < p.columns; i += lanes) { ${x}_most = max(${x}_most, ${x}[${x}_row + i]); }
  let ${x}_peak = most_of(lane, ${x}_most);
  var ${x}_sum = 0.0;
  for (var i = lane; i < p.columns; i += lanes) { ${x}_sum += power(${x}[${x}_row + i] - ${x}_peak); }
  let ${x}_mass = total_of(lane, ${x}_sum);`

/** Differences of 1e30 and more must give a clean 0. */
const POWER = 'fn power(x: f32) -> f32 { if (x < -87.0) { return 0.0; } return exp(x); }'

const row = (x: string): string => `let ${x}_row = p.${x}_at + group * p.columns;`

const shared = { functions: POWER, lanes: LANES } as const

const softmax = groupwise('softmax', {
  ...shared,
  reads: {},
  writes: { x: 'f32' },
  params: { columns: 'u32' },
  body: `${row('x')} ${softmaxOf('x')}
  for (var i = lane; i < p.columns; i += lanes) {
    x[x_row + i] = power(x[x_row + i] - x_peak) / x_mass;
  }`,
})

const crossEntropy = groupwise('crossEntropy', {
  ...shared,
  reads: { x: 'f32', targets: 'u32' },
  writes: { out: 'f32' },
  params: { columns: 'u32' },
  body: `${row('x')} ${softmaxOf('x')}
  if (lane == 0u) {
    out[p.out_at + group] = log(x_mass) + (x_peak - x[x_row + targets[p.targets_at + group]]);
  }`,
})

const divergence = groupwise('divergence', {
  ...shared,
  reads: { truth: 'f32', guess: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32' },
  body: `${row('truth')} ${row('guess')} ${softmaxOf('truth')} ${softmaxOf('guess')}
  var sum = 0.0;
  for (var i = lane; i < p.columns; i += lanes) {
    let q = truth[truth_row + i] - truth_peak;
    let weight = power(q);
    if (weight > 0.0) { sum += weight * (q - (guess[guess_row + i] - guess_peak)); }
  }
  let mean = total_of(lane, sum) / truth_mass;
  if (lane == 0u) { out[p.out_at + group] = max(0.0, mean - log(truth_mass) + log(guess_mass)); }`,
})

const crossEntropyGradient = groupwise('crossEntropyGradient', {
  ...shared,
  reads: { x: 'f32', targets: 'u32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', factor: 'f32' },
  body: `${row('x')} ${softmaxOf('x')}
  for (var i = lane; i < p.columns; i += lanes) {
    let hit = select(0.0, 1.0, i == targets[p.targets_at + group]);
    out[p.out_at + group * p.columns + i] = p.factor * (power(x[x_row + i] - x_peak) / x_mass - hit);
  }`,
})

const divergenceGradient = groupwise('divergenceGradient', {
  ...shared,
  reads: { truth: 'f32', guess: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', factor: 'f32' },
  body: `${row('truth')} ${row('guess')} ${softmaxOf('truth')} ${softmaxOf('guess')}
  for (var i = lane; i < p.columns; i += lanes) {
    let right = power(truth[truth_row + i] - truth_peak) / truth_mass;
    let is = power(guess[guess_row + i] - guess_peak) / guess_mass;
    out[p.out_at + group * p.columns + i] = p.factor * (is - right);
  }`,
})

export function distributionOperations(device: Device): Operations {
  return {
    softmax(tensor) {
      const x = own(tensor)
      device.run(softmax, { x }, { columns: x.columns }, x.rows)
    },
    crossEntropy(target, logits, targets) {
      const x = own(logits)
      const { rows, columns } = x
      const out = expect(target, rows, 1, 'out')
      checkTargets(targets, rows, columns)
      device.run(crossEntropy, { x, targets: device.constant(targets), out }, { columns }, rows)
    },
    divergence(target, reference, logits) {
      const truth = own(reference)
      const { rows, columns } = truth
      const guess = expect(logits, rows, columns, 'logits')
      const out = expect(target, rows, 1, 'out')
      device.run(divergence, { truth, guess, out }, { columns }, rows)
    },
    crossEntropyGradient(target, logits, targets, factor) {
      const x = own(logits)
      const { rows, columns } = x
      const out = expect(target, rows, columns, 'out')
      checkTargets(targets, rows, columns)
      const spans = { x, targets: device.constant(targets), out }
      device.run(crossEntropyGradient, spans, { columns, factor }, rows)
    },
    divergenceGradient(target, reference, logits, factor) {
      const guess = own(logits)
      const { rows, columns } = guess
      const truth = expect(reference, rows, columns, 'reference')
      const out = expect(target, rows, columns, 'out')
      device.run(divergenceGradient, { truth, guess, out }, { columns, factor }, rows)
    },
    async sample(logits, options) {
      return sampleToken(device, expect(logits, 1, logits.columns, 'logits'), options)
    },
  }
}

/**
 * Causal attention, one workgroup for each query and head. Keys are met 64 at a time; sums so far are rescaled when a
 * larger score appears (online softmax, FlashAttention, 2205.14135), so no score is ever kept.
 */

import { groupwise } from '../gpu/shader.ts'

/** The largest head: what a thread keeps of the sums is this over 64. */
export const ATTENTION_HEAD = 256

export const attentionShader = groupwise('attention', {
  reads: { q: 'f32', k: 'f32', v: 'f32' },
  writes: { out: 'f32' },
  params: {
    ...{ heads: 'u32', sharers: 'u32', size: 'u32', scale: 'f32', start: 'u32', keys: 'u32' },
  },
  functions: `
var<workgroup> query: array<f32, ${ATTENTION_HEAD}>;
var<workgroup> weights: array<f32, 64>;`,
  body: `
  let row = group / p.heads;
  let head = group % p.heads;
  let seen = p.start + row + 1u;
  let width = p.sharers * p.size;
  let at = row * p.heads * p.size + head * p.size;
  let column = (head * p.sharers / p.heads) * p.size;
  for (var i = lane; i < p.size; i += lanes) { query[i] = q[p.q_at + at + i] * p.scale; }
  workgroupBarrier();
  var sums = vec4f();
  var most = -3.0e38;
  var mass = 0.0;
  for (var begin = 0u; begin < seen; begin += lanes) {
    let key = begin + lane;
    var score = -3.0e38;
    if (key < seen) {
      score = 0.0;
      let line = p.k_at + key * width + column;
      for (var i = 0u; i < p.size; i++) { score += query[i] * k[line + i]; }
    }
    let peak = max(most, most_of(lane, score));
    var weight = 0.0;
    if (key < seen) { weight = exp(score - peak); }
    weights[lane] = weight;
    let shrink = exp(max(most - peak, -87.0));
    mass = mass * shrink + total_of(lane, weight);
    most = peak;
    sums *= shrink;
    let count = min(lanes, seen - begin);
    for (var s = 0u; s < count; s++) {
      let line = p.v_at + (begin + s) * width + column;
      for (var part = 0u; part < 4u; part++) {
        let i = lane + part * lanes;
        if (i < p.size) { sums[part] += weights[s] * v[line + i]; }
      }
    }
    workgroupBarrier();
  }
  for (var part = 0u; part < 4u; part++) {
    let i = lane + part * lanes;
    if (i < p.size) { out[p.out_at + at + i] = sums[part] / mass; }
  }`,
})

/**
 * Causal attention. Sums so far are rescaled when a larger score appears (online softmax, FlashAttention, 2205.14135),
 * so no score is ever kept. Few queries: a workgroup for each query and head, whose threads share out the keys. Many:
 * a thread for each query, 64 to a workgroup, which meet the same keys in workgroup memory.
 */

import { groupwise, LANES, remembered, type Shader } from '../gpu/shader.ts'

/** From so many queries on each gets a thread, if its head is small enough to be held by one. */
export const MANY_QUERIES = 16
export const HELD_HEAD = 128

/** Where keys and values come from, as parts of a shader. */
export interface Positions {
  readonly name: string
  readonly reads: Shader['reads']
  readonly params: Shader['params']
  readonly functions: string
  /** Adds the product of `query` and the key at `key` to `score`; the head begins at `column`. */
  readonly score: string
  /** Of many queries: what becomes of `count` keys from `begin` on once they lie in workgroup memory. */
  readonly tile?: string
  /** A number of a position, by WGSL expressions for both. */
  key(position: string, column: string): string
  value(position: string, column: string): string
}

const DENSE: Positions = {
  name: 'floats',
  reads: { k: 'f32', v: 'f32' },
  params: {},
  functions: '',
  score: `
      let line = p.k_at + key * width + column;
      for (var i = 0u; i < p.size; i++) { score += query[i] * k[line + i]; }`,
  key: (position, column) => `k[p.k_at + ${position} * width + ${column}]`,
  value: (position, column) => `v[p.v_at + ${position} * width + ${column}]`,
}

const bindings = ({ reads, params }: Positions): Pick<Shader, 'reads' | 'writes' | 'params'> => ({
  reads: { q: 'f32', ...reads },
  writes: { out: 'f32' },
  params: {
    ...{ heads: 'u32', sharers: 'u32', size: 'u32', scale: 'f32', start: 'u32', rows: 'u32' },
    ...params,
  },
})

const shaders = new Map<string, Shader>()

/** The largest head: what a thread keeps of the sums is this over 64. */
export const ATTENTION_HEAD = 256

export const fewQueries = (from: Positions = DENSE): Shader =>
  remembered(shaders, `attention, few queries, ${from.name}`, () =>
    groupwise(`attention, few queries, ${from.name}`, {
      ...bindings(from),
      functions: `${from.functions}
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
      score = 0.0;${from.score}
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
      for (var part = 0u; part < 4u; part++) {
        let i = lane + part * lanes;
        if (i < p.size) { sums[part] += weights[s] * ${from.value('(begin + s)', 'column + i')}; }
      }
    }
    workgroupBarrier();
  }
  for (var part = 0u; part < 4u; part++) {
    let i = lane + part * lanes;
    if (i < p.size) { out[p.out_at + at + i] = sums[part] / mass; }
  }`,
    }),
  )

/** Keys in workgroup memory: with values 2 · 16 · 128 numbers, 16 KB at most. */
const KEYS = 16

/** The size of a head is a constant, so that a thread's query and sums can be registers. */
export const manyQueries = (size: number, from: Positions = DENSE): Shader =>
  remembered(shaders, `attention, many queries, heads of ${size}, ${from.name}`, () => ({
    name: `attention, many queries, heads of ${size}, ${from.name}`,
    ...bindings(from),
    code: `${from.functions}
var<workgroup> keys: array<f32, ${KEYS * size}>;
var<workgroup> values: array<f32, ${KEYS * size}>;
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let head = group % p.heads;
  let first = (group / p.heads) * ${LANES}u;
  let row = first + lane;
  let mine = min(row, p.rows - 1u);
  let seen = p.start + mine + 1u;
  let last = p.start + min(first + ${LANES}u, p.rows);
  let width = p.sharers * ${size}u;
  let column = (head * p.sharers / p.heads) * ${size}u;
  let at = mine * p.heads * ${size}u + head * ${size}u;
  var query: array<f32, ${size}>;
  var sums: array<f32, ${size}>;
  for (var i = 0u; i < ${size}u; i++) { query[i] = q[p.q_at + at + i] * p.scale; sums[i] = 0.0; }
  var most = -3.0e38;
  var mass = 0.0;
  for (var begin = 0u; begin < last; begin += ${KEYS}u) {
    let count = min(${KEYS}u, last - begin);
    for (var e = lane; e < count * ${size}u; e += ${LANES}u) {
      let position = begin + e / ${size}u;
      let channel = column + e % ${size}u;
      keys[e] = ${from.key('position', 'channel')};
      values[e] = ${from.value('position', 'channel')};
    }
    workgroupBarrier();${from.tile ?? ''}
    var weights: array<f32, ${KEYS}>;
    var peak = most;
    for (var s = 0u; s < count; s++) {
      var score = 0.0;
      for (var i = 0u; i < ${size}u; i++) { score += query[i] * keys[s * ${size}u + i]; }
      weights[s] = select(-3.0e38, score, begin + s < seen);
      peak = max(peak, weights[s]);
    }
    let shrink = exp(max(most - peak, -87.0));
    most = peak;
    mass *= shrink;
    for (var i = 0u; i < ${size}u; i++) { sums[i] *= shrink; }
    for (var s = 0u; s < count; s++) {
      if (begin + s < seen) {
        let weight = exp(weights[s] - peak);
        mass += weight;
        for (var i = 0u; i < ${size}u; i++) { sums[i] += weight * values[s * ${size}u + i]; }
      }
    }
    workgroupBarrier();
  }
  if (row < p.rows) {
    for (var i = 0u; i < ${size}u; i++) { out[p.out_at + at + i] = sums[i] / mass; }
  }
}`,
  }))

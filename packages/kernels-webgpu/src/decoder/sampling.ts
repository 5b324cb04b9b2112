/** One token from a row of logits, found on the device: nothing is read back but its number. */

import { type SampleOptions, segmentSize } from '@lowbit/core'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { bestOf, elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { sortRoom, sortSegments } from '../tables/sort.ts'

const THREADS = 256

/** The first of the largest logits. */
const largest = groupwise('largest', {
  lanes: THREADS,
  reads: { x: 'f32' },
  writes: { out: 'u32' },
  params: { columns: 'u32' },
  functions: bestOf(THREADS),
  body: `
  var best = 0u;
  var most = -3.4e38;
  for (var i = lane; i < p.columns; i += lanes) {
    if (x[p.x_at + i] > most) { most = x[p.x_at + i]; best = i; }
  }
  reduced[lane] = -most;
  places[lane] = select(0xffffffffu, best, most > -3.4e38);
  let hit = best_of(lane, 0u);
  if (lane == 0u) { out[p.out_at] = min(hit, p.columns - 1u); }`,
})

/** Keys that fall as logits rise, with their tokens; what fills up comes last. */
const keys = elementwise('logits as keys', {
  reads: { x: 'f32' },
  writes: { pairs: 'vec2u' },
  params: { columns: 'u32' },
  body: `
  var pair = vec2u(0xffffffffu, i);
  if (i < p.columns) {
    var bits = bitcast<u32>(x[p.x_at + i]);
    if (bits == 0x80000000u) { bits = 0u; }
    pair.x = min(~select(bits | 0x80000000u, ~bits, bits >= 0x80000000u), 0xfffffffeu);
  }
  pairs[i] = pair;`,
})

/**
 * Draws from the tokens in their order. Threads have stretches one after the other, so that sums up to each of them
 * give the place where a share of the whole lies.
 */
const draw = groupwise('sample', {
  lanes: THREADS,
  reads: { x: 'f32', pairs: 'vec2u' },
  writes: { out: 'u32' },
  params: { wanted: 'u32', temperature: 'f32', share: 'f32', random: 'f32' },
  functions: `
var<workgroup> sums: array<f32, ${THREADS}>;
var<workgroup> hits: array<u32, ${THREADS}>;
fn weight_of(i: u32, peak: f32) -> f32 {
  let power = (x[p.x_at + pairs[i].y] - peak) / p.temperature;
  if (power < -80.0) { return 0.0; }
  return exp(power);
}
/** How many weights come before \`goal\` is reached, of those in order; the one that reaches it counts. */
fn reach(lane: u32, from_here: u32, to_here: u32, peak: f32, goal: f32, strict: bool) -> u32 {
  var before = 0.0;
  for (var t = 0u; t < lane; t++) { before += sums[t]; }
  var hit = 0xffffffffu;
  for (var i = from_here; i < to_here; i++) {
    let weight = weight_of(i, peak);
    before += weight;
    if (hit == 0xffffffffu && weight > 0.0 && (before > goal || (!strict && before >= goal))) { hit = i; }
  }
  hits[lane] = hit;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half >>= 1u) {
    if (lane < half) { hits[lane] = min(hits[lane], hits[lane + half]); }
    workgroupBarrier();
  }
  let first = hits[0];
  workgroupBarrier();
  return first;
}`,
  body: `
  let peak = x[p.x_at + pairs[0].y];
  let stretch = (p.wanted + lanes - 1u) / lanes;
  let from_here = min(p.wanted, lane * stretch);
  let to_here = min(p.wanted, from_here + stretch);
  var sum = 0.0;
  for (var i = from_here; i < to_here; i++) { sum += weight_of(i, peak); }
  sums[lane] = sum;
  workgroupBarrier();
  var whole = 0.0;
  for (var t = 0u; t < lanes; t++) { whole += sums[t]; }
  let last = min(reach(lane, from_here, to_here, peak, p.share * whole, false), p.wanted - 1u);
  // The weights up to there, added as they are added when the token is looked for.
  var part = 0.0;
  for (var i = from_here; i < min(to_here, last + 1u); i++) { part += weight_of(i, peak); }
  sums[lane] = part;
  workgroupBarrier();
  var kept = 0.0;
  for (var t = 0u; t < lanes; t++) { kept += sums[t]; }
  let hit = min(reach(lane, from_here, to_here, peak, p.random * kept, true), last);
  if (lane == 0u) { out[p.out_at] = pairs[hit].y; }`,
})

export async function sampleToken(
  device: Device,
  x: Span,
  { temperature, topK, topP, random }: SampleOptions,
): Promise<number> {
  const columns = x.length
  const out = device.allocate(1)
  try {
    if (!(temperature > 0) || topK === 1) device.run(largest, { x, out }, { columns }, 1)
    else {
      borrowing(device, (take) => {
        const size = segmentSize(columns)
        const pairs = take(sortRoom(1, size))
        device.run(keys, { x, pairs }, { count: size, columns }, Math.ceil(size / LANES))
        sortSegments(device, pairs, 1, size)
        const wanted = topK > 0 ? Math.min(topK, columns) : columns
        const share = Math.min(1, Math.max(0, topP))
        device.run(draw, { x, pairs, out }, { wanted, temperature, share, random }, 1)
      })
    }
    return new Uint32Array(await device.read(out))[0]
  } finally {
    device.release(out)
  }
}

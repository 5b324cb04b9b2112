/** Bitonic sorts (Batcher, 1968) of segments side by side: pairs of a key and an index, ascending by both. */

import type { Device, Span } from '../gpu/device.ts'
import { LANES, type Shader } from '../gpu/shader.ts'

/** Pairs that a workgroup sorts in its own memory. */
const CHUNK = 512
/** Each compares several pairs between two waits for the others. */
const THREADS = 64

const ORDER = `
fn after(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }`

/** The strides from `stride` down to 1 of the merges of `begin`, 2 · begin, … `end` pairs, within chunks. */
const sortChunks: Shader = {
  name: 'sort chunks',
  reads: {},
  writes: { pairs: 'vec2u' },
  params: { begin: 'u32', end: 'u32' },
  code: `${ORDER}
var<workgroup> held: array<vec2u, ${CHUNK}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let first = group * ${CHUNK}u;
  for (var i = lane; i < ${CHUNK}u; i += ${THREADS}u) { held[i] = pairs[first + i]; }
  for (var size = p.begin; size <= p.end; size *= 2u) {
    for (var stride = min(size / 2u, ${CHUNK / 2}u); stride > 0u; stride >>= 1u) {
      workgroupBarrier();
      for (var n = lane; n < ${CHUNK / 2}u; n += ${THREADS}u) {
        let i = (n / stride) * stride * 2u + n % stride;
        let down = ((first + i) & size) != 0u;
        let a = held[i];
        let b = held[i + stride];
        if (after(a, b) != down) { held[i] = b; held[i + stride] = a; }
      }
    }
  }
  workgroupBarrier();
  for (var i = lane; i < ${CHUNK}u; i += ${THREADS}u) { pairs[first + i] = held[i]; }
}`,
}

const exchange: Shader = {
  name: 'sort across chunks',
  reads: {},
  writes: { pairs: 'vec2u' },
  params: { count: 'u32', size: 'u32', stride: 'u32' },
  code: `${ORDER}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group_of(id, total) * ${LANES}u + lane;
  if (n >= p.count) { return; }
  let i = (n / p.stride) * p.stride * 2u + n % p.stride;
  let down = (i & p.size) != 0u;
  let a = pairs[i];
  let b = pairs[i + p.stride];
  if (after(a, b) != down) { pairs[i] = b; pairs[i + p.stride] = a; }
}`,
}

/**
 * Room for so many segments of `size` pairs, in whole chunks. Segments smaller than a chunk lie in it side by side;
 * the last chunk may reach beyond them.
 */
export const sortRoom = (segments: number, size: number): number =>
  2 * Math.ceil((segments * size) / CHUNK) * CHUNK

/** Sorts each segment of `size` pairs by itself. Every second merge is a descending one but for the last. */
export function sortSegments(device: Device, pairs: Span, segments: number, size: number): void {
  const chunks = Math.ceil((segments * size) / CHUNK)
  const inside = Math.min(size, CHUNK)
  // The last merge of a segment must be ascending everywhere: a bit that no index has says so.
  const merges = (begin: number, end: number) =>
    device.run(sortChunks, { pairs }, { begin, end }, chunks)
  if (inside > 2) merges(2, inside / 2)
  if (size <= CHUNK) {
    lastMerge(device, pairs, chunks, size)
    return
  }
  merges(CHUNK, CHUNK)
  for (let merged = CHUNK * 2; merged <= size; merged *= 2) {
    const last = merged === size
    const count = (segments * size) / 2
    for (let stride = merged / 2; stride >= CHUNK; stride /= 2) {
      const params = { count, size: last ? 2 ** 31 : merged, stride }
      device.run(exchange, { pairs }, params, Math.ceil(count / LANES))
    }
    if (last) lastMerge(device, pairs, chunks, CHUNK)
    else merges(merged, merged)
  }
}

const ascendingMerge: Shader = {
  ...sortChunks,
  name: 'sort chunks, last merge',
  params: { size: 'u32' },
  code: sortChunks.code
    .replace('for (var size = p.begin; size <= p.end; size *= 2u) {', '{')
    .replace('min(size / 2u,', 'min(p.size / 2u,')
    .replace('let down = ((first + i) & size) != 0u;', 'let down = false;'),
}

function lastMerge(device: Device, pairs: Span, chunks: number, size: number): void {
  device.run(ascendingMerge, { pairs }, { size }, chunks)
}

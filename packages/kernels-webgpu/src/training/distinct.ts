/**
 * The different values of a tensor: numbers are bits here, so that no device's way with subnormal ones matters. Each
 * value, rounded, has a bin; the bins that hold something, counted through, are the values in order.
 */

import { LowbitError } from '@lowbit/core'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { elementwise, groupwise, LANES } from '../gpu/shader.ts'

/** Ties go away from zero; both zeros are one. */
const KEY = `
fn key_of(bits: u32, drop: u32) -> u32 {
  let magnitude = ((bits & 0x7fffffffu) + (1u << (drop - 1u))) >> drop;
  let middle = 1u << (31u - drop);
  if (bits >= 0x80000000u) { return middle - magnitude; }
  return middle + magnitude;
}
fn bits_of(key: u32, drop: u32) -> u32 {
  let middle = 1u << (31u - drop);
  if (key < middle) { return 0x80000000u | ((middle - key) << drop); }
  return (key - middle) << drop;
}`

const count = elementwise('count values', {
  reads: { x: 'u32' },
  writes: { bins: 'atomic<u32>' },
  params: { drop: 'u32' },
  functions: KEY,
  body: 'atomicAdd(&bins[key_of(x[p.x_at + i], p.drop)], 1u);',
})

const THREADS = 256

const list = groupwise('list values', {
  lanes: THREADS,
  reads: { bins: 'u32' },
  writes: { index: 'u32', values: 'u32', counts: 'f32', found: 'u32' },
  params: { size: 'u32', drop: 'u32', most: 'u32' },
  functions: `${KEY}
var<workgroup> taken: array<u32, ${THREADS}>;`,
  body: `
  let share = (p.size + lanes - 1u) / lanes;
  let begin = lane * share;
  let end = min(p.size, begin + share);
  var mine = 0u;
  for (var i = begin; i < end; i++) { if (bins[i] > 0u) { mine++; } }
  taken[lane] = mine;
  workgroupBarrier();
  var place = 0u;
  for (var i = 0u; i < lane; i++) { place += taken[i]; }
  for (var i = begin; i < end; i++) {
    index[i] = place;
    if (bins[i] > 0u) {
      if (place < p.most) {
        values[p.values_at + place] = bits_of(i, p.drop);
        counts[p.counts_at + place] = f32(bins[i]);
      }
      place++;
    }
  }
  if (lane == lanes - 1u) { found[0] = place; }`,
})

const assign = elementwise('which value', {
  reads: { x: 'u32', index: 'u32' },
  writes: { codes: 'u32' },
  params: { drop: 'u32' },
  functions: KEY,
  body: 'codes[p.codes_at + i] = index[key_of(x[p.x_at + i], p.drop)];',
})

export async function findDistinct(
  device: Device,
  { x, values, counts, codes }: Readonly<Record<'x' | 'values' | 'counts' | 'codes', Span>>,
  most: number,
): Promise<number> {
  const [found] = [device.allocate(1)]
  try {
    // 11 significant bits; 8 where there are too many.
    for (const drop of [13, 16]) {
      const size = 2 ** (32 - drop) + 1
      const groups = Math.ceil(x.length / LANES)
      borrowing(device, (take) => {
        const [bins, index] = [take(size), take(size)]
        device.zero(bins)
        device.run(count, { x, bins }, { count: x.length, drop }, groups)
        device.run(list, { bins, index, values, counts, found }, { size, drop, most }, 1)
        device.run(assign, { x, index, codes }, { count: x.length, drop }, groups)
      })
      const different = new Uint32Array(await device.read(found))[0]
      if (different <= most) return different
    }
    throw new LowbitError('bad-device', 'the GPU counts more numbers of 8 bits than there are')
  } finally {
    device.release(found)
  }
}

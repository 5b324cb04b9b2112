/**
 * Sums over what has one code, in an order that is always the same: threads own entries and look through the codes,
 * which come by in workgroup memory. Several stretches of codes are looked through side by side and added afterwards.
 */

import type { Device, Span } from '../gpu/device.ts'
import { elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'

const THREADS = 256

export interface SumsSource {
  /** Distinguishes it from others. */
  readonly name: string
  /** Numbers that are summed for each code. */
  readonly values: number
  /** Besides `codes`. */
  readonly reads: Shader['reads']
  readonly params: Shader['params']
  /**
   * WGSL: `items_of(g)` how many there are for table g, `code_of(g, i)`, and `value_of(g, i, e)`, which may read the
   * `values` numbers of an item.
   */
  readonly code: string
}

const shaders = new Map<string, Shader>()

const sumsShader = ({ name, values, reads, params, code }: SumsSource): Shader =>
  remembered(shaders, `sums by code, ${name}`, () => ({
    name: `sums by code, ${name}`,
    reads: { codes: 'u32', ...reads },
    writes: { out: 'f32' },
    params: {
      ...params,
      ...{ entries: 'u32', tables: 'u32', width: 'u32', tiles: 'u32', stretches: 'u32' },
      stretch: 'u32',
    },
    code: `${code}
var<workgroup> held: array<u32, ${THREADS}>;
var<workgroup> parts: array<f32, ${THREADS}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let piece = group % p.stretches;
  let tile = (group / p.stretches) % p.tiles;
  let g = group / (p.stretches * p.tiles);
  // With fewer entries than threads several threads share one, and each looks through a part of the codes.
  let slice = lane / p.width;
  let mine = tile * ${THREADS}u + lane % p.width;
  ${Array.from({ length: values }, (_, e) => `var sum${e} = 0.0;`).join(' ')}
  let end = min(items_of(g), (piece + 1u) * p.stretch);
  for (var step = 0u; step < p.stretch; step += ${THREADS}u) {
    let begin = piece * p.stretch + step;
    var code = 0xffffffffu;
    if (begin + lane < end) { code = code_of(g, begin + lane); }
    held[lane] = code;
    workgroupBarrier();
    for (var j = slice * p.width; j < (slice + 1u) * p.width; j++) {
      if (held[j] == mine) {
        ${Array.from({ length: values }, (_, e) => `sum${e} += value_of(g, begin + j, ${e}u);`).join(' ')}
      }
    }
    workgroupBarrier();
  }
  let at = p.out_at + ((piece * p.tables + g) * p.entries + mine) * ${values}u;
  ${Array.from(
    { length: values },
    (_, e) => `parts[lane] = sum${e};
  workgroupBarrier();
  if (slice == 0u && mine < p.entries) {
    var all = 0.0;
    for (var s = lane; s < ${THREADS}u; s += p.width) { all += parts[s]; }
    out[at + ${e}u] = all;
  }
  workgroupBarrier();`,
  ).join('\n')}
}`,
  }))

const addStretches = elementwise('sums of stretches', {
  reads: { parts: 'f32' },
  writes: { out: 'f32' },
  params: { stretches: 'u32' },
  body: `
  var sum = 0.0;
  for (var s = 0u; s < p.stretches; s++) { sum += parts[p.parts_at + s * p.count + i]; }
  out[p.out_at + i] = sum;`,
})

/** Items of a stretch: more would leave a large GPU with too few workgroups. */
const STRETCH = 8192
/** Numbers that sums of stretches may take. */
const ROOM = 2 ** 24

/** out [tables · entries, values]; `items` is the most that a table has. */
export function sumByCodes(
  device: Device,
  source: SumsSource,
  spans: Readonly<Record<string, Span>> & { readonly out: Span },
  params: Readonly<Record<string, number>>,
  { tables, entries, items }: { tables: number; entries: number; items: number },
): void {
  const size = tables * entries * source.values
  const wanted = Math.ceil(items / STRETCH)
  const stretches = Math.max(1, Math.min(wanted, Math.floor(ROOM / size)))
  const stretch = Math.ceil(items / stretches / THREADS) * THREADS
  const width = Math.min(THREADS, 2 ** Math.ceil(Math.log2(entries)))
  const tiles = Math.ceil(entries / THREADS)
  const more = { entries, tables, width, tiles, stretches, stretch }
  const groups = tables * tiles * stretches
  if (stretches === 1) {
    device.run(sumsShader(source), spans, { ...params, ...more }, groups)
    return
  }
  const parts = device.allocate(size * stretches)
  try {
    device.run(sumsShader(source), { ...spans, out: parts }, { ...params, ...more }, groups)
    const { out } = spans
    device.run(addStretches, { parts, out }, { count: size, stretches }, Math.ceil(size / LANES))
  } finally {
    device.release(parts)
  }
}

/** Rows of x [n, d] and their weights: the sums of k-means, d + 1 numbers a code. */
export const clusterSource = (d: number): SumsSource => ({
  ...{ name: `points of ${d}`, values: d + 1 },
  reads: { x: 'f32', factors: 'f32' },
  params: { rows: 'u32', group_rows: 'u32', weighted: 'u32' },
  code: `
fn items_of(g: u32) -> u32 { return min(p.group_rows, p.rows - g * p.group_rows); }
fn code_of(g: u32, i: u32) -> u32 { return codes[p.codes_at + g * p.group_rows + i]; }
fn value_of(g: u32, i: u32, e: u32) -> f32 {
  let row = g * p.group_rows + i;
  var weight = 1.0;
  if (p.weighted == 1u) { weight = factors[p.factors_at + row]; }
  if (e == ${d}u) { return weight; }
  return weight * x[p.x_at + row * ${d}u + e];
}`,
})

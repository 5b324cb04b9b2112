/**
 * Sums over what has one code, in an order that is always the same: a thread adds up a stretch of codes, one after the
 * other, in sums of its own; those of all stretches are added afterwards.
 */

import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { each, elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'

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
  remembered(shaders, name, () =>
    elementwise(`sums by code, ${name}`, {
      reads: { codes: 'u32', ...reads },
      writes: { out: 'f32' },
      params: { ...params, entries: 'u32', tables: 'u32', stretch: 'u32' },
      functions: code,
      body: `
  let g = i % p.tables;
  let begin = (i / p.tables) * p.stretch;
  let end = min(items_of(g), begin + p.stretch);
  let sums = p.out_at + i * p.entries * ${values}u;
  for (var n = 0u; n < p.entries * ${values}u; n++) { out[sums + n] = 0.0; }
  for (var n = begin; n < end; n++) {
    let at = sums + code_of(g, n) * ${values}u;
    ${each(values, (e) => `out[at + ${e}u] += value_of(g, n, ${e}u);`)}
  }`,
    }),
  )

const addStretches = elementwise('sums of stretches', {
  reads: { parts: 'f32' },
  writes: { out: 'f32' },
  params: { stretches: 'u32' },
  body: `
  var sum = 0.0;
  for (var s = 0u; s < p.stretches; s++) { sum += parts[p.parts_at + s * p.count + i]; }
  out[p.out_at + i] = sum;`,
})

/** Codes of a stretch: fewer would have more sums to add than codes, more would leave a GPU with too few threads. */
const stretchOf = (items: number, entries: number): number =>
  Math.max(64, Math.ceil(entries / 2), Math.ceil(items / 1024))
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
  const most = Math.max(1, Math.floor(ROOM / size))
  const stretches = Math.max(1, Math.min(Math.ceil(items / stretchOf(items, entries)), most))
  const count = tables * stretches
  const shape = { ...params, count, entries, tables, stretch: Math.ceil(items / stretches) }
  const groups = Math.ceil(count / LANES)
  if (stretches === 1) {
    device.run(sumsShader(source), spans, shape, groups)
    return
  }
  borrowing(device, (take) => {
    const parts = take(size * stretches)
    device.run(sumsShader(source), { ...spans, out: parts }, shape, groups)
    const { out } = spans
    device.run(addStretches, { parts, out }, { count: size, stretches }, Math.ceil(size / LANES))
  })
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

/** The nearest entries of tables of vectors. */

import type { Device, Span } from '../gpu/device.ts'
import {
  bestOf,
  each,
  elementwise,
  groupwise,
  LANES,
  remembered,
  type Shader,
} from '../gpu/shader.ts'

const shaders = new Map<string, Shader>()

/** Entries that a workgroup holds at a time, in vectors of four. */
const HELD = 512

const load = (d: number, from: string, at: string, v: number): string =>
  `vec4f(${each(4, (c) => (4 * v + c < d ? `${from}[${at} + ${4 * v + c}u]` : '0.0'), ', ')})`

/** Entries come by in workgroup memory. */
function throughMemory(d: number, fours: number): string {
  const tile = Math.floor(HELD / fours)
  return `
  for (var begin = 0u; begin < p.entries; begin += ${tile}u) {
    let count = min(${tile}u, p.entries - begin);
    for (var e = lane; e < count; e += ${LANES}u) {
      let from_entry = first + (begin + e) * ${d}u;
      ${each(fours, (v) => `held[e * ${fours}u + ${v}u] = ${load(d, 'table', 'from_entry', v)};`)}
    }
    workgroupBarrier();
    for (var e = 0u; e < count; e++) {
      ${each(fours, (v) => `let d${v} = x${v} - held[e * ${fours}u + ${v}u];`)}
      let far = ${each(fours, (v) => `dot(d${v}, d${v})`, ' + ')};
      if (far < least) { least = far; best = begin + e; }
    }
    workgroupBarrier();
  }`
}

/** Each thread of a subgroup reads one of the next entries, which the others get from it. */
const throughSubgroups = (d: number, fours: number, size: number): string => `
  for (var begin = 0u; begin < p.entries; begin += ${size}u) {
    let from_entry = first + min(begin + seat % ${size}u, p.entries - 1u) * ${d}u;
    ${each(fours, (v) => `let y${v} = ${load(d, 'table', 'from_entry', v)};`)}
    ${each(
      size,
      (r) => `{
      ${each(fours, (v) => `let d${v} = x${v} - subgroupBroadcast(y${v}, ${r}u);`)}
      let far = ${each(fours, (v) => `dot(d${v}, d${v})`, ' + ')};
      // What stands for entries past the last is the last itself, and no nearer.
      if (far < least) { least = far; best = begin + ${r}u; }
    }`,
    )}
  }`

/** A point a thread. Differences are squared, so equal points are at 0. */
const nearestShader = (d: number, size: number): Shader =>
  remembered(shaders, `nearest of ${d} by ${size}`, () => {
    const fours = Math.ceil(d / 4)
    const seat = size > 0 ? ', @builtin(subgroup_invocation_id) seat: u32' : ''
    return {
      name: `nearest of ${d}${size > 0 ? `, by subgroups of ${size}` : ''}`,
      enable: size > 0 ? ['subgroups'] : [],
      reads: { x: 'f32', table: 'f32' },
      writes: { codes: 'u32', distances: 'f32' },
      params: {
        ...{ rows: 'u32', group_rows: 'u32', tiles: 'u32', entries: 'u32', measured: 'u32' },
      },
      code: `
${size > 0 ? '' : `var<workgroup> held: array<vec4f, ${Math.floor(HELD / fours) * fours}>;`}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32${seat}) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let top = (group / p.tiles) * p.group_rows;
  let i = top + (group % p.tiles) * ${LANES}u + lane;
  let live = i < min(p.rows, top + p.group_rows);
  let at = p.x_at + select(top, i, live) * ${d}u;
  ${each(fours, (v) => `let x${v} = ${load(d, 'x', 'at', v)};`)}
  let first = p.table_at + (group / p.tiles) * p.entries * ${d}u;
  var best = 0u;
  var least = 3.4e38;
  ${size > 0 ? throughSubgroups(d, fours, size) : throughMemory(d, fours)}
  if (live) {
    codes[p.codes_at + i] = best;
    if (p.measured == 1u) { distances[p.distances_at + i] = least; }
  }
}`,
    }
  })

export interface Points {
  readonly x: Span
  readonly rows: number
  readonly d: number
  /** Rows that share a table. */
  readonly groupRows: number
  readonly entries: number
}

/** Codes of the nearest entries, each row in the table of its group. */
export function findNearest(
  device: Device,
  { x, rows, d, groupRows, entries }: Points,
  spans: { readonly table: Span; readonly codes: Span; readonly distances?: Span },
): void {
  const tiles = Math.ceil(Math.min(rows, groupRows) / LANES)
  const { table, codes, distances } = spans
  const size = device.choices.vector === 'subgroups' ? device.subgroup : 0
  device.run(
    nearestShader(d, size),
    { x, table, codes, distances: distances ?? device.scratch(1) },
    { rows, group_rows: groupRows, tiles, entries, measured: distances ? 1 : 0 },
    Math.ceil(rows / groupRows) * tiles,
  )
}

/** Squared distances of some entries (from `top` on) to all; to themselves −1, so that they come first. */
const apart = elementwise('distances of entries', {
  reads: { table: 'f32' },
  writes: { out: 'f32' },
  params: { entries: 'u32', d: 'u32', top: 'u32' },
  body: `
  let a = p.top + i / p.entries;
  let b = i % p.entries;
  var sum = 0.0;
  for (var e = 0u; e < p.d; e++) {
    let apart = table[p.table_at + a * p.d + e] - table[p.table_at + b * p.d + e];
    sum += apart * apart;
  }
  out[p.out_at + i] = select(sum, -1.0, a == b);`,
})

/** The nearest of a row of distances, one after the other; each thread looks after the entries that are its own. */
const choose = groupwise('neighbours', {
  reads: { far: 'f32' },
  writes: { out: 'u32' },
  params: { entries: 'u32', candidates: 'u32', top: 'u32' },
  functions: bestOf(LANES),
  body: `
  let row = p.far_at + group * p.entries;
  var mine = 0xffffffffu;
  var least = 3.4e38;
  for (var e = lane; e < p.entries; e += lanes) {
    if (far[row + e] < least) { least = far[row + e]; mine = e; }
  }
  for (var c = 0u; c < p.candidates; c++) {
    reduced[lane] = least;
    places[lane] = mine;
    let hit = best_of(lane, 0u);
    workgroupBarrier();
    if (lane == 0u) { out[p.out_at + (p.top + group) * p.candidates + c] = hit; }
    if (hit == mine) {
      let taken = least;
      let last = mine;
      least = 3.4e38;
      mine = 0xffffffffu;
      for (var e = lane; e < p.entries; e += lanes) {
        let value = far[row + e];
        if ((value > taken || (value == taken && e > last)) && value < least) { least = value; mine = e; }
      }
    }
  }`,
})

/** Numbers of distances at a time. */
const ROOM = 2 ** 22

export function findNeighbours(
  device: Device,
  table: Span,
  out: Span,
  entries: number,
  d: number,
  candidates: number,
): void {
  const step = Math.max(1, Math.min(entries, Math.floor(ROOM / entries)))
  const far = device.allocate(step * entries)
  try {
    for (let top = 0; top < entries; top += step) {
      const rows = Math.min(step, entries - top)
      const count = rows * entries
      device.run(apart, { table, out: far }, { count, entries, d, top }, Math.ceil(count / LANES))
      device.run(choose, { far, out }, { entries, candidates, top }, rows)
    }
  } finally {
    device.release(far)
  }
}

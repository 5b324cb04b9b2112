/**
 * Tables of values for blocks of a weight: k-means in one dimension, found exactly by dynamic programming over the
 * sorted weights (Wu, Optimal quantization by matrix searching, 1991; Grønlund et al., 1701.07204).
 *
 * Loss of an interval: f32 would lose it in differences of sums. So each interval is made of two parts whose weight,
 * mean and squared distance from it are known: of each place up to the end of its block of 2^l places, or from its
 * start (a disjoint sparse table), and two such parts are joined without a difference of large numbers (Chan et al., 1979).
 */

import { segmentSize } from '@lowbit/core'
import type { Device, Span } from '../gpu/device.ts'
import { borrowing, partOf } from '../gpu/device.ts'
import { elementwise, groupwise, LANES, type Shader } from '../gpu/shader.ts'
import { sortRoom, sortSegments } from './sort.ts'

/** A block's numbers in `info`: whether any weight is important; places taken; different values. */
const INFO = 4
/** The most different values of a block. */
const MOST_GROUPS = 65536

const WEIGHT_PARAMS: Shader['params'] = {
  ...{ rows: 'u32', columns: 'u32', block_rows: 'u32', block_columns: 'u32', across: 'u32' },
  ...{ first: 'u32', importance_row: 'u32', weighed: 'u32', scaled: 'u32' },
}

const WEIGHT_CODE = `
fn items_of(block: u32) -> u32 {
  let high = min(p.block_rows, p.rows - (block / p.across) * p.block_rows);
  return high * min(p.block_columns, p.columns - (block % p.across) * p.block_columns);
}
fn row_of(block: u32, i: u32) -> u32 {
  return (block / p.across) * p.block_rows + i / min(p.block_columns, p.columns - (block % p.across) * p.block_columns);
}
fn column_of(block: u32, i: u32) -> u32 {
  let left = (block % p.across) * p.block_columns;
  return left + i % min(p.block_columns, p.columns - left);
}
fn scale_of(row: u32) -> f32 {
  if (p.scaled == 1u) { return scales[p.scales_at + row]; }
  return 1.0;
}
fn weight_of(row: u32, column: u32) -> f32 { return w[p.w_at + row * p.columns + column] / scale_of(row); }`

const IMPORTANCE_CODE = `
fn importance_of(row: u32, column: u32) -> f32 {
  let scale = scale_of(row);
  if (p.weighed == 0u) { return scale * scale; }
  return scale * scale * importance[p.importance_at + row * p.importance_row + column];
}`

const important = groupwise('whether a block has importance', {
  reads: { w: 'f32', scales: 'f32', importance: 'f32' },
  writes: { info: 'u32' },
  params: WEIGHT_PARAMS,
  functions: `${WEIGHT_CODE}${IMPORTANCE_CODE}`,
  body: `
  let block = p.first + group;
  var most = 0.0;
  for (var i = lane; i < items_of(block); i += lanes) {
    most = max(most, importance_of(row_of(block, i), column_of(block, i)));
  }
  let all = most_of(lane, most);
  if (lane == 0u) { info[p.info_at + group * ${INFO}u] = select(0u, 1u, all > 0.0); }`,
})

/** Weights that count, as keys that are ordered as they are, with their places; the rest comes last. */
const keys = elementwise('weights as keys', {
  reads: { w: 'f32', scales: 'f32', importance: 'f32', info: 'u32' },
  writes: { pairs: 'vec2u' },
  params: { ...WEIGHT_PARAMS, size: 'u32' },
  functions: `${WEIGHT_CODE}${IMPORTANCE_CODE}`,
  body: `
  let block = p.first + i / p.size;
  let place = i % p.size;
  var key = 0xffffffffu;
  if (place < items_of(block)) {
    let row = row_of(block, place);
    let column = column_of(block, place);
    if (info[p.info_at + (i / p.size) * ${INFO}u] == 0u || importance_of(row, column) > 0.0) {
      var bits = bitcast<u32>(weight_of(row, column));
      if (bits == 0x80000000u) { bits = 0u; }
      key = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
    }
  }
  pairs[i] = vec2u(key, place);`,
})

const THREADS = 256

/**
 * Where the groups of weights begin that agree in sign, exponent and 10 bits (where that are too many, in 7): `begins`
 * [blocks, room + 1], the end of the last one behind it.
 */
const findGroups = groupwise('groups of equal weights', {
  lanes: THREADS,
  reads: { pairs: 'vec2u' },
  writes: { info: 'u32', begins: 'u32' },
  params: { size: 'u32', room: 'u32' },
  functions: `var<workgroup> counts: array<u32, ${THREADS}>;
fn begins_group(first: u32, i: u32, shift: u32) -> bool {
  let key = pairs[first + i].x;
  if (key == 0xffffffffu) { return false; }
  if (i == 0u) { return true; }
  return (pairs[first + i - 1u].x >> shift) != (key >> shift);
}`,
  body: `
  let first = group * p.size;
  let share = (p.size + lanes - 1u) / lanes;
  let from_place = min(p.size, lane * share);
  let to_place = min(p.size, from_place + share);
  var fine = 0u;
  var coarse = 0u;
  var valid = 0u;
  for (var i = from_place; i < to_place; i++) {
    if (begins_group(first, i, 13u)) { fine++; }
    if (begins_group(first, i, 16u)) { coarse++; }
    if (pairs[first + i].x != 0xffffffffu) { valid++; }
  }
  var shift = 13u;
  var count = fine;
  if (total_of(lane, f32(fine)) > ${MOST_GROUPS}.0) { shift = 16u; count = coarse; }
  let all_valid = u32(total_of(lane, f32(valid)));
  counts[lane] = count;
  workgroupBarrier();
  var place = 0u;
  for (var i = 0u; i < lane; i++) { place += counts[i]; }
  let at = p.begins_at + group * (p.room + 1u);
  for (var i = from_place; i < to_place; i++) {
    if (begins_group(first, i, shift)) { begins[at + place] = i; place++; }
  }
  if (lane == lanes - 1u) {
    begins[at + place] = all_valid;
    info[p.info_at + group * ${INFO}u + 2u] = place;
  }`,
})

/** Weight and mean of each group, as (weight, mean, 0, 0). */
const leaves = elementwise('means of groups', {
  reads: { w: 'f32', scales: 'f32', importance: 'f32', info: 'u32', begins: 'u32', pairs: 'vec2u' },
  writes: { out: 'vec4f' },
  params: { ...WEIGHT_PARAMS, size: 'u32', room: 'u32' },
  functions: `${WEIGHT_CODE}${IMPORTANCE_CODE}`,
  body: `
  let mine = i / p.room;
  let g = i % p.room;
  var leaf = vec4f();
  if (g < info[p.info_at + mine * ${INFO}u + 2u]) {
    let block = p.first + mine;
    let some = info[p.info_at + mine * ${INFO}u] == 1u;
    let at = p.begins_at + mine * (p.room + 1u) + g;
    let start = pairs[mine * p.size + begins[at]].y;
    let origin = weight_of(row_of(block, start), column_of(block, start));
    var mass = 0.0;
    var moment = 0.0;
    for (var n = begins[at]; n < begins[at + 1u]; n++) {
      let place = pairs[mine * p.size + n].y;
      let row = row_of(block, place);
      let column = column_of(block, place);
      var h = 1.0;
      if (some) { h = importance_of(row, column); }
      mass += h;
      moment += h * (weight_of(row, column) - origin);
    }
    leaf = vec4f(mass, origin + moment / mass, 0.0, 0.0);
  }
  out[i] = leaf;`,
})

const JOIN = `
fn join(a: vec4f, b: vec4f) -> vec4f {
  let mass = a.x + b.x;
  if (mass <= 0.0) { return a; }
  let apart = b.y - a.y;
  let share = b.x / mass;
  return vec4f(mass, a.y + apart * share, a.z + b.z + apart * apart * a.x * share, 0.0);
}`

/** From blocks of 2^level places to those of twice as many. */
const doubleBlocks = elementwise('parts of intervals', {
  reads: {},
  writes: { suffix: 'vec4f', prefix: 'vec4f', nodes: 'vec4f' },
  params: { level: 'u32' },
  functions: JOIN,
  body: `
  let block = i >> p.level;
  if ((block & 1u) == 0u) { suffix[i] = join(suffix[i], suffix[(block + 1u) << p.level]); }
  else { prefix[i] = join(prefix[(block << p.level) - 1u], prefix[i]); }
  var node = suffix[i];
  if (((block >> 1u) & 1u) == 1u) { node = prefix[i]; }
  nodes[(p.level + 1u) * p.count + i] = node;`,
})

const solve: Shader = {
  name: 'k-means by dynamic programming',
  reads: { info: 'u32', nodes: 'vec4f' },
  writes: { least: 'f32', starts: 'u32', tables: 'f32' },
  params: { room: 'u32', all: 'u32', entries: 'u32', first: 'u32' },
  code: `${JOIN}
var<workgroup> groups_here: u32;
var<workgroup> losses: array<f32, ${THREADS}>;
var<workgroup> places: array<u32, ${THREADS}>;
/** The groups from a to z, z included, of the block at home. */
fn interval(home: u32, a: u32, z: u32) -> vec4f {
  if (a == z) { return nodes[home + a]; }
  let level = (31u - countLeadingZeros(a ^ z)) * p.all;
  return join(nodes[level + home + a], nodes[level + home + z]);
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  if (lane == 0u) { groups_here = info[p.info_at + group * ${INFO}u + 2u]; }
  let n = workgroupUniformLoad(&groups_here);
  let home = group * p.room;
  let out = p.tables_at + (p.first + group) * p.entries;
  if (n <= p.entries) {
    for (var e = lane; e < p.entries; e += ${THREADS}u) { tables[out + e] = nodes[home + min(e, n - 1u)].y; }
    return;
  }
  let wide = p.room + 1u;
  let line = p.least_at + group * 2u * wide;
  let book = p.starts_at + group * p.entries * wide;
  // least[i] of k + 1 clusters: of the first i groups.
  for (var i = 1u + lane; i <= n; i += ${THREADS}u) { least[line + i] = interval(home, 0u, i - 1u).z; }
  storageBarrier();
  workgroupBarrier();
  var widest = 1u;
  while (widest * 2u <= n) { widest *= 2u; }
  for (var k = 1u; k < p.entries; k++) {
    let old = line + ((k - 1u) & 1u) * wide;
    let new_line = line + (k & 1u) * wide;
    let record = book + k * wide;
    // The best start of the last cluster never falls as more groups come: neighbours already solved bound it.
    for (var stride = widest; stride > 0u; stride >>= 1u) {
      let count = (n + stride) / (2u * stride);
      var helpers = 1u;
      while (helpers * count * 2u <= ${THREADS}u) { helpers *= 2u; }
      let at_once = ${THREADS}u / helpers;
      for (var begin = 0u; begin < count; begin += at_once) {
        let node = begin + lane / helpers;
        let i = stride * (2u * node + 1u);
        let live = node < count && i <= n && i > k;
        var best = 3.4e38;
        var place = 0xffffffffu;
        if (live) {
          var low = k;
          var high = i - 1u;
          if (i >= stride + k + 1u) { low = max(low, starts[record + i - stride]); }
          if (i + stride <= n) { high = min(high, starts[record + i + stride]); }
          for (var j = low + lane % helpers; j <= high; j += helpers) {
            let loss = least[old + j] + interval(home, j, i - 1u).z;
            if (loss < best) { best = loss; place = j; }
          }
        }
        losses[lane] = best;
        places[lane] = place;
        workgroupBarrier();
        if (live && lane % helpers == 0u) {
          for (var h = 1u; h < helpers; h++) {
            let loss = losses[lane + h];
            if (loss < best || (loss == best && places[lane + h] < place)) { best = loss; place = places[lane + h]; }
          }
          least[new_line + i] = best;
          starts[record + i] = min(place, i - 1u);
        }
        storageBarrier();
        workgroupBarrier();
      }
    }
  }
  if (lane == 0u) {
    var end = n;
    for (var back = 1u; back <= p.entries; back++) {
      let k = p.entries - back;
      var start = 0u;
      if (k > 0u) { start = starts[book + k * wide + end]; }
      tables[out + k] = interval(home, start, end - 1u).y;
      end = start;
    }
  }
}`,
}

const uniform = groupwise('evenly spaced tables', {
  reads: { w: 'f32', scales: 'f32' },
  writes: { tables: 'f32' },
  params: { ...WEIGHT_PARAMS, entries: 'u32' },
  functions: WEIGHT_CODE,
  body: `
  let block = p.first + group;
  var least = 3.4e38;
  var most = -3.4e38;
  for (var i = lane; i < items_of(block); i += lanes) {
    let value = weight_of(row_of(block, i), column_of(block, i));
    least = min(least, value);
    most = max(most, value);
  }
  let low = -most_of(lane, -least);
  let high = most_of(lane, most);
  for (var e = lane; e < p.entries; e += lanes) {
    var share = 0.5;
    if (p.entries > 1u) { share = f32(e) / f32(p.entries - 1u); }
    tables[p.tables_at + block * p.entries + e] = low * (1.0 - share) + high * share;
  }`,
})

export interface TableFit {
  readonly w: Span
  readonly rows: number
  readonly columns: number
  readonly blockRows: number
  readonly blockColumns: number
  readonly entries: number
  readonly scales?: Span
  readonly importance?: Span
  /** Whether the importance has a row for each of the weight's. */
  readonly each: boolean
}

/** Numbers that the parts of a batch of blocks may take. */
const ROOM = 2 ** 24

export function fitByKMeans(device: Device, tables: Span, fit: TableFit): void {
  const { w, rows, columns, entries, scales, importance } = fit
  const { params, blocks, items } = weightOf(fit)
  const size = segmentSize(items)
  const room = Math.min(size, MOST_GROUPS)
  const levels = Math.log2(room) + 1
  const each = room * (4 * levels + 8) + 2 * (room + 1) + entries * (room + 1) + 2 * size
  const batch = Math.max(1, Math.min(blocks, Math.floor(ROOM / each)))
  const sources = { w, scales: scales ?? w, importance: importance ?? w }
  borrowing(device, (take) => {
    const info = take(batch * INFO)
    const [pairs, begins] = [take(sortRoom(batch, size)), take(batch * (room + 1))]
    const [suffix, prefix] = [take(batch * room * 4), take(batch * room * 4)]
    const nodes = take(batch * room * 4 * levels)
    const [least, starts] = [take(2 * batch * (room + 1)), take(batch * entries * (room + 1))]
    for (let first = 0; first < blocks; first += batch) {
      const here = Math.min(batch, blocks - first)
      const shape = { ...params, rows, columns, first, size, room }
      device.run(important, { ...sources, info }, shape, here)
      const count = here * size
      device.run(keys, { ...sources, info, pairs }, { ...shape, count }, Math.ceil(count / LANES))
      sortSegments(device, pairs, here, size)
      device.run(findGroups, { pairs, info, begins }, shape, here)
      const places = here * room
      const groups = Math.ceil(places / LANES)
      const spans = { ...sources, info, begins, pairs, out: suffix }
      device.run(leaves, spans, { ...shape, count: places }, groups)
      for (const span of [prefix, nodes]) {
        device.copy(partOf(span, 0, places * 4), partOf(suffix, 0, places * 4))
      }
      for (let level = 0; level < levels - 1; level++) {
        device.run(doubleBlocks, { suffix, prefix, nodes }, { count: places, level }, groups)
      }
      const problem = { room, all: places, entries, first }
      device.run(solve, { info, nodes, least, starts, tables }, problem, here)
    }
  })
}

export function fitEvenly(device: Device, tables: Span, fit: TableFit): void {
  const { w, rows, columns, entries, scales } = fit
  const { params, blocks } = weightOf(fit)
  const shape = { ...params, rows, columns, first: 0, entries }
  device.run(uniform, { w, scales: scales ?? w, tables }, shape, blocks)
}

function weightOf({ rows, columns, scales, importance, each, ...fit }: TableFit) {
  const blockRows = Math.min(fit.blockRows, rows)
  const blockColumns = Math.min(fit.blockColumns, columns)
  const across = Math.ceil(columns / blockColumns)
  return {
    blocks: Math.ceil(rows / blockRows) * across,
    items: blockRows * blockColumns,
    params: {
      ...{ block_rows: blockRows, block_columns: blockColumns, across },
      ...{ importance_row: each ? columns : 0, weighed: importance ? 1 : 0 },
      scaled: scales ? 1 : 0,
    },
  }
}

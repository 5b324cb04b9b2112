/** k-means of groups of points: where entries begin, and Lloyd's algorithm. */

import { type ClusterOptions, drawnSeeds, evenSeeds, segmentSize } from '@lowbit/core'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { sortRoom, sortSegments } from '../tables/sort.ts'
import { findNearest } from './nearest.ts'
import { clusterSource, sumByCodes } from './sums.ts'

const THREADS = 256

/**
 * The mean of a group's points, and the Cholesky factor of their covariance, with a floor for directions in which all
 * agree: out [groups, d + d²]. Threads share out the points, d² of them each number of a stretch of points.
 */
const moments = groupwise('mean and covariance', {
  lanes: THREADS,
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: { rows: 'u32', group_rows: 'u32', d: 'u32' },
  functions: `
var<workgroup> mean: array<f32, 16>;
var<workgroup> covariance: array<f32, 256>;`,
  body: `
  let top = group * p.group_rows;
  let high = min(p.group_rows, p.rows - top);
  for (var e = 0u; e < p.d; e++) {
    var sum = 0.0;
    for (var i = lane; i < high; i += lanes) { sum += x[p.x_at + (top + i) * p.d + e]; }
    let all = total_of(lane, sum);
    if (lane == 0u) { mean[e] = all / f32(high); }
  }
  workgroupBarrier();
  for (var a = 0u; a < p.d; a++) {
    for (var b = 0u; b <= a; b++) {
      var sum = 0.0;
      for (var i = lane; i < high; i += lanes) {
        let at = p.x_at + (top + i) * p.d;
        sum += (x[at + a] - mean[a]) * (x[at + b] - mean[b]);
      }
      let all = total_of(lane, sum);
      if (lane == 0u) { covariance[a * p.d + b] = all / f32(high); }
    }
  }
  workgroupBarrier();
  if (lane == 0u) {
    var trace = 0.0;
    for (var a = 0u; a < p.d; a++) { trace += covariance[a * p.d + a]; }
    let at = p.out_at + group * (p.d + p.d * p.d);
    for (var a = 0u; a < p.d; a++) {
      out[at + a] = mean[a];
      for (var b = 0u; b <= a; b++) {
        var s = covariance[a * p.d + b];
        for (var m = 0u; m < b; m++) { s -= covariance[a * p.d + m] * covariance[b * p.d + m]; }
        if (a == b) { s = sqrt(max(s, 1e-6 * trace + 1e-30)); } else { s /= covariance[b * p.d + b]; }
        covariance[a * p.d + b] = s;
        out[at + p.d + a * p.d + b] = s;
      }
    }
  }`,
})

/** Pairs of a point's Mahalanobis distance from the mean and its place in the group, each group a segment. */
const distances = elementwise('Mahalanobis distances', {
  reads: { x: 'f32', shape: 'f32' },
  writes: { pairs: 'vec2u' },
  params: { rows: 'u32', group_rows: 'u32', d: 'u32', size: 'u32' },
  body: `
  let group = i / p.size;
  let place = i % p.size;
  let row = group * p.group_rows + place;
  var pair = vec2u(0xffffffffu, place);
  if (place < p.group_rows && row < p.rows) {
    let at = p.shape_at + group * (p.d + p.d * p.d);
    var v: array<f32, 16>;
    var sum = 0.0;
    for (var a = 0u; a < p.d; a++) {
      var s = x[p.x_at + row * p.d + a] - shape[at + a];
      for (var m = 0u; m < a; m++) { s -= shape[at + p.d + a * p.d + m] * v[m]; }
      v[a] = s / shape[at + p.d + a * p.d + a];
      sum += v[a] * v[a];
    }
    // What differs in the last bits is equally far: then the order of the points decides.
    pair.x = (bitcast<u32>(sum) + 128u) & ~255u;
  }
  pairs[i] = pair;`,
})

/** The points in the given places of each group's order become its entries. */
const takeSeeds = elementwise('seeds', {
  reads: { x: 'f32', pairs: 'vec2u', wanted: 'u32' },
  writes: { table: 'f32' },
  params: { group_rows: 'u32', d: 'u32', size: 'u32', entries: 'u32' },
  body: `
  let e = i % p.d;
  let entry = i / p.d;
  let group = entry / p.entries;
  let place = pairs[group * p.size + wanted[p.wanted_at + entry]].y;
  table[p.table_at + i] = x[p.x_at + (group * p.group_rows + place) * p.d + e];`,
})

/** Points of a workgroup when k-means++ looks for the next seed. */
const STRETCH = 2048

/**
 * The distance of each point to the nearest seed so far, of which the last is new, and its sum over a stretch of
 * points. The first seed is drawn evenly.
 */
const farther = groupwise('k-means++, distances', {
  lanes: THREADS,
  reads: { x: 'f32', factors: 'f32', table: 'f32' },
  writes: { far: 'f32', sums: 'f32' },
  params: {
    ...{ rows: 'u32', group_rows: 'u32', d: 'u32', entries: 'u32', seeds: 'u32' },
    ...{ stretches: 'u32', weighted: 'u32' },
  },
  body: `
  let g = group / p.stretches;
  let begin = g * p.group_rows + (group % p.stretches) * ${STRETCH}u;
  let end = min(min(p.rows, (g + 1u) * p.group_rows), begin + ${STRETCH}u);
  let seed = p.table_at + (g * p.entries + p.seeds - 1u) * p.d;
  var sum = 0.0;
  for (var i = begin + lane; i < end; i += lanes) {
    var apart = 0.0;
    for (var e = 0u; e < p.d; e++) {
      let v = x[p.x_at + i * p.d + e] - table[seed + e];
      apart += v * v;
    }
    if (p.weighted == 1u) { apart *= factors[p.factors_at + i]; }
    if (p.seeds > 1u) { apart = min(apart, far[p.far_at + i]); }
    far[p.far_at + i] = apart;
    sum += apart;
  }
  let all = total_of(lane, sum);
  if (lane == 0u) { sums[p.sums_at + group] = all; }`,
})

/** The next seed of each group: the point in which a number drawn from the sum of all distances falls. */
const draw = groupwise('k-means++, next seed', {
  reads: { x: 'f32', far: 'f32', sums: 'f32', numbers: 'f32' },
  writes: { table: 'f32' },
  params: {
    ...{ rows: 'u32', group_rows: 'u32', d: 'u32', entries: 'u32', seeds: 'u32' },
    stretches: 'u32',
  },
  body: `
  if (lane == 0u) {
    let top = group * p.group_rows;
    let high = min(p.group_rows, p.rows - top);
    let number = numbers[p.numbers_at + group * p.entries + p.seeds];
    var chosen = min(high - 1u, u32(number * f32(high)));
    if (p.seeds > 0u) {
      var all = 0.0;
      for (var s = 0u; s < p.stretches; s++) { all += sums[p.sums_at + group * p.stretches + s]; }
      var left = number * all;
      var s = 0u;
      while (s + 1u < p.stretches && sums[p.sums_at + group * p.stretches + s] <= left) {
        left -= sums[p.sums_at + group * p.stretches + s];
        s++;
      }
      chosen = s * ${STRETCH}u;
      for (var i = s * ${STRETCH}u; i < min(high, (s + 1u) * ${STRETCH}u); i++) {
        let value = far[p.far_at + top + i];
        if (value > 0.0) { chosen = i; }
        left -= value;
        if (left < 0.0) { break; }
      }
      chosen = min(chosen, high - 1u);
    }
    for (var e = 0u; e < p.d; e++) {
      table[p.table_at + (group * p.entries + p.seeds) * p.d + e] = x[p.x_at + (top + chosen) * p.d + e];
    }
  }`,
})

/** Entries without points stay where they are. */
const means = elementwise('means of clusters', {
  reads: { sums: 'f32' },
  writes: { table: 'f32' },
  params: { d: 'u32' },
  body: `
  let at = p.sums_at + (i / p.d) * (p.d + 1u);
  let weight = sums[at + p.d];
  if (weight > 0.0) { table[p.table_at + i] = sums[at + i % p.d] / weight; }`,
})

export interface Cloud {
  readonly x: Span
  readonly rows: number
  readonly d: number
  readonly weights?: Span
}

export function runCluster(
  device: Device,
  table: Span,
  { x, rows, d, weights }: Cloud,
  { entries, iterations, seeding, seed = 0, ...options }: ClusterOptions,
): void {
  const groupRows = Math.min(options.groupRows, rows)
  const groups = Math.ceil(rows / groupRows)
  const shape = { rows, group_rows: groupRows, d }
  const weighted = weights ? 1 : 0
  const factors = weights ?? x
  borrowing(device, (take) => {
    if (seeding === 'mahalanobis') {
      const size = segmentSize(groupRows)
      const [covariance, pairs] = [take(groups * (d + d * d)), take(sortRoom(groups, size))]
      device.run(moments, { x, out: covariance }, shape, groups)
      const count = groups * size
      const params = { ...shape, size, count }
      device.run(distances, { x, shape: covariance, pairs }, params, Math.ceil(count / LANES))
      sortSegments(device, pairs, groups, size)
      const wanted = device.constant(evenSeeds(rows, groupRows, entries))
      const all = groups * entries * d
      const how = { count: all, group_rows: groupRows, d, size, entries }
      device.run(takeSeeds, { x, pairs, wanted, table }, how, Math.ceil(all / LANES))
    } else {
      const stretches = Math.ceil(groupRows / STRETCH)
      const [far, sums, numbers] = [take(rows), take(groups * stretches), take(groups * entries)]
      device.write(numbers, drawnSeeds(groups, entries, seed))
      for (let seeds = 0; seeds < entries; seeds++) {
        const params = { ...shape, entries, seeds, stretches, weighted }
        if (seeds > 0) {
          device.run(farther, { x, factors, table, far, sums }, params, groups * stretches)
        }
        device.run(draw, { x, far, sums, numbers, table }, params, groups)
      }
    }
    const [codes, sums] = [take(rows), take(groups * entries * (d + 1))]
    const points = { x, rows, d, groupRows, entries }
    const count = groups * entries * d
    for (let iteration = 0; iteration < iterations; iteration++) {
      findNearest(device, points, { table, codes })
      const spans = { codes, x, factors, out: sums }
      const sizes = { tables: groups, entries, items: groupRows }
      sumByCodes(device, clusterSource(d), spans, { ...shape, weighted }, sizes)
      device.run(means, { sums, table }, { count, d }, Math.ceil(count / LANES))
    }
  })
}

/** The scale and zero point of each block, by a search over shrunken ranges: one workgroup for a block. */

import { type FitOptions, LowbitError } from '@lowbit/core'
import { groupwise } from '../gpu/shader.ts'
import { GRID_CODE, GRID_PARAMS } from './grid.ts'

export const SCALE_TYPES: Readonly<Record<FitOptions['scaleType'], number>> = {
  ...{ f32: 0, f16: 1, bf16: 2, f8_e8m0: 3 },
}

/**
 * Scales are rounded half to even on their bits, since devices may round a conversion to f16 either way. The smallest
 * scale is the type's, or 2⁻¹²⁶ where that is below f32's normal numbers, which devices may flush to zero.
 */
const SCALES = `
fn exponent_of(x: f32) -> i32 { return i32((bitcast<u32>(x) >> 23u) & 255u) - 127; }
fn rounded_bits(x: f32, drop: u32) -> f32 {
  let bits = bitcast<u32>(x);
  let half = (1u << (drop - 1u)) - 1u;
  return bitcast<f32>((bits + half + ((bits >> drop) & 1u)) & ~((1u << drop) - 1u));
}
fn stored_scale(scale: f32, reach: f32) -> f32 {
  if (p.scale_type == 1u) {
    if (scale < 6.103515625e-5) { return max(round(scale * 16777216.0), 1.0) / 16777216.0; }
    return min(rounded_bits(min(scale, 65504.0), 13u), 65504.0);
  }
  if (p.scale_type == 2u) { return max(rounded_bits(min(scale, 3.38e38), 16u), 1.17549435e-38); }
  if (p.scale_type == 3u) {
    var exponent = -126;
    if (reach > 0.0) { exponent = clamp(exponent_of(reach) - exponent_of(p.largest), -126, 127); }
    return bitcast<f32>(u32(exponent + 127) << 23u);
  }
  return clamp(scale, 1.17549435e-38, 3.4e38);
}`

/** Scale and zero point of a candidate, and their error over every `stride`-th number of a block. */
const CANDIDATES = `
struct Reach { low: f32, high: f32, average: f32 }
struct Block { top: u32, left: u32, wide: u32, count: u32 }
struct Tried { scale: f32, zero: f32, error: f32 }
fn candidate_of(candidate: u32, reach: Reach) -> vec2f {
  let share = 1.0 - p.shrink * f32(candidate);
  if (p.asymmetric == 1u) {
    let most = f32(p.levels - 1u);
    let range = (reach.high - reach.low) * share;
    var zero = 0.0;
    if (range > 0.0) { zero = clamp(round((-reach.low * share) / range * most), 0.0, most); }
    return vec2f(stored_scale(range / most, range), zero);
  }
  let most = max(reach.high, -reach.low);
  if (p.mean == 1u && candidate == 0u) { return vec2f(stored_scale(reach.average / p.largest, most), 0.0); }
  return vec2f(stored_scale(most * share / p.reach, most * share), 0.0);
}
fn error_of(candidate: vec2f, block: Block, first: u32, stride: u32) -> f32 {
  let scale = candidate.x;
  let zero = candidate.y;
  var error = 0.0;
  for (var i = first; i < block.count; i += stride) {
    let column = block.left + i % block.wide;
    let value = w[p.w_at + (block.top + i / block.wide) * p.columns + column];
    let difference = value - scale * (nearest(value / scale, zero, 0u, 0u).value - zero);
    var factor = 1.0;
    if (p.weighed == 1u) { factor = importance[p.importance_at + column]; }
    error += factor * difference * difference;
  }
  return error;
}
fn put(group: u32, best: Tried) {
  scales[p.scales_at + group] = best.scale;
  if (p.asymmetric == 1u) { zeros[p.zeros_at + group] = best.zero; }
}`

/** Numbers of a block up to which a lane sums them alone. */
const ALONE = 512

export const fitShader = groupwise('fit', {
  reads: { w: 'f32', importance: 'f32', grid: 'u32' },
  writes: { scales: 'f32', zeros: 'f32' },
  params: {
    ...GRID_PARAMS,
    ...{ rows: 'u32', columns: 'u32', block_rows: 'u32', block_columns: 'u32', across: 'u32' },
    ...{ asymmetric: 'u32', weighed: 'u32', candidates: 'u32', shrink: 'f32' },
    ...{ scale_type: 'u32', largest: 'f32', reach: 'f32', mean: 'u32' },
  },
  functions: `${GRID_CODE}${SCALES}${CANDIDATES}`,
  body: `
  let top = (group / p.across) * p.block_rows;
  let left = (group % p.across) * p.block_columns;
  let wide = min(p.block_columns, p.columns - left);
  let count = min(p.block_rows, p.rows - top) * wide;
  var lowest = 0.0;
  var highest = 0.0;
  var magnitude = 0.0;
  for (var i = lane; i < count; i += lanes) {
    let value = w[p.w_at + (top + i / wide) * p.columns + left + i % wide];
    lowest = min(lowest, value);
    highest = max(highest, value);
    magnitude += abs(value);
  }
  let high = most_of(lane, highest);
  let low = -most_of(lane, -lowest);
  let reach = Reach(low, high, total_of(lane, magnitude) / f32(count));
  let block = Block(top, left, wide, count);
  if (count <= ${ALONE}u) {
    // Each lane tries candidates of its own: nothing is summed across lanes but who was best.
    var own = Tried(1.0, 0.0, 3.4e38);
    var which = p.candidates;
    for (var candidate = lane; candidate < p.candidates; candidate += lanes) {
      let scale = candidate_of(candidate, reach);
      let error = error_of(scale, block, 0u, 1u);
      if (candidate == 0u || error < own.error) {
        own = Tried(scale.x, scale.y, min(error, 3.4e38));
        which = candidate;
      }
    }
    let least = -most_of(lane, -own.error);
    let winner = -most_of(lane, -f32(select(p.candidates, which, own.error <= least)));
    if (which == u32(winner) && which % lanes == lane) { put(group, own); }
    return;
  }
  var best = Tried(1.0, 0.0, 3.4e38);
  for (var candidate = 0u; candidate < p.candidates; candidate++) {
    let scale = candidate_of(candidate, reach);
    let error = total_of(lane, error_of(scale, block, lane, lanes));
    if (candidate == 0u || error < best.error) { best = Tried(scale.x, scale.y, error); }
  }
  if (lane == 0u) { put(group, best); }`,
})

/** What the range of a symmetric block is divided by, and whether binary's mean is tried first. */
export function fitParams(options: FitOptions, largest: number): Record<string, number> {
  const { grid, asymmetric, search, scaleType } = options
  const integer = grid.kind === 'integer'
  if (asymmetric && !(integer && grid.lowest === 0 && grid.step === 1)) {
    throw new LowbitError('bad-grid', 'a zero point needs an integer grid that starts at 0')
  }
  const reach = integer && grid.levels > 2 ? (grid.step * (grid.levels - 1)) / 2 : largest
  return {
    ...{ asymmetric: asymmetric ? 1 : 0, shrink: search.step },
    candidates: Math.min(search.candidates, positive(search.step)),
    ...{ scale_type: SCALE_TYPES[scaleType], largest, reach },
    mean: integer && grid.levels === 2 && grid.lowest < 0 ? 1 : 0,
  }
}

/** How many of the shares 1, 1 − step, 1 − 2·step, … are above zero. */
const positive = (step: number): number =>
  step > 0 ? Math.max(1, Math.ceil((1 - 1e-6) / step)) : Number.POSITIVE_INFINITY

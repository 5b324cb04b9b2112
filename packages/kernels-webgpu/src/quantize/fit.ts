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

export const fitShader = groupwise('fit', {
  reads: { w: 'f32', importance: 'f32', grid: 'u32' },
  writes: { scales: 'f32', zeros: 'f32' },
  params: {
    ...GRID_PARAMS,
    ...{ rows: 'u32', columns: 'u32', block_rows: 'u32', block_columns: 'u32', across: 'u32' },
    ...{ asymmetric: 'u32', weighed: 'u32', candidates: 'u32', shrink: 'f32' },
    ...{ scale_type: 'u32', largest: 'f32', reach: 'f32', mean: 'u32' },
  },
  functions: `${GRID_CODE}${SCALES}`,
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
  let average = total_of(lane, magnitude) / f32(count);
  var best_scale = 1.0;
  var best_zero = 0.0;
  var least = 0.0;
  for (var candidate = 0u; candidate < p.candidates; candidate++) {
    let share = 1.0 - p.shrink * f32(candidate);
    if (candidate > 0u && share <= 0.0) { break; }
    var scale = 1.0;
    var zero = 0.0;
    if (p.asymmetric == 1u) {
      let most = f32(p.levels - 1u);
      let range = (high - low) * share;
      scale = stored_scale(range / most, range);
      if (range > 0.0) { zero = clamp(round((-low * share) / range * most), 0.0, most); }
    } else {
      let most = max(high, -low);
      if (p.mean == 1u && candidate == 0u) { scale = stored_scale(average / p.largest, most); }
      else { scale = stored_scale(most * share / p.reach, most * share); }
    }
    var error = 0.0;
    for (var i = lane; i < count; i += lanes) {
      let column = left + i % wide;
      let value = w[p.w_at + (top + i / wide) * p.columns + column];
      let difference = value - scale * (nearest(value / scale, zero, 0u, 0u).value - zero);
      var factor = 1.0;
      if (p.weighed == 1u) { factor = importance[p.importance_at + column]; }
      error += factor * difference * difference;
    }
    let all = total_of(lane, error);
    if (candidate == 0u || all < least) {
      least = all;
      best_scale = scale;
      best_zero = zero;
    }
  }
  if (lane == 0u) {
    scales[p.scales_at + group] = best_scale;
    if (p.asymmetric == 1u) { zeros[p.zeros_at + group] = best_zero; }
  }`,
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
    ...{ asymmetric: asymmetric ? 1 : 0, candidates: search.candidates, shrink: search.step },
    ...{ scale_type: SCALE_TYPES[scaleType], largest, reach },
    mean: integer && grid.levels === 2 && grid.lowest < 0 ? 1 : 0,
  }
}

/** Scalar grids in WGSL: the nearest value to x + zero, and its code; core's `gridWords` lays them out. */

import type { Element } from '../gpu/shader.ts'

export const GRID_PARAMS: Readonly<Record<string, Element>> = {
  ...{ integer: 'u32', lowest: 'f32', step: 'f32', levels: 'u32', even: 'u32' },
  ...{ entries: 'u32', grid_rows: 'u32', grid_columns: 'u32', grid_across: 'u32' },
}

/**
 * `nearest(x, zero, row, column)`: the code in `.code` and its value in `.value`. Integers of step 1 are rounded half
 * to even before zero and offset are added. Between two values of a float grid the even code wins, of a table the
 * smaller value.
 */
export const GRID_CODE = `
struct Rounded { code: u32, value: f32 }
fn nearest(x: f32, zero: f32, row: u32, column: u32) -> Rounded {
  if (p.integer == 1u) {
    let most = f32(p.levels - 1u);
    var index = 0.0;
    // Far out x would lose its fraction, and beyond 2^31 its way to an integer.
    if (p.step == 1.0) { index = round(clamp(x, -1.0e6, 1.0e6)) + zero - p.lowest; }
    else { index = round((clamp(x, -1.0e6, 1.0e6) + zero - p.lowest) / p.step); }
    index = clamp(index, 0.0, most);
    return Rounded(u32(index), p.lowest + p.step * index);
  }
  let table = ((row / p.grid_rows) * p.grid_across + column / p.grid_columns) * p.entries * 2u + p.grid_at;
  let target_value = x + zero;
  var low = 0u;
  var high = p.entries - 1u;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (bitcast<f32>(grid[table + middle]) <= target_value) { low = middle; } else { high = middle; }
  }
  let a = bitcast<f32>(grid[table + low]);
  let b = bitcast<f32>(grid[table + high]);
  let left = abs(a - target_value);
  let right = abs(b - target_value);
  let code_low = grid[table + p.entries + low];
  var upper = right < left;
  if (right == left && a != b) { upper = p.even == 1u && (code_low & 1u) == 1u; }
  // Far away both are equally near.
  if (target_value >= b) { upper = true; }
  if (target_value <= a) { upper = false; }
  if (upper && a != b) { return Rounded(grid[table + p.entries + high], b); }
  return Rounded(code_low, a);
}`

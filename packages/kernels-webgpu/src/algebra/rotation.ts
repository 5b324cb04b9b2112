/** Randomized Hadamard rotations: a block is a workgroup's, in its own memory. */

import type { Shader } from '../gpu/shader.ts'

const shaders = new Map<number, Shader>()

export function rotationShader(block: number): Shader {
  const known = shaders.get(block)
  if (known) return known
  const shader: Shader = {
    name: `rotate blocks of ${block}`,
    reads: { signs: 'u32' },
    writes: { x: 'f32' },
    params: { columns: 'u32' },
    code: `
var<workgroup> values: array<f32, ${block}>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let at = p.x_at + group * ${block}u;
  let first = (group * ${block}u) % p.columns;
  for (var i = lane; i < ${block}u; i += 64u) {
    let column = first + i;
    let minus = (signs[p.signs_at + column / 32u] >> (column % 32u)) & 1u;
    values[i] = x[at + i] * (1.0 - 2.0 * f32(minus));
  }
  for (var half = 1u; half < ${block}u; half *= 2u) {
    workgroupBarrier();
    for (var pair = lane; pair < ${Math.floor(block / 2)}u; pair += 64u) {
      let a = (pair / half) * half * 2u + pair % half;
      let u = values[a];
      let v = values[a + half];
      values[a] = u + v;
      values[a + half] = u - v;
    }
  }
  workgroupBarrier();
  for (var i = lane; i < ${block}u; i += 64u) { x[at + i] = values[i] / sqrt(${block}.0); }
}`,
  }
  shaders.set(block, shader)
  return shader
}

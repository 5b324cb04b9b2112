/**
 * What the passes share that choose vectors column by column. A workgroup has the rows of one vector, and goes through
 * some columns by itself, since what it needs of others lies in the factor or the Hessian; what it leaves goes to all
 * later columns in one product.
 */

import { bestOf, type Shader } from '../gpu/shader.ts'
import { FACTOR_CODE, type VectorPass } from './layout.ts'

/** Columns of a dispatch. */
export const STEP = 32

export const stageParams = (stages: number, ...names: string[]): Shader['params'] =>
  Object.fromEntries(
    Array.from({ length: stages }, (_, s) =>
      names.map((name) => [`${name}${s}`, 'u32' as const]),
    ).flat(),
  )

/** A workgroup's memory, for `teams` vectors of `length`, each searched for by all its threads. */
export const start = (lanes: number, length: number, teams = 1): string => `
var<workgroup> reduced: array<f32, ${lanes * teams}>;
${bestOf(lanes, teams)}
${FACTOR_CODE}
var<workgroup> rest: array<f32, ${16 * teams}>;
var<workgroup> sum: array<f32, ${16 * teams}>;
var<workgroup> value: array<f32, ${16 * teams}>;
var<workgroup> err: array<f32, ${STEP * length * teams}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }`

/** The first numbers of the last vector of four: entries are filled up with zeros, which need no look. */
const PARTS = ['', '.x', '.xy', '.xyz']

/** `v`, a vector of four numbers, as far as vectors of `length` reach into it. */
export const reach = (v: string, length: number, four: number): string =>
  length >= 4 * (four + 1) ? v : `${v}${PARTS[length % 4]}`

/** The square of `d`, a number or a vector. */
export const squared = (d: string, length: number, four: number): string =>
  length - 4 * four === 1 ? `${d} * ${d}` : `dot(${d}, ${d})`

export const stages = (
  { entries }: VectorPass,
  starts: readonly number[],
  codes: readonly number[],
): Record<string, number> =>
  Object.fromEntries(
    entries.flatMap((count, s) => [
      ...[[`entries${s}`, count] as const, [`table${s}`, starts[s]] as const],
      [`code${s}`, codes[s]] as const,
    ]),
  )

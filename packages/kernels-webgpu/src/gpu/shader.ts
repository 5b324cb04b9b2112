/** Shaders as data: what they bind, their parameters, and their WGSL. */

export type Element = 'f32' | 'u32'
/** What a buffer holds; one of vectors begins where its memory does. */
export type Item = Element | 'vec2u' | 'vec4f' | 'atomic<u32>'

export interface Shader {
  readonly name: string
  /** Buffers in the order of their bindings. A buffer is an input or an output of a dispatch, never both. */
  readonly reads: Readonly<Record<string, Item>>
  readonly writes: Readonly<Record<string, Item>>
  readonly params: Readonly<Record<string, Element | 'i32'>>
  /** Optional features of the device that it uses. */
  readonly enable?: readonly ('subgroups' | 'f16')[]
  /** Features of the language that it needs. */
  readonly requires?: readonly string[]
  /** Everything after the declarations: functions, workgroup memory, `main`. */
  readonly code: string
}

/** Threads of a workgroup, unless a shader says otherwise: what every device must offer is 256. */
export const LANES = 64

/**
 * The whole module. Each buffer `x` has a parameter `x_at`, the index of its first element, because bindings
 * start at multiples of 256 bytes and views of rows don't. Workgroups are counted along two dimensions (65,535 is
 * the most along one): `group_of` numbers them, and those from `p.groups` on have nothing to do.
 */
export function wgsl({ reads, writes, params, code, enable = [], requires = [] }: Shader): string {
  const buffers = [...Object.keys(reads), ...Object.keys(writes)]
  const fields = [
    'groups: u32',
    ...buffers.map((name) => `${name}_at: u32`),
    ...Object.entries(params).map(([name, type]) => `${name}: ${type}`),
  ]
  const bindings = [
    ...Object.entries(reads).map(([name, type]) => `var<storage, read> ${name}: array<${type}>;`),
    ...Object.entries(writes).map(
      ([name, type]) => `var<storage, read_write> ${name}: array<${type}>;`,
    ),
  ]
  return [
    ...enable.map((name) => `enable ${name};`),
    ...requires.map((name) => `requires ${name};`),
    `struct Params { ${fields.join(', ')} }`,
    '@group(0) @binding(0) var<uniform> p: Params;',
    ...bindings.map((text, i) => `@group(0) @binding(${i + 1}) ${text}`),
    'fn group_of(id: vec3u, count: vec3u) -> u32 { return id.y * count.x + id.x; }',
    code,
  ].join('\n')
}

/**
 * `best_of(lane, team)`: where `reduced` (the shader's own) holds a number for each lane of each team, `team · lanes +
 * lane`, and `places` an index, the index of the team's least number, of equals the smallest; teams are few (≤ √lanes / 2). Callers wait for each
 * other before they write either again. In two steps: waiting costs threads more than a few comparisons.
 */
export const bestOf = (lanes: number, teams = 1): string => {
  const few = 2 ** Math.ceil(Math.log2(lanes) / 2)
  const nearer = (i: string, best: string): string =>
    `reduced[${i}] < reduced[${best}] || (reduced[${i}] == reduced[${best}] && places[${i}] < places[${best}])`
  return `
var<workgroup> places: array<u32, ${lanes * teams}>;
fn best_of(lane: u32, team: u32) -> u32 {
  workgroupBarrier();
  if (lane < ${few * teams}u) {
    let first = lane / ${few}u * ${lanes}u + lane % ${few}u;
    var best = first;
    for (var i = ${few}u; i < ${lanes}u; i += ${few}u) {
      if (${nearer('first + i', 'best')}) { best = first + i; }
    }
    reduced[first] = reduced[best];
    places[first] = places[best];
  }
  workgroupBarrier();
  if (lane < ${teams}u) {
    let first = lane * ${lanes}u;
    var best = first;
    for (var i = 1u; i < ${few}u; i++) {
      if (${nearer('first + i', 'best')}) { best = first + i; }
    }
    places[first] = places[best];
  }
  workgroupBarrier();
  return places[team * ${lanes}u];
}`
}

/** Lines for 0 … count − 1: loops that are written out. */
export const each = (count: number, line: (i: number) => string, between = '\n'): string =>
  Array.from({ length: count }, (_, i) => line(i)).join(between)

/** A shader that is made once for each key. */
export function remembered(known: Map<string, Shader>, key: string, make: () => Shader): Shader {
  const found = known.get(key)
  if (found) return found
  const shader = make()
  known.set(key, shader)
  return shader
}

/** `body` for each i below `p.count`: one thread an element. */
export function elementwise(
  name: string,
  parts: Omit<Shader, 'name' | 'code'> & { readonly body: string; readonly functions?: string },
): Shader {
  const { reads, writes, params, body, functions = '' } = parts
  return {
    ...{ name, reads, writes, params: { count: 'u32', ...params } },
    code: `${functions}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = group_of(id, total) * ${LANES}u + lane;
  if (i >= p.count) { return; }
  ${body}
}`,
  }
}

/** `body` once for each group of `lanes` threads, with `group`, `lane`, and `total_of`, `most_of` over its threads. */
export function groupwise(
  name: string,
  parts: Omit<Shader, 'name' | 'code'> & {
    readonly body: string
    readonly functions?: string
    readonly lanes?: number
  },
): Shader {
  const { reads, writes, params, body, functions = '', lanes = LANES } = parts
  const few = Math.min(lanes, 16)
  const reduce = (name: string, combine: (a: string, b: string) => string): string => `
fn ${name}(lane: u32, value: f32) -> f32 {
  reduced[lane] = value;
  workgroupBarrier();
  // In two steps: waiting for each other costs threads more than a few sums.
  if (lane < ${few}u) {
    var own = value;
    for (var i = lane + ${few}u; i < lanes; i += ${few}u) { own = ${combine('own', 'reduced[i]')}; }
    reduced[lane] = own;
  }
  workgroupBarrier();
  var result = reduced[0];
  for (var i = 1u; i < ${few}u; i++) { result = ${combine('result', 'reduced[i]')}; }
  workgroupBarrier();
  return result;
}`
  return {
    ...{ name, reads, writes, params },
    code: `const lanes = ${lanes}u;
var<workgroup> reduced: array<f32, ${lanes}>;
${reduce('total_of', (a, b) => `${a} + ${b}`)}
${reduce('most_of', (a, b) => `max(${a}, ${b})`)}
${functions}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  ${body}
}`,
  }
}

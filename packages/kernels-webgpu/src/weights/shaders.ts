/** Shaders that decode weights: generated for each layout from the same parts. */

import type { WordLayout } from '@lowbit/core'
import { productCode } from '../algebra/product.ts'
import { type Element, each, groupwise, type Shader } from '../gpu/shader.ts'

/** Rows of x that the vector product takes at once. */
export const FEW_ROWS = 4
/** Outputs of a workgroup of the vector product, and the threads that each has. */
export const OUTPUTS = 4
export const THREADS = 16

const BLOCKED = ['table', 'scale', 'zero', 'bias'].flatMap((name) => [
  ...[name, `${name}_rows`, `${name}_columns`, `${name}_across`],
])

export const DECODED_PARAMS: Readonly<Record<string, Element | 'i32'>> = {
  ...{ rows: 'u32', depth: 'u32', words: 'u32', lowest: 'f32', step: 'f32' },
  ...{ entries: 'u32', row_scale: 'u32' },
  ...Object.fromEntries(BLOCKED.map((name) => [name, 'u32' as const])),
}

const number = (at: string): string => `bitcast<f32>(w[p.w_at + ${at}])`

const block = (name: string): string =>
  `p.${name} + (n / p.${name}_rows) * p.${name}_across + k / p.${name}_columns`

/** What the codes mean: `grid_value` of a word's place, and a weight in `decoded` and `weight_of`. */
export function decoding(layout: WordLayout): string {
  const { kind, bits, length, along, scale, zero, bias, rowScale } = layout
  const perWord = 32 / bits
  const mask = bits === 32 ? '0xffffffffu' : `${2 ** bits - 1}u`
  const code = bits === 32 ? 'bits' : `((bits >> (place * ${bits}u)) & ${mask})`
  const value = {
    f32: `bitcast<f32>(bits)`,
    f16: `unpack2x16float(bits)[place]`,
    bf16: `bitcast<f32>(${code} << 16u)`,
    integer: `p.lowest + p.step * f32(${code})`,
    table: number(
      `p.table + (((n / p.table_rows) * p.table_across + k / p.table_columns) * p.entries + ${code}) * ${length}u + e`,
    ),
  }[kind]
  const codeRow = along === 'in' ? 'n' : `n / ${length}u`
  const codeColumn = along === 'in' ? `k / ${length}u` : 'k'
  const element = `${along === 'in' ? 'k' : 'n'} % ${length}u`
  return `
fn grid_value(bits: u32, place: u32, e: u32, n: u32, k: u32) -> f32 { return ${value}; }
fn scale_of(n: u32, k: u32) -> f32 { return ${scale ? number(block('scale')) : '1.0'}; }
fn zero_of(n: u32, k: u32) -> f32 { return ${zero ? number(block('zero')) : '0.0'}; }
fn bias_of(n: u32, k: u32) -> f32 { return ${bias ? number(block('bias')) : '0.0'}; }
fn row_scale_of(n: u32) -> f32 { return ${rowScale ? number('p.row_scale + n') : '1.0'}; }
fn decoded(bits: u32, place: u32, e: u32, n: u32, k: u32) -> f32 {
  var value = grid_value(bits, place, e, n, k);
  ${zero ? 'value -= zero_of(n, k);' : ''}
  ${scale ? 'value *= scale_of(n, k);' : ''}
  ${bias ? 'value += bias_of(n, k);' : ''}
  return value;
}
fn weight_of(n: u32, k: u32) -> f32 {
  let column = ${codeColumn};
  let bits = w[p.w_at + (${codeRow}) * p.words + column / ${perWord}u];
  return decoded(bits, column % ${perWord}u, ${element}, n, k);
}`
}

export const X = { x_row: 'u32', x_from: 'u32', tokens: 'u32', keep: 'u32' } as const

export const PUT = `
fn put(t: u32, n: u32, sum: f32) {
  let at = p.out_at + t * p.rows + n;
  var value = sum * row_scale_of(n);
  if (p.keep == 1u) { value += out[at]; }
  out[at] = value;
}`

const known = new Map<string, Shader>()

function remember(key: string, make: () => Omit<Shader, 'name'>): Shader {
  const found = known.get(key)
  if (found) return found
  const shader = { name: key, ...make() }
  known.set(key, shader)
  return shader
}

export const nameOf = (layout: WordLayout): string => Object.values(layout).join(' ')

/** out[t, n] for 1 … 4 rows of x: each output's words are shared out over threads. */
export function vectorShader(layout: WordLayout, tokens: number): Shader {
  return remember(`vector × ${tokens}, ${nameOf(layout)}`, () => ({
    reads: { x: 'f32', w: 'u32' },
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X },
    code: layout.along === 'in' ? alongIn(layout, tokens) : alongOut(layout, tokens),
  }))
}

/** Adds up `sum0` … of the threads that an output has, in the group's `partial`, and puts them. */
export const putTotals = (tokens: number): string =>
  each(
    tokens,
    (t) => `partial[lane] = sum${t};
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half >>= 1u) {
    if (mine < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  if (mine == 0u && n < p.rows) { put(${t}u, n, partial[lane]); }
  workgroupBarrier();`,
  )

function alongIn(layout: WordLayout, tokens: number): string {
  const { bits, length, even, scale, zero, bias } = layout
  const perWord = 32 / bits
  const inside = even
    ? `let value = grid_value(bits, place, 0u, n, k)${zero ? ' - word_zero' : ''};`
    : `let value = decoded(bits, place, e, n, k);`
  return `${decoding(layout)}${PUT}
var<workgroup> partial: array<f32, ${OUTPUTS * THREADS}>;
@compute @workgroup_size(${OUTPUTS * THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let n = group * ${OUTPUTS}u + lane / ${THREADS}u;
  let mine = lane % ${THREADS}u;
  ${each(tokens, (t) => `var sum${t} = 0.0;`)}
  if (n < p.rows) {
    for (var word = mine; word < p.words; word += ${THREADS}u) {
      let bits = w[p.w_at + n * p.words + word];
      let first = word * ${perWord * length}u;
      ${even && zero ? 'let word_zero = zero_of(n, first);' : ''}
      ${even ? each(tokens, (t) => `var dot${t} = 0.0; var mass${t} = 0.0;`) : ''}
      for (var place = 0u; place < ${perWord}u; place++) {
        for (var e = 0u; e < ${length}u; e++) {
          let k = first + place * ${length}u + e;
          if (k < p.depth) {
            ${inside}
            ${each(tokens, (t) => {
              const x = `x[p.x_at + p.x_from + ${t}u * p.x_row + k]`
              if (!even) return `sum${t} += value * ${x};`
              return bias
                ? `{ let x_${t} = ${x}; dot${t} += value * x_${t}; mass${t} += x_${t}; }`
                : `dot${t} += value * ${x};`
            })}
          }
        }
      }
      ${
        even
          ? each(tokens, (t) => {
              const scaled = scale ? `dot${t} * scale_of(n, first)` : `dot${t}`
              return `sum${t} += ${scaled}${bias ? ` + mass${t} * bias_of(n, first)` : ''};`
            })
          : ''
      }
    }
  }
  ${putTotals(tokens)}
}`
}

/** Vectors of rows: a code row is a workgroup's, whose threads take its columns in turn. */
function alongOut(layout: WordLayout, tokens: number): string {
  const { bits, length } = layout
  const perWord = 32 / bits
  const lanes = 64
  return `${decoding(layout)}${PUT}
var<workgroup> partial: array<f32, ${lanes}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let top = group * ${length}u;
  var sums: array<f32, ${length * tokens}>;
  for (var k = lane; k < p.depth; k += ${lanes}u) {
    let bits = w[p.w_at + group * p.words + k / ${perWord}u];
    ${each(tokens, (t) => `let x${t} = x[p.x_at + p.x_from + ${t}u * p.x_row + k];`)}
    for (var e = 0u; e < ${length}u; e++) {
      let n = min(top + e, p.rows - 1u);
      let value = decoded(bits, k % ${perWord}u, e, n, k);
      ${each(tokens, (t) => `sums[${t}u * ${length}u + e] += value * x${t};`)}
    }
  }
  for (var i = 0u; i < ${length * tokens}u; i++) {
    partial[lane] = sums[i];
    workgroupBarrier();
    for (var half = ${lanes / 2}u; half > 0u; half >>= 1u) {
      if (lane < half) { partial[lane] += partial[lane + half]; }
      workgroupBarrier();
    }
    let n = top + i % ${length}u;
    if (lane == 0u && n < p.rows) { put(i / ${length}u, n, partial[0]); }
    workgroupBarrier();
  }
}`
}

/** out[t, n] for many rows of x: tiles are decoded into workgroup memory. */
export function matrixShader(layout: WordLayout): Shader {
  return remember(`matrix, ${nameOf(layout)}`, () => ({
    reads: { x: 'f32', w: 'u32' },
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X, columns: 'u32' },
    code: productCode(
      `${decoding(layout)}${PUT.replaceAll('p.rows', 'p.columns')}
fn a_value(t: u32, k: u32) -> f32 { return x[p.x_at + p.x_from + t * p.x_row + k]; }
fn b_value(k: u32, n: u32) -> f32 { return weight_of(n, k); }`,
      fastOf(layout),
    ),
  }))
}

const fastOf = ({ along }: WordLayout) => ({ a: 'k', b: along === 'in' ? 'k' : 'j' }) as const

/** The same with tiles of f16. Rows of x are divided by their largest number, so that no sum of a tile overflows. */
export function halfMatrixShader(layout: WordLayout): Shader {
  return remember(`matrix in f16, ${nameOf(layout)}`, () => ({
    enable: ['f16'],
    reads: { x: 'f32', largest: 'f32', w: 'u32' },
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X, columns: 'u32' },
    code: productCode(
      `${decoding(layout)}
fn put(t: u32, n: u32, sum: f32) {
  let at = p.out_at + t * p.columns + n;
  var value = sum * largest[p.largest_at + t] * row_scale_of(n);
  if (p.keep == 1u) { value += out[at]; }
  out[at] = value;
}
fn a_value(t: u32, k: u32) -> f32 {
  let most = largest[p.largest_at + t];
  return select(0.0, x[p.x_at + p.x_from + t * p.x_row + k] / most, most > 0.0);
}
fn b_value(k: u32, n: u32) -> f32 { return weight_of(n, k); }`,
      fastOf(layout),
      { number: 'f16' },
    ),
  }))
}

/** The largest of each row of x. */
export const largestShader = groupwise('largest of rows', {
  reads: { x: 'f32' },
  writes: { largest: 'f32' },
  params: { depth: 'u32', x_row: 'u32', x_from: 'u32' },
  body: `
  var most = 0.0;
  for (var k = lane; k < p.depth; k += lanes) {
    most = max(most, abs(x[p.x_at + p.x_from + group * p.x_row + k]));
  }
  most = most_of(lane, most);
  if (lane == 0u) { largest[p.largest_at + group] = most; }`,
})

/** out[i, order[k]] += W[rows[i], k] over the stored columns of a stage. */
export function gatherShader(layout: WordLayout): Shader {
  return remember(`gather, ${nameOf(layout)}`, () => ({
    reads: { w: 'u32', picked: 'u32', order: 'u32' },
    writes: { out: 'f32' },
    params: {
      ...DECODED_PARAMS,
      ...{ count: 'u32', out_row: 'u32', begin: 'u32', some: 'u32', ordered: 'u32', keep: 'u32' },
    },
    code: `${decoding(layout)}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = group_of(id, total) * 64u + lane;
  if (i >= p.count) { return; }
  let line = i / p.depth;
  let k = i % p.depth;
  var n = line;
  if (p.some == 1u) { n = picked[p.picked_at + line]; }
  var column = p.begin + k;
  if (p.ordered == 1u) { column = order[p.order_at + column]; }
  let at = p.out_at + line * p.out_row + column;
  var value = weight_of(n, k) * row_scale_of(n);
  if (p.keep == 1u) { value += out[at]; }
  out[at] = value;
}`,
  }))
}

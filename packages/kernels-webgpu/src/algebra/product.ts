/**
 * Dense products of matrices anywhere in memory. By tiles: 64 × 64 outputs a workgroup, 8 × 4 a thread, through
 * workgroup memory. By subgroups: each thread has four columns of 16 rows, whose values the threads of a subgroup read
 * together and get from each other: reading is what costs most where loads are checked one by one.
 */

import type { Device, Span } from '../gpu/device.ts'
import { each, type Shader } from '../gpu/shader.ts'

/** Element (i, j) of a matrix lies at `at + i · row + j · column` of its span. */
export interface Strided {
  readonly span: Span
  readonly at?: number
  readonly row: number
  readonly column: number
}

export interface Product {
  readonly out: Strided
  readonly a: Strided
  readonly b: Strided
  readonly rows: number
  readonly columns: number
  readonly depth: number
  /** Default 1. */
  readonly factor?: number
  /** What `out` held times this is added; default 0. */
  readonly keep?: number
  /** Of a symmetric product the part on and below the diagonal alone; what lies above may be written or not. */
  readonly lower?: boolean
}

export const TILE = 64
export const DEPTH = 16
/** Rows of outputs of a thread; it has four columns, 16 apart. */
export const HIGH = 8
export const TILE_THREADS = 16 * (TILE / HIGH)

/** Puts `sum0` … of a thread of a tile, which ends with so many rows and columns. */
export const putTile = (rows: string, columns: string): string =>
  each(
    HIGH,
    (r) => `{ let i = top + own.y * ${HIGH}u + ${r}u;
    if (i < ${rows}) {
      for (var c = 0u; c < 4u; c++) {
        let j = start + own.x + c * 16u;
        if (j < ${columns}) { put(i, j, sum${r}[c]); }
      }
    } }`,
  )

/**
 * out[i, j] = keep · out[i, j] + factor · Σ_k a(i, k) · b(k, j), with `a_value` and `b_value` from `source`. What is
 * outside the matrices counts as zero. `fast` says which index of a side lies close together in memory. In halves
 * products of one tile's depth are added in f16, and the tiles in f32. With `lower` there is `p.lower`, which leaves out
 * tiles above the diagonal.
 */
export function productCode(
  source: string,
  fast: { a: 'i' | 'k'; b: 'j' | 'k' },
  { number = 'f32', lower = false }: { number?: 'f32' | 'f16'; lower?: boolean } = {},
): string {
  const vector = number === 'f16' ? 'vec4h' : 'vec4f'
  const part = number === 'f16' ? 'part' : 'sum'
  const place = (near: boolean) =>
    near
      ? `let across = e / ${DEPTH}u; let deep = e % ${DEPTH}u;`
      : `let across = e % ${TILE}u; let deep = e / ${TILE}u;`
  const lines = Array.from({ length: HIGH }, (_, i) => i)
  return `${source}
var<workgroup> left: array<${number}, ${TILE * DEPTH}>;
var<workgroup> right: array<${number}, ${TILE * DEPTH}>;
@compute @workgroup_size(16, ${TILE / HIGH})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_id) own: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let across_tiles = (p.columns + ${TILE - 1}u) / ${TILE}u;
  let top = (group / across_tiles) * ${TILE}u;
  let start = (group % across_tiles) * ${TILE}u;
  ${lower ? `if (p.lower == 1u && start > top + ${TILE - 1}u) { return; }` : ''}
  ${lines.map((r) => `var sum${r} = vec4f();`).join(' ')}
  for (var begin = 0u; begin < p.depth; begin += ${DEPTH}u) {
    for (var e = lane; e < ${TILE * DEPTH}u; e += ${TILE_THREADS}u) {
      { ${place(fast.a === 'k')}
        let i = top + across; let k = begin + deep;
        var value = 0.0;
        if (i < p.rows && k < p.depth) { value = a_value(i, k); }
        left[deep * ${TILE}u + across] = ${number}(value); }
      { ${place(fast.b === 'k')}
        let j = start + across; let k = begin + deep;
        var value = 0.0;
        if (j < p.columns && k < p.depth) { value = b_value(k, j); }
        right[deep * ${TILE}u + across] = ${number}(value); }
    }
    workgroupBarrier();
    ${number === 'f16' ? lines.map((r) => `var part${r} = vec4h();`).join(' ') : ''}
    for (var k = 0u; k < ${DEPTH}u; k++) {
      let at = k * ${TILE}u;
      let b = ${vector}(right[at + own.x], right[at + own.x + 16u], right[at + own.x + 32u], right[at + own.x + 48u]);
      ${lines.map((r) => `${part}${r} += left[at + own.y * ${HIGH}u + ${r}u] * b;`).join('\n      ')}
    }
    ${number === 'f16' ? lines.map((r) => `sum${r} += vec4f(part${r});`).join(' ') : ''}
    workgroupBarrier();
  }
  ${putTile('p.rows', 'p.columns')}
}`
}

/** Threads of a workgroup by subgroups, and the rows and columns of outputs that each has. */
const ABREAST = 64
const ROWS = 16
const COLUMNS = 4

function subgroupCode(source: string, subgroup: number): string {
  const rows = Array.from({ length: ROWS }, (_, r) => r)
  const shares = Array.from({ length: ROWS / subgroup }, (_, s) => s)
  const columns = Array.from({ length: COLUMNS }, (_, c) => c)
  return `${source}
@compute @workgroup_size(${ABREAST})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_invocation_id) seat: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let across = (p.columns + ${ABREAST * COLUMNS - 1}u) / ${ABREAST * COLUMNS}u;
  let top = (group / across) * ${ROWS}u;
  let first = (group % across) * ${ABREAST * COLUMNS}u;
  if (p.lower == 1u && first > top + ${ROWS - 1}u) { return; }
  let start = first + lane;
  ${shares.map((s) => `let row${s} = min(top + ${s * subgroup}u + seat % ${subgroup}u, p.rows - 1u);`).join(' ')}
  ${columns.map((c) => `let column${c} = min(start + ${ABREAST * c}u, p.columns - 1u);`).join(' ')}
  ${rows.map((r) => `var sum${r} = vec4f();`).join(' ')}
  for (var k = 0u; k < p.depth; k++) {
    ${shares.map((s) => `let a${s} = a_value(row${s}, k);`).join(' ')}
    let b_here = vec4f(${columns.map((c) => `b_value(k, column${c})`).join(', ')});
    ${rows.map((r) => `sum${r} += subgroupBroadcast(a${Math.floor(r / subgroup)}, ${r % subgroup}u) * b_here;`).join('\n    ')}
  }
  for (var c = 0u; c < ${COLUMNS}u; c++) {
    let j = start + c * ${ABREAST}u;
    if (j < p.columns) {
      ${rows.map((r) => `if (top + ${r}u < p.rows) { put(top + ${r}u, j, sum${r}[c]); }`).join('\n      ')}
    }
  }
}`
}

export const groupsOf = (rows: number, columns: number): number =>
  Math.ceil(rows / TILE) * Math.ceil(columns / TILE)

const shaders = new Map<string, Shader>()

type Fast = { readonly a: 'i' | 'k'; readonly b: 'j' | 'k' }

/** By subgroups of at least so many threads, or by tiles. */
function productShader(fast: Fast, subgroup: number): Shader {
  const way = subgroup > 0 ? `subgroups of ${subgroup}` : `${fast.a} and ${fast.b} close together`
  const key = `product, ${way}`
  const known = shaders.get(key)
  if (known) return known
  const source = `
fn a_value(i: u32, k: u32) -> f32 { return a[p.a_at + i * p.a_row + k * p.a_column]; }
fn b_value(k: u32, j: u32) -> f32 { return b[p.b_at + k * p.b_row + j * p.b_column]; }
fn put(i: u32, j: u32, sum: f32) {
  let at = p.out_at + i * p.out_row + j * p.out_column;
  var value = p.factor * sum;
  if (p.keep != 0.0) { value += p.keep * out[at]; }
  out[at] = value;
}`
  const shader: Shader = {
    name: key,
    reads: { a: 'f32', b: 'f32' },
    writes: { out: 'f32' },
    params: {
      ...{ rows: 'u32', columns: 'u32', depth: 'u32', factor: 'f32', keep: 'f32', lower: 'u32' },
      ...{ a_row: 'u32', a_column: 'u32', b_row: 'u32', b_column: 'u32' },
      ...{ out_row: 'u32', out_column: 'u32' },
    },
    enable: subgroup > 0 ? ['subgroups'] : [],
    code:
      subgroup > 0 ? subgroupCode(source, subgroup) : productCode(source, fast, { lower: true }),
  }
  shaders.set(key, shader)
  return shader
}

export function product(
  device: Device,
  { out, a, b, factor = 1, keep = 0, lower = false, ...size }: Product,
) {
  const fast = { a: a.column === 1 ? 'k' : 'i', b: b.column === 1 ? 'j' : 'k' } as const
  const { rows, columns, depth } = size
  const subgroup = device.choices.product === 'subgroups' ? device.subgroup : 0
  device.run(
    productShader(fast, subgroup),
    { a: part(a, rows, depth), b: part(b, depth, columns), out: part(out, rows, columns) },
    {
      ...{ rows, columns, depth, factor, keep, lower: lower ? 1 : 0 },
      ...{ a_row: a.row, a_column: a.column, b_row: b.row, b_column: b.column },
      ...{ out_row: out.row, out_column: out.column },
    },
    subgroup > 0
      ? Math.ceil(rows / ROWS) * Math.ceil(columns / (ABREAST * COLUMNS))
      : groupsOf(rows, columns),
  )
}

/** The numbers that a strided matrix reaches. */
function part({ span, at = 0, row, column }: Strided, rows: number, columns: number): Span {
  const length = Math.max(0, rows - 1) * row + Math.max(0, columns - 1) * column + 1
  return { block: span.block, at: span.at + at, length: Math.min(length, span.length - at) }
}

/** A matrix whose rows are close together. */
export const plain = (span: Span, columns: number, at = 0): Strided => ({
  ...{ span, at, row: columns, column: 1 },
})
/** Its transpose. */
export const turned = (span: Span, columns: number, at = 0): Strided => ({
  ...{ span, at, row: 1, column: columns },
})

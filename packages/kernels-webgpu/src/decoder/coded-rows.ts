/** Rows in codes as shaders read them. */

import { type CacheGrid, ENTRIES } from '@lowbit/core'
import { elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'
import type { Positions } from './attention.ts'
import { HALF } from './encoding.ts'

/** What a shader is made for: its grid, and whether outliers lie beside the codes. */
export interface RowsKind {
  readonly grid: CacheGrid
  readonly apart: boolean
  /** Of keys that were coded before RoPE: the size of a head, and whether it was rotated too. */
  readonly turn?: { readonly size: number; readonly rotated: boolean }
}

interface ReadRows extends Pick<Shader, 'reads' | 'params'> {
  readonly functions: string
  /** Adds the product of `query` and the key at `key` to `score`, as the head begins at `column`; of rows `k`. */
  readonly score: string
}

/** Rows of one kind are read by one shader; their tables are bound. */
const nameOf = ({ grid, apart }: RowsKind): string => {
  const { bits, tokens, channels, symmetric, table, coupled } = grid
  if (coupled) return `${coupled} coupled channels`
  return `${bits} bits, ${tokens} × ${channels}${symmetric ? ', symmetric' : ''}${table ? ', a table' : ''}${apart ? ', outliers' : ''}`
}

/**
 * Rows under the name `x`: bindings, parameters and `number_x(row, column)`. Their table begins `table_x` numbers behind
 * the beginning of `tables`, which may be a binding for other things too.
 */
function rowsIn(x: string, { grid, apart }: RowsKind, tables: string): ReadRows {
  const { bits, tokens, channels, symmetric, table, coupled } = grid
  const code = `
fn code_${x}(line: u32, column: u32) -> u32 {
  let bit = column * ${bits}u;
  let at = p.codes_${x}_at + line + bit / 32u;
  var word = codes_${x}[at] >> (bit % 32u);
  ${32 % bits === 0 ? '' : `if (bit % 32u > ${32 - bits}u) { word |= codes_${x}[at + 1u] << (32u - bit % 32u); }`}
  return word & ${2 ** bits - 1}u;
}`
  const plainScore = `
      for (var i = 0u; i < p.size; i++) { score += query[i] * number_${x}(key, column + i); }`
  if (bits === 16) {
    return {
      reads: { [`codes_${x}`]: 'u32' },
      params: { [`line_${x}`]: 'u32' },
      functions: `${code}
fn number_${x}(row: u32, column: u32) -> f32 {
  return half_value(code_${x}(row * p.line_${x}, column));
}`,
      score: plainScore,
    }
  }
  if (coupled) {
    return {
      reads: { [`codes_${x}`]: 'u32', [`codebooks_${x}`]: 'f32' },
      params: { [`line_${x}`]: 'u32' },
      functions: `${code}
fn entry_${x}(row: u32, place: u32) -> u32 {
  let code = code_${x}(row * p.line_${x}, place);
  return p.codebooks_${x}_at + (place * ${ENTRIES}u + code) * ${coupled}u;
}
fn number_${x}(row: u32, column: u32) -> f32 {
  return codebooks_${x}[entry_${x}(row, column / ${coupled}u) + column % ${coupled}u];
}`,
      score: `
      for (var i = 0u; i < p.size; i += ${coupled}u) {
        let entry = entry_${x}(key, (column + i) / ${coupled}u);
        for (var e = 0u; e < ${coupled}u; e++) { score += query[i + e] * codebooks_${x}[entry + e]; }
      }`,
    }
  }
  const meaning = table
    ? `${tables}[p.${tables}_at + p.table_${x} + code]`
    : `(f32(code)${symmetric ? ` - ${(2 ** bits - 1) / 2}` : ''})`
  return {
    reads: {
      ...{ [`codes_${x}`]: 'u32', [`scales_${x}`]: 'u32' },
      ...(apart && { [`outliers_${x}`]: 'u32' }),
    },
    params: {
      ...{ [`line_${x}`]: 'u32', [`blocks_${x}`]: 'u32' },
      ...(table && { [`table_${x}`]: 'u32' }),
      ...(apart && { [`count_${x}`]: 'u32' }),
    },
    functions: `${code}
fn meaning_${x}(line: u32, column: u32) -> f32 {
  let code = code_${x}(line, column);
  return ${meaning};
}
fn scale_${x}(row: u32, column: u32) -> vec2f {
  let at = p.scales_${x}_at + (row / ${tokens}u) * p.blocks_${x} * ${symmetric ? 1 : 2}u + column / ${channels}u;
  return vec2f(half_value(scales_${x}[at]), ${symmetric ? '0.0' : `half_value(scales_${x}[at + p.blocks_${x}])`});
}
fn number_${x}(row: u32, column: u32) -> f32 {
  let scale = scale_${x}(row, column);
  var number = scale.x * meaning_${x}(row * p.line_${x}, column) + scale.y;${
    apart
      ? `
  let list = p.outliers_${x}_at + row * 2u * p.count_${x};
  for (var n = 0u; n < p.count_${x}; n++) {
    if (outliers_${x}[list + n] == column) { number += half_value(outliers_${x}[list + p.count_${x} + n]); }
  }`
      : ''
  }
  return number;
}`,
    score:
      channels % 8 === 0
        ? `
        // Eight channels share a scale: s · Σ q·c + b · Σ q.
        let line = key * p.line_${x};
        for (var i = 0u; i < p.size; i += 8u) {
          let scale = scale_${x}(key, column + i);
          var product = 0.0;
          var sum = 0.0;
          for (var c = i; c < i + 8u; c++) {
            product += query[c] * meaning_${x}(line, column + c);
            sum += query[c];
          }
          score += scale.x * product + scale.y * sum;
        }${
          apart
            ? `
        let list = p.outliers_${x}_at + key * 2u * p.count_${x};
        for (var n = 0u; n < p.count_${x}; n++) {
          let channel = outliers_${x}[list + n] - column;
          // Those before the head wrap around.
          if (channel < p.size) { score += query[channel] * half_value(outliers_${x}[list + p.count_${x} + n]); }
        }`
            : ''
        }`
        : plainScore,
  }
}

const shaders = new Map<string, Shader>()

export const decodeRows = (kind: RowsKind): Shader =>
  remembered(shaders, `decode ${nameOf(kind)}`, () => {
    const { reads, params, functions } = rowsIn('x', kind, 'tables')
    return elementwise(`decode rows, ${nameOf(kind)}`, {
      reads: { ...reads, ...(kind.grid.table && { tables: 'f32' }) },
      writes: { out: 'f32' },
      functions: `${HALF}${functions}`,
      params: { width: 'u32', first: 'u32', ...params },
      body: 'out[p.out_at + i] = number_x(p.first + i / p.width, i % p.width);',
    })
  })

/** The outliers that a list names: their columns, then what the codes of rows from `first` on lack of x. */
export const keepOutliers = (grid: CacheGrid): Shader =>
  remembered(shaders, `keep ${nameOf({ grid, apart: false })}`, () => {
    const { reads, params, functions } = rowsIn('c', { grid, apart: false }, 'tables')
    return elementwise(`keep outliers, ${nameOf({ grid, apart: false })}`, {
      reads: { x: 'f32', list: 'u32', ...reads, ...(grid.table && { tables: 'f32' }) },
      writes: { out: 'u32' },
      functions: `${HALF}${functions}`,
      params: { width: 'u32', first: 'u32', each: 'u32', ...params },
      body: `
  let row = i / p.each;
  let column = list[p.list_at + i];
  let lacks = x[p.x_at + row * p.width + column] - number_c(p.first + row, column);
  let to = p.out_at + row * 2u * p.each + i % p.each;
  out[to] = column;
  out[to + p.each] = half_bits(lacks);`,
    })
  })

const positions = new Map<string, Positions>()

/** Whether new keys, new values and tables lie behind the queries, so that bindings are left for what is in codes. */
export const together = (keys: RowsKind, values: RowsKind): boolean =>
  [keys, values].some(({ grid, apart, turn }) => grid.table !== undefined || apart || turn)

/** Whether angles do too: outliers take the bindings that those would have. */
export const anglesTogether = (keys: RowsKind, values: RowsKind): boolean =>
  keys.turn !== undefined && (keys.apart || values.apart)

/** Keys as they were before RoPE, turned by the angles of position from + row; `rotated` by Hadamard before that. */
function turning({ size, rotated }: NonNullable<RowsKind['turn']>, inQueries: boolean) {
  const half = size / 2
  const at = (x: string): string => (inQueries ? `q[p.q_at + p.${x}_from` : `${x}[p.${x}_at`)
  /** Butterflies over `count` heads in `array`; each `step` is followed by `between`. */
  const butterflies = (array: string, count: string, step: string, between: string): string =>
    rotated
      ? `
      for (var half = 1u; half < ${size}u; half *= 2u) {
        for (var e = ${step}; e < ${count} * ${half}u; e += ${step === '0u' ? '1u' : `${LANES}u`}) {
          let pair = e % ${half}u;
          let a = (e / ${half}u) * ${size}u + (pair / half) * half * 2u + pair % half;
          let x = ${array}[a];
          let y = ${array}[a + half];
          ${array}[a] = x + y;
          ${array}[a + half] = x - y;
        }${between}
      }`
      : ''
  const norm = rotated ? ` * ${1 / Math.sqrt(size)}` : ''
  return {
    reads: (inQueries ? {} : { cosines: 'f32', sines: 'f32' }) as Shader['reads'],
    params: {
      first_angle: 'u32',
      ...(inQueries && { cosines_from: 'u32', sines_from: 'u32' }),
    } as Shader['params'],
    functions: `
fn angles(row: u32, pair: u32) -> vec2f {
  let at = (p.first_angle + row) * ${half}u + pair;
  return vec2f(${at('cosines')} + at], ${at('sines')} + at]);
}`,
    score: `
        var head: array<f32, ${size}>;
        for (var i = 0u; i < ${size}u; i++) { head[i] = number_k(key, column + i); }
        ${butterflies('head', '1u', '0u', '')}
        for (var i = 0u; i < ${half}u; i++) {
          let turn = angles(key, i);
          let a = head[i]${norm};
          let b = head[i + ${half}u]${norm};
          score += query[i] * (a * turn.x - b * turn.y) + query[i + ${half}u] * (b * turn.x + a * turn.y);
        }`,
    /** `count` keys from `begin` on, in workgroup memory. */
    tile: `
      let past = min(count, p.coded - min(p.coded, begin));
      ${butterflies('keys', 'past', 'lane', ' workgroupBarrier();')}
      for (var e = lane; e < past * ${half}u; e += ${LANES}u) {
        let turn = angles(begin + e / ${half}u, e % ${half}u);
        let at = (e / ${half}u) * ${size}u + e % ${half}u;
        let a = keys[at]${norm};
        let b = keys[at + ${half}u]${norm};
        keys[at] = a * turn.x - b * turn.y;
        keys[at + ${half}u] = b * turn.x + a * turn.y;
      }
      workgroupBarrier();`,
  }
}

/** Positions of which the first `coded` are in codes, the others at `fresh_k` and `fresh_v`. */
export function positionsIn(keys: RowsKind, values: RowsKind): Positions {
  const { turn } = keys
  const turned = turn && turning(turn, anglesTogether(keys, values))
  const name = `${nameOf(keys)}${turn ? ` turned${turn.rotated ? ' and rotated' : ''} in heads of ${turn.size}` : ''}; ${nameOf(values)}`
  const known = positions.get(name)
  if (known) return known
  const [k, v] = [rowsIn('k', keys, 'q'), rowsIn('v', values, 'q')]
  const one = together(keys, values)
  const [newKeys, newValues] = one ? ['q', 'q'] : ['k', 'v']
  const made: Positions = {
    name,
    reads: {
      ...(!one && ({ k: 'f32', v: 'f32' } as const)),
      ...k.reads,
      ...v.reads,
      ...turned?.reads,
    },
    params: {
      ...{ coded: 'u32', fresh_k: 'u32', fresh_v: 'u32' },
      ...k.params,
      ...v.params,
      ...turned?.params,
    },
    functions: `${HALF}${k.functions}${v.functions}${turned?.functions ?? ''}
fn key_at(position: u32, column: u32, width: u32) -> f32 {
  if (position < p.coded) { return number_k(position, column); }
  let at = (position - p.coded) * width + column;
  return ${newKeys}[p.${newKeys}_at + p.fresh_k + at];
}
fn value_at(position: u32, column: u32, width: u32) -> f32 {
  if (position < p.coded) { return number_v(position, column); }
  let at = (position - p.coded) * width + column;
  return ${newValues}[p.${newValues}_at + p.fresh_v + at];
}`,
    score: `
      if (key < p.coded) {${turned?.score ?? k.score}
      } else {
        let line = p.${newKeys}_at + p.fresh_k + (key - p.coded) * width + column;
        for (var i = 0u; i < p.size; i++) { score += query[i] * ${newKeys}[line + i]; }
      }`,
    ...(turned && { tile: turned.tile }),
    key: (position, column) => `key_at(${position}, ${column}, width)`,
    value: (position, column) => `value_at(${position}, ${column}, width)`,
  }
  positions.set(name, made)
  return made
}

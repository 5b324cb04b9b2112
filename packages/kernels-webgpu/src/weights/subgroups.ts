/**
 * Products with weights of scalars by subgroups: a thread has outputs of its own and decodes their codes word by word;
 * what it multiplies with is read by one thread of the subgroup, from which all get it.
 */

import type { WordLayout } from '@lowbit/core'
import { each, remembered, type Shader } from '../gpu/shader.ts'
import { DECODED_PARAMS, decoding, nameOf, PUT, X } from './shaders.ts'

const THREADS = 64
/** Outputs of a thread where there are many rows of x, THREADS apart. */
const OUTPUTS = 2
/** Rows of x that it has then. */
const ROWS = 16

export const bySubgroups = ({ length, along }: WordLayout): boolean =>
  length === 1 && along === 'in'

const shaders = new Map<string, Shader>()

/** `few` rows of x, or many. */
export const subgroupShader = (layout: WordLayout, size: number, few: number | undefined): Shader =>
  remembered(shaders, `${few ?? 'many'} by ${size}, ${nameOf(layout)}`, () => ({
    name: `${few ?? 'many'} rows by subgroups of ${size}, ${nameOf(layout)}`,
    enable: ['subgroups'],
    reads: { x: 'f32', w: 'u32' },
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X, columns: 'u32' },
    code: `${decoding(layout)}${PUT}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_invocation_id) seat: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  ${few === undefined ? many(layout, size) : some(layout, size, few)}
}`,
  }))

export const subgroupGroups = (tokens: number, rows: number, few: boolean): number =>
  few ? Math.ceil(rows / THREADS) : Math.ceil(tokens / ROWS) * Math.ceil(rows / (THREADS * OUTPUTS))

/**
 * `value` of the weight at `place` of a word: where the word's weights share their scales, as
 * code · slope + level.
 */
function weightsOf({ kind, bits, even, scale, zero, bias }: WordLayout, o: number) {
  const mask = bits === 32 ? '' : `${2 ** bits - 1}u`
  const [s, z, b] = [
    scale ? `scale_of(n${o}, first)` : '1.0',
    zero ? `zero_of(n${o}, first)` : '0.0',
    bias ? `bias_of(n${o}, first)` : '0.0',
  ]
  const integer = kind === 'integer'
  const base = integer ? `(p.lowest - ${z})` : `(-${z})`
  const word = even
    ? `let s${o} = ${s}; let level${o} = ${base} * s${o} + ${b}; let slope${o} = ${integer ? `p.step * s${o}` : `s${o}`};`
    : ''
  const value = (place: number, k: string): string => {
    if (!even) return `decoded(bits${o}, ${place}u, 0u, n${o}, ${k})`
    const code = integer
      ? `f32((bits${o} >> ${place * bits}u) & ${mask})`
      : `grid_value(bits${o}, ${place}u, 0u, n${o}, ${k})`
    return `${code} * slope${o} + level${o}`
  }
  return { word, value }
}

/** Up to four rows: each thread reads one of the next numbers of x. */
function some(layout: WordLayout, size: number, tokens: number): string {
  const perWord = 32 / layout.bits
  const { word, value } = weightsOf(layout, 0)
  // Words that have `size` weights together, or the parts of `size` weights that a word has.
  const words = Math.max(1, size / perWord)
  const here = Math.min(size, perWord)
  return `
  let n = group * ${THREADS}u + lane;
  let n0 = min(n, p.rows - 1u);
  ${each(tokens, (t) => `var sum${t} = 0.0;`)}
  for (var at = 0u; at < p.words; at += ${words}u) {
    ${words > 1 ? readX(tokens, size, `at * ${perWord}u`) : ''}
    ${each(
      words,
      (w) => `{
      let word = min(at + ${w}u, p.words - 1u);
      let bits0 = w[p.w_at + n0 * p.words + word];
      let first = word * ${perWord}u;
      ${word}
      ${each(
        perWord / here,
        (part) => `{
        ${words > 1 ? '' : readX(tokens, size, `first + ${part * here}u`)}
        ${each(here, (i) => {
          const place = part * here + i
          const seat = words > 1 ? w * perWord + i : i
          return `{ let v = ${value(place, `min(first + ${place}u, p.depth - 1u)`)};
          ${each(tokens, (t) => `sum${t} += subgroupBroadcast(x${t}, ${seat}u) * v;`, ' ')} }`
        })}
      }`,
      )}
    }`,
    )}
  }
  if (n < p.rows) { ${each(tokens, (t) => `put(${t}u, n, sum${t});`, ' ')} }`
}

const readX = (tokens: number, size: number, from: string): string => `
    let mine = ${from} + seat % ${size}u;
    let there = mine < p.depth;
    let reach = p.x_at + p.x_from + select(0u, mine, there);
    ${each(tokens, (t) => `let x${t} = select(0.0, x[reach + ${t}u * p.x_row], there);`)}`

/** Many rows: each thread reads other rows of x. */
function many(layout: WordLayout, size: number): string {
  const perWord = 32 / layout.bits
  const outputs = Array.from({ length: OUTPUTS }, (_, o) => weightsOf(layout, o))
  return `
  let across = (p.rows + ${THREADS * OUTPUTS - 1}u) / ${THREADS * OUTPUTS}u;
  let top = (group / across) * ${ROWS}u;
  let left = (group % across) * ${THREADS * OUTPUTS}u + lane;
  ${each(OUTPUTS, (o) => `let n${o} = min(left + ${o * THREADS}u, p.rows - 1u);`)}
  ${each(ROWS / size, (s) => `let x_row${s} = p.x_at + p.x_from + min(top + ${s * size}u + seat % ${size}u, p.tokens - 1u) * p.x_row;`)}
  ${each(ROWS, (r) => `var sum${r} = vec${OUTPUTS}f();`, ' ')}
  for (var word = 0u; word < p.words; word++) {
    let first = word * ${perWord}u;
    ${each(OUTPUTS, (o) => `let bits${o} = w[p.w_at + n${o} * p.words + word]; ${outputs[o].word}`)}
    ${each(
      perWord,
      (place) => `{
      let k = min(first + ${place}u, p.depth - 1u);
      let there = first + ${place}u < p.depth;
      ${each(ROWS / size, (s) => `let x${s} = select(0.0, x[x_row${s} + k], there);`)}
      let v = vec${OUTPUTS}f(${outputs.map(({ value }) => value(place, 'k')).join(', ')});
      ${each(ROWS, (r) => `sum${r} += subgroupBroadcast(x${Math.floor(r / size)}, ${r % size}u) * v;`)}
    }`,
    )}
  }
  for (var o = 0u; o < ${OUTPUTS}u; o++) {
    let n = left + o * ${THREADS}u;
    if (n < p.rows) {
      ${each(ROWS, (r) => `if (top + ${r}u < p.tokens) { put(top + ${r}u, n, sum${r}[o]); }`)}
    }
  }`
}

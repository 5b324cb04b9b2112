/**
 * Products with weights of integers where x is rounded to 8 bits: 32 columns of a row share a factor, and four products
 * of bytes are one instruction (dot4I8Packed). Σ_k x_k w_k over 32 columns is, with x_k = f·q_k and
 * w_k = slope·c_k + level, f·(slope·Σ q_k c_k + level·Σ q_k).
 */

import { WORD_BLOCK, type WordLayout } from '@lowbit/core'
import { HIGH, putTile, TILE, TILE_THREADS } from '../algebra/product.ts'
import { each, remembered, type Shader } from '../gpu/shader.ts'
import { DECODED_PARAMS, decoding, nameOf, OUTPUTS, PUT, putTotals, THREADS, X } from './shaders.ts'

/** Words that the bytes of a block of x take. */
export const BLOCK_WORDS = WORD_BLOCK / 4

/** Words into which the codes of one word are spread, a byte each. */
const spread = (bits: number): number => 8 / bits

const rounders = new Map<string, Shader>()

/**
 * Bytes of x in the order in which words of codes of so many bits come apart: byte j of set s of a word is its code
 * j · (8 / bits) + s. `factors` has two numbers a block: f, and f·Σ q.
 */
export const roundShader = (bits: number): Shader =>
  remembered(rounders, `${bits}`, () => ({
    name: `x in bytes, for codes of ${bits} bits`,
    reads: { x: 'f32' },
    writes: { q: 'u32', factors: 'f32' },
    params: { count: 'u32', blocks: 'u32', depth: 'u32', x_row: 'u32', x_from: 'u32' },
    code: `
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = group_of(id, total) * 64u + lane;
  if (i >= p.count) { return; }
  let begin = (i % p.blocks) * ${WORD_BLOCK}u;
  let row = p.x_at + p.x_from + (i / p.blocks) * p.x_row;
  let here = min(${WORD_BLOCK}u, p.depth - begin);
  var most = 0.0;
  // What is no number must not be rounded away: it becomes the factor.
  var odd = 0.0;
  for (var k = 0u; k < here; k++) {
    let value = x[row + begin + k];
    if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { odd = value; }
    most = max(most, abs(value));
  }
  var factor = most / 127.0;
  let inverse = select(0.0, 127.0 / most, most > 0.0);
  var sum = 0;
  for (var at = 0u; at < ${BLOCK_WORDS}u; at++) {
    let first = begin + (at / ${spread(bits)}u) * ${32 / bits}u + at % ${spread(bits)}u;
    var word = 0u;
    for (var j = 0u; j < 4u; j++) {
      let k = first + j * ${spread(bits)}u;
      if (k < p.depth) {
        let code = clamp(i32(round(x[row + k] * inverse)), -127, 127);
        sum += code;
        word |= (u32(code) & 255u) << (8u * j);
      }
    }
    q[p.q_at + i * ${BLOCK_WORDS}u + at] = word;
  }
  if ((bitcast<u32>(odd) & 0x7f800000u) == 0x7f800000u) { factor = odd; sum = 1; }
  factors[p.factors_at + 2u * i] = factor;
  factors[p.factors_at + 2u * i + 1u] = factor * f32(sum);
}`,
  }))

/** Bytes of set `s` of a word of codes. Codes of 8 bits lose 128, which `level` gives back. */
function bytesOf(bits: number, s: number): string {
  if (bits === 8) return '(word ^ 0x80808080u)'
  const mask = ((2 ** bits - 1) * 0x01010101).toString(16)
  return `((word >> ${s * bits}u) & 0x${mask}u)`
}

/** `terms_of(n, k)`: slope and level of 32 columns from k on. */
const terms = ({ bits }: WordLayout): string => `
fn terms_of(n: u32, k: u32) -> vec2f {
  let s = scale_of(n, k);
  return vec2f(p.step * s, (p.lowest${bits === 8 ? ' + 128.0 * p.step' : ''} - zero_of(n, k)) * s + bias_of(n, k));
}`

const READS = { q: 'u32', factors: 'f32', w: 'u32' } as const
const REQUIRES = ['packed_4x8_integer_dot_product'] as const

const vectors = new Map<string, Shader>()

/** Up to four rows of x: 16 threads share out an output's blocks. */
export const byteVectorShader = (layout: WordLayout, tokens: number): Shader =>
  remembered(vectors, `${tokens} ${nameOf(layout)}`, () => ({
    name: `${tokens} rows in bytes, ${nameOf(layout)}`,
    requires: REQUIRES,
    reads: READS,
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X, blocks: 'u32' },
    code: `${decoding(layout)}${terms(layout)}${PUT}
var<workgroup> partial: array<f32, ${OUTPUTS * THREADS}>;
@compute @workgroup_size(${OUTPUTS * THREADS})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let n = group * ${OUTPUTS}u + lane / ${THREADS}u;
  let mine = lane % ${THREADS}u;
  ${each(tokens, (t) => `var sum${t} = 0.0;`, ' ')}
  if (n < p.rows) {
    for (var block = mine; block < p.blocks; block += ${THREADS}u) {
      ${each(tokens, (t) => `var dot${t} = 0; let q${t} = p.q_at + (${t}u * p.blocks + block) * ${BLOCK_WORDS}u;`)}
      ${each(
        layout.bits,
        (
          g,
        ) => `{ let word = w[p.w_at + n * p.words + min(block * ${layout.bits}u + ${g}u, p.words - 1u)];
        ${each(spread(layout.bits), (s) => {
          const at = g * spread(layout.bits) + s
          return `{ let c = ${bytesOf(layout.bits, s)};
          ${each(tokens, (t) => `dot${t} += dot4I8Packed(q[q${t} + ${at}u], c);`, ' ')} }`
        })} }`,
      )}
      let terms = terms_of(n, block * ${WORD_BLOCK}u);
      ${each(
        tokens,
        (t) => `{ let f = p.factors_at + 2u * (${t}u * p.blocks + block);
        sum${t} += factors[f] * terms.x * f32(dot${t}) + factors[f + 1u] * terms.y; }`,
      )}
    }
  }
  ${putTotals(tokens)}
}`,
  }))

const matrices = new Map<string, Shader>()

/** Many rows of x: tiles of 64 × 64 outputs, a block of columns at a time, 8 × 4 outputs a thread. */
export const byteMatrixShader = (layout: WordLayout): Shader =>
  remembered(matrices, nameOf(layout), () => ({
    name: `many rows in bytes, ${nameOf(layout)}`,
    requires: REQUIRES,
    reads: READS,
    writes: { out: 'f32' },
    params: { ...DECODED_PARAMS, ...X, blocks: 'u32' },
    code: `${decoding(layout)}${terms(layout)}${PUT}
var<workgroup> left: array<u32, ${TILE * BLOCK_WORDS}>;
var<workgroup> right: array<u32, ${TILE * BLOCK_WORDS}>;
var<workgroup> left_factors: array<vec2f, ${TILE}>;
var<workgroup> right_terms: array<vec2f, ${TILE}>;
const threads = ${TILE_THREADS}u;
@compute @workgroup_size(16, ${TILE / HIGH})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_id) own: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }
  let across = (p.rows + ${TILE - 1}u) / ${TILE}u;
  let top = (group / across) * ${TILE}u;
  let start = (group % across) * ${TILE}u;
  ${each(HIGH, (r) => `var sum${r} = vec4f();`, ' ')}
  for (var block = 0u; block < p.blocks; block++) {
    for (var e = lane; e < ${TILE * BLOCK_WORDS}u; e += threads) {
      let t = min(top + e / ${BLOCK_WORDS}u, p.tokens - 1u);
      left[(e % ${BLOCK_WORDS}u) * ${TILE}u + e / ${BLOCK_WORDS}u] = q[p.q_at + (t * p.blocks + block) * ${BLOCK_WORDS}u + e % ${BLOCK_WORDS}u];
    }
    for (var e = lane; e < ${TILE * layout.bits}u; e += threads) {
      let n = min(start + e / ${layout.bits}u, p.rows - 1u);
      let g = e % ${layout.bits}u;
      let word = w[p.w_at + n * p.words + min(block * ${layout.bits}u + g, p.words - 1u)];
      ${each(spread(layout.bits), (s) => `right[(g * ${spread(layout.bits)}u + ${s}u) * ${TILE}u + e / ${layout.bits}u] = ${bytesOf(layout.bits, s)};`)}
    }
    if (lane < ${TILE}u) {
      let f = p.factors_at + 2u * (min(top + lane, p.tokens - 1u) * p.blocks + block);
      left_factors[lane] = vec2f(factors[f], factors[f + 1u]);
      right_terms[lane] = terms_of(min(start + lane, p.rows - 1u), block * ${WORD_BLOCK}u);
    }
    workgroupBarrier();
    ${each(HIGH, (r) => `var dots${r} = vec4i();`, ' ')}
    for (var word = 0u; word < ${BLOCK_WORDS}u; word++) {
      let at = word * ${TILE}u;
      ${each(4, (c) => `let b${c} = right[at + own.x + ${16 * c}u];`, ' ')}
      ${each(HIGH, (r) => `{ let a = left[at + own.y * ${HIGH}u + ${r}u]; dots${r} += vec4i(${each(4, (c) => `dot4I8Packed(a, b${c})`, ', ')}); }`)}
    }
    let terms0 = right_terms[own.x]; let terms1 = right_terms[own.x + 16u]; let terms2 = right_terms[own.x + 32u]; let terms3 = right_terms[own.x + 48u];
    let slopes = vec4f(terms0.x, terms1.x, terms2.x, terms3.x);
    let levels = vec4f(terms0.y, terms1.y, terms2.y, terms3.y);
    ${each(HIGH, (r) => `{ let f = left_factors[own.y * ${HIGH}u + ${r}u]; sum${r} += f.x * slopes * vec4f(dots${r}) + f.y * levels; }`)}
    workgroupBarrier();
  }
  ${putTile('p.tokens', 'p.rows')}
}`,
  }))

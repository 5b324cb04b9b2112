/** Keys and values in few bits: coded, decoded, and attended over as they lie. */

import {
  type CacheGrid,
  type CacheKernels,
  type CodedRows,
  checkCodedAttention,
  checkCodedRows,
  checkDecoding,
  checkEncoding,
  LowbitError,
} from '@lowbit/core'
import { borrowing, type Device, partOf } from '../gpu/device.ts'
import { elementwise, groupwise, LANES, remembered, type Shader } from '../gpu/shader.ts'
import { expect, own, tensorOperations } from '../tensors.ts'
import type { Positions } from './attention.ts'
import { runAttention } from './operations.ts'

/** f16 by its bits, rounded half to even, since devices may round a conversion either way; the largest at most. */
const HALF = `
fn half_bits(x: f32) -> u32 {
  let size = min(abs(x), 65504.0);
  let bits = bitcast<u32>(size);
  var half = ((bits + 0xfffu + ((bits >> 13u) & 1u)) >> 13u) - 0x1c000u;
  if (size < 6.103515625e-5) { half = u32(round(size * 16777216.0)); }
  return half | ((bitcast<u32>(x) >> 16u) & 0x8000u);
}
fn half_value(half: u32) -> f32 {
  var size = bitcast<f32>(((half & 0x7fffu) << 13u) + 0x38000000u);
  if ((half & 0x7c00u) == 0u) { size = f32(half & 0x3ffu) / 16777216.0; }
  return select(size, -size, half >= 0x8000u);
}`

/** Scales of the blocks, and each number's code in a word. */
const code = groupwise('code rows', {
  reads: { x: 'f32', values: 'f32' },
  writes: { scales: 'u32', codes: 'u32' },
  params: {
    ...{ width: 'u32', tokens: 'u32', channels: 'u32', levels: 'u32', symmetric: 'u32' },
    ...{ tabled: 'u32', reach: 'f32', cut: 'f32' },
  },
  functions: HALF,
  body: `
  let blocks = p.width / p.channels;
  let top = (group / blocks) * p.tokens;
  let left = (group % blocks) * p.channels;
  let count = p.tokens * p.channels;
  var low = 3.4e38;
  var high = -3.4e38;
  for (var i = lane; i < count; i += lanes) {
    let value = x[p.x_at + (top + i / p.channels) * p.width + left + i % p.channels];
    low = min(low, value);
    high = max(high, value);
  }
  let lowest = -most_of(lane, -low);
  let highest = most_of(lane, high);
  let least = lowest + p.cut * (highest - lowest);
  let most = highest - p.cut * (highest - lowest);
  var span = (most - least) / f32(p.levels);
  if (p.symmetric == 1u) { span = max(-least, most) / p.reach; }
  else if (p.tabled == 1u) { span = most - least; }
  let line = p.scales_at + (group / blocks) * blocks * (2u - p.symmetric) + group % blocks;
  let scale = half_value(half_bits(span));
  var bias = 0.0;
  if (p.symmetric == 0u) { bias = half_value(half_bits(least)); }
  if (lane == 0u) {
    scales[line] = half_bits(span);
    if (p.symmetric == 0u) { scales[line + blocks] = half_bits(least); }
  }
  for (var i = lane; i < count; i += lanes) {
    let place = (top + i / p.channels) * p.width + left + i % p.channels;
    let value = x[p.x_at + place];
    var best = 0u;
    if (scale > 0.0) {
      if (p.tabled == 1u) {
        var distance = 3.4e38;
        for (var c = 0u; c <= p.levels; c++) {
          let away = abs(value - bias - scale * values[p.values_at + c]);
          if (away < distance) { distance = away; best = c; }
        }
      } else {
        var aim = (value - bias) / scale;
        if (p.symmetric == 1u) { aim += f32(p.levels) * 0.5; }
        // Of two equally near codes the smaller.
        best = u32(clamp(ceil(aim - 0.5), 0.0, f32(p.levels)));
      }
    }
    codes[p.codes_at + place] = best;
  }`,
})

/** Words of a row, each from the codes that lie in it. */
const pack = elementwise('pack codes', {
  reads: { codes: 'u32' },
  writes: { out: 'u32' },
  params: { width: 'u32', bits: 'u32', line: 'u32' },
  body: `
  let first = (i % p.line) * 32u;
  let last = min(p.width, (first + 31u) / p.bits + 1u);
  var word = 0u;
  for (var column = first / p.bits; column < last; column++) {
    let code = codes[p.codes_at + (i / p.line) * p.width + column];
    let begin = column * p.bits;
    if (begin >= first) { word |= code << (begin - first); } else { word |= code >> (first - begin); }
  }
  out[p.out_at + i] = word;`,
})

const packHalves = elementwise('pack halves', {
  reads: { x: 'f32' },
  writes: { out: 'u32' },
  params: {},
  functions: HALF,
  body: `
  let first = p.x_at + i * 2u;
  out[p.out_at + i] = half_bits(x[first]) | (half_bits(x[first + 1u]) << 16u);`,
})

interface ReadRows extends Pick<Shader, 'reads' | 'params'> {
  readonly functions: string
  /** Channels that share a scale. */
  readonly block: number
}

/** Rows in codes as a shader reads them under the name `x`: bindings, parameters and `number_x(row, column)`. */
function rowsIn(x: string, { bits, tokens, channels, symmetric, table }: CacheGrid): ReadRows {
  const code = `
fn code_${x}(line: u32, column: u32) -> u32 {
  let bit = column * ${bits}u;
  let at = p.codes_${x}_at + line + bit / 32u;
  var word = codes_${x}[at] >> (bit % 32u);
  ${32 % bits === 0 ? '' : `if (bit % 32u > ${32 - bits}u) { word |= codes_${x}[at + 1u] << (32u - bit % 32u); }`}
  return word & ${2 ** bits - 1}u;
}`
  if (bits === 16) {
    return {
      reads: { [`codes_${x}`]: 'u32' },
      params: { [`line_${x}`]: 'u32' },
      functions: `${code}
fn number_${x}(row: u32, column: u32) -> f32 {
  return half_value(code_${x}(row * p.line_${x}, column));
}`,
      block: 1,
    }
  }
  const meaning = table
    ? `tables[p.tables_at + p.table_${x} + code]`
    : `(f32(code)${symmetric ? ` - ${(2 ** bits - 1) / 2}` : ''})`
  return {
    reads: {
      [`codes_${x}`]: 'u32',
      [`scales_${x}`]: 'u32',
      ...(table && { tables: 'f32' }),
    },
    params: {
      ...{ [`line_${x}`]: 'u32', [`blocks_${x}`]: 'u32', ...(table && { [`table_${x}`]: 'u32' }) },
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
  return scale.x * meaning_${x}(row * p.line_${x}, column) + scale.y;
}`,
    block: channels,
  }
}

const shaders = new Map<string, Shader>()

/** Grids of one name are read by one shader; their tables are bound. */
const nameOf = ({ bits, tokens, channels, symmetric, table }: CacheGrid): string =>
  `${bits} bits, ${tokens} × ${channels}${symmetric ? ', symmetric' : ''}${table ? ', a table' : ''}`

const decode = (grid: CacheGrid): Shader =>
  remembered(shaders, `decode ${nameOf(grid)}`, () => {
    const { reads, params, functions } = rowsIn('x', grid)
    return elementwise(`decode rows, ${nameOf(grid)}`, {
      ...{ reads, writes: { out: 'f32' }, functions: `${HALF}${functions}` },
      params: { width: 'u32', first: 'u32', ...params },
      body: 'out[p.out_at + i] = number_x(p.first + i / p.width, i % p.width);',
    })
  })

const positions = new Map<string, Positions>()

/**
 * Positions of which the first `coded` are in codes. With a table there are no bindings left for two tensors of new
 * keys and values, so they are one, keys before values.
 */
function positionsIn(keys: CacheGrid, values: CacheGrid): Positions {
  const name = `${nameOf(keys)}; ${nameOf(values)}`
  const known = positions.get(name)
  if (known) return known
  const [k, v] = [rowsIn('k', keys), rowsIn('v', values)]
  const tabled = keys.table ?? values.table
  const fresh = tabled ? 'k[p.k_at + p.fresh + at]' : 'v[p.v_at + at]'
  const eights = k.block % 8 === 0
  const made: Positions = {
    name,
    reads: { k: 'f32', ...(!tabled && { v: 'f32' }), ...k.reads, ...v.reads },
    params: { coded: 'u32', ...(tabled && { fresh: 'u32' }), ...k.params, ...v.params },
    functions: `${HALF}${k.functions}${v.functions}
fn key_at(position: u32, column: u32, width: u32) -> f32 {
  if (position < p.coded) { return number_k(position, column); }
  let at = (position - p.coded) * width + column;
  return k[p.k_at + at];
}
fn value_at(position: u32, column: u32, width: u32) -> f32 {
  if (position < p.coded) { return number_v(position, column); }
  let at = (position - p.coded) * width + column;
  return ${fresh};
}`,
    score: eights
      ? `
      if (key < p.coded) {
        // Eight channels share a scale: s · Σ q·c + b · Σ q.
        let line = key * p.line_k;
        for (var i = 0u; i < p.size; i += 8u) {
          let scale = scale_k(key, column + i);
          var product = 0.0;
          var sum = 0.0;
          for (var c = i; c < i + 8u; c++) {
            product += query[c] * meaning_k(line, column + c);
            sum += query[c];
          }
          score += scale.x * product + scale.y * sum;
        }
      } else {
        let line = p.k_at + (key - p.coded) * width + column;
        for (var i = 0u; i < p.size; i++) { score += query[i] * k[line + i]; }
      }`
      : `
      for (var i = 0u; i < p.size; i++) { score += query[i] * key_at(key, column + i, width); }`,
    key: (position, column) => `key_at(${position}, ${column}, width)`,
    value: (position, column) => `value_at(${position}, ${column}, width)`,
  }
  positions.set(name, made)
  return made
}

function ownRows(past: CodedRows, width: number) {
  // Attention has all eight bindings that a device must allow.
  if (checkCodedRows(past, width) > 0) {
    throw new LowbitError(
      'not-supported',
      'the WebGPU kernels keep no outliers beside a cache’s codes yet; set outliers to 0, or run on the CPU kernels',
      { option: 'outliers' },
    )
  }
  if (past.codebooks) {
    throw new LowbitError(
      'not-supported',
      'the WebGPU kernels have no coupled channels of a cache yet; choose another cache, or run on the CPU kernels',
      { option: 'cache' },
    )
  }
  return { codes: own(past.codes, 'u32'), scales: own(past.scales, 'u16') }
}

const NO_TABLE = Float32Array.of(0)

export function codedOperations(device: Device): CacheKernels {
  const { rows: window } = tensorOperations(device)

  /** What `rowsIn` asks for. */
  function inputs(x: string, from: CodedRows, width: number, table = 0) {
    const { codes, scales } = ownRows(from, width)
    const { grid } = from
    return {
      spans: { [`codes_${x}`]: codes, [`scales_${x}`]: scales },
      params: {
        [`line_${x}`]: codes.columns,
        [`blocks_${x}`]: width / grid.channels,
        [`table_${x}`]: table,
      },
    }
  }

  return {
    encodeRows(into, at, input) {
      const x = own(input)
      const { rows, columns: width } = x
      const { codes, scales } = ownRows(into, width)
      const { grid } = into
      const { bits, tokens, channels, symmetric, table, range = 1 } = grid
      checkEncoding(into, at, rows)
      if (rows === 0) return
      const out = own(window(codes, at, at + rows), 'u32')
      const count = out.length
      if (bits === 16) {
        device.run(packHalves, { x, out }, { count }, Math.ceil(count / LANES))
        return
      }
      const levels = 2 ** bits - 1
      const reach = table ? Math.max(-table[0], table[levels]) : levels / 2
      borrowing(device, (take) => {
        const wide = take(rows * width)
        const line = own(window(scales, at / tokens, (at + rows) / tokens), 'u16')
        const flags = { symmetric: symmetric ? 1 : 0, tabled: table ? 1 : 0 }
        device.run(
          code,
          { x, values: device.constant(table ?? NO_TABLE), scales: line, codes: wide },
          { width, tokens, channels, levels, reach, cut: (1 - range) / 2, ...flags },
          (rows / tokens) * (width / channels),
        )
        const params = { count, width, bits, line: out.columns }
        device.run(pack, { codes: wide, out }, params, Math.ceil(count / LANES))
      })
    },

    decodeRows(target, from, at) {
      const out = own(target)
      const { rows, columns: width } = out
      const { spans, params } = inputs('x', from, width)
      checkDecoding(from, at, rows)
      const tables = device.constant(from.grid.table ?? NO_TABLE)
      const count = out.length
      device.run(
        decode(from.grid),
        { ...spans, tables, out },
        { ...params, width, first: at, count },
        Math.ceil(count / LANES),
      )
    },

    attendCoded(target, query, keys, values, coded, key, value, shape) {
      const { heads, keyValueHeads, headSize } = shape
      const { rows } = query
      const fresh = checkCodedAttention(query, keys, values, coded, key, value, shape)
      const width = keyValueHeads * headSize
      const [q, k, v] = [query, key, value].map((tensor) => own(tensor))
      const out = expect(target, rows, heads * headSize, 'out')
      const tables = [keys, values].map(({ grid }) => grid.table ?? new Float32Array())
      const pastKeys = inputs('k', keys, width)
      const pastValues = inputs('v', values, width, tables[0].length)
      const from = positionsIn(keys.grid, values.grid)
      const spans = { q, ...pastKeys.spans, ...pastValues.spans, out }
      const params = { ...pastKeys.params, ...pastValues.params, coded, fresh: fresh * width }
      if (!tables.some(({ length }) => length > 0)) {
        runAttention(device, shape, rows, { ...spans, k, v }, from, params)
        return
      }
      borrowing(device, (take) => {
        const both = take(2 * fresh * width)
        for (const [i, tensor] of [k, v].entries()) {
          const part = partOf(both, i * fresh * width, fresh * width)
          device.copy(part, partOf(tensor, 0, fresh * width))
        }
        const all = device.constant(Float32Array.from([...tables[0], ...tables[1]]))
        runAttention(device, shape, rows, { ...spans, k: both, tables: all }, from, params)
      })
    },
  }
}

/** Keys and values in few bits: coded, decoded, and attended over. */

import { type CacheGrid, type CodedRows, checkGrid, type Kernels, LowbitError } from '@lowbit/core'
import { borrowing, type Device } from '../gpu/device.ts'
import { elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { expectCodes, own, tensorOperations } from '../tensors.ts'

type Operations = Pick<Kernels, 'encodeRows' | 'decodeRows' | 'attendCoded'>

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
    ...{ tabled: 'u32', reach: 'f32' },
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
  let least = -most_of(lane, -low);
  let most = most_of(lane, high);
  var span = (most - least) / f32(p.levels);
  if (p.symmetric == 1u) { span = max(-least, most) / p.reach; }
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
          let away = abs(value - scale * values[p.values_at + c]);
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

/** Eight codes in `bits` bytes, the first in the lowest bits; a byte takes a word of this device. */
const pack = elementwise('pack codes', {
  reads: { codes: 'u32' },
  writes: { out: 'u32' },
  params: { width: 'u32', bits: 'u32' },
  body: `
  let line = p.width * p.bits / 8u;
  let first = (i % line) * 8u;
  var byte = 0u;
  for (var column = first / p.bits; column * p.bits < first + 8u; column++) {
    let code = codes[p.codes_at + (i / line) * p.width + column];
    let begin = column * p.bits;
    if (begin >= first) { byte |= code << (begin - first); } else { byte |= code >> (first - begin); }
  }
  out[p.out_at + i] = byte & 255u;`,
})

const decode = elementwise('decode rows', {
  reads: { codes: 'u32', scales: 'u32', values: 'f32' },
  writes: { out: 'f32' },
  params: {
    ...{ width: 'u32', bits: 'u32', tokens: 'u32', channels: 'u32', symmetric: 'u32' },
    ...{ tabled: 'u32', first: 'u32' },
  },
  functions: HALF,
  body: `
  let row = p.first + i / p.width;
  let column = i % p.width;
  let bit = column * p.bits;
  let at = p.codes_at + row * (p.width * p.bits / 8u) + bit / 8u;
  var word = codes[at] >> (bit % 8u);
  if (bit % 8u + p.bits > 8u) { word |= codes[at + 1u] << (8u - bit % 8u); }
  let index = word & ((1u << p.bits) - 1u);
  let blocks = p.width / p.channels;
  let line = p.scales_at + (row / p.tokens) * blocks * (2u - p.symmetric) + column / p.channels;
  let scale = half_value(scales[line]);
  var value = f32(index);
  if (p.tabled == 1u) { value = values[p.values_at + index]; }
  else if (p.symmetric == 1u) { value -= f32((1u << p.bits) - 1u) * 0.5; }
  value *= scale;
  if (p.symmetric == 0u) { value += half_value(scales[line + blocks]); }
  out[p.out_at + i] = value;`,
})

function checkRows({ codes, scales, grid }: CodedRows, width: number): void {
  checkGrid(grid, width)
  const { bits, channels, symmetric } = grid
  const across = (width / channels) * (symmetric ? 1 : 2)
  if (codes.columns === (width * bits) / 8 && scales.columns === across) return
  throw new LowbitError('bad-shape', `codes or scales are not those of rows of ${width}`)
}

const NO_TABLE = Float32Array.of(0)

const shapeOf = ({ bits, tokens, channels, symmetric, table }: CacheGrid, width: number) => ({
  ...{ width, bits, tokens, channels, symmetric: symmetric ? 1 : 0, tabled: table ? 1 : 0 },
})

export function codedOperations(
  device: Device,
  { attention }: Pick<Kernels, 'attention'>,
): Operations {
  const { tensor, rows: window, copy, free } = tensorOperations(device)

  const operations: Operations = {
    encodeRows(into, at, input) {
      const x = own(input)
      const { rows, columns: width } = x
      checkRows(into, width)
      const { grid } = into
      const { bits, tokens, channels, table } = grid
      const codes = expectCodes(into.codes, into.codes.rows, into.codes.columns, 256, 'u8')
      const scales = own(into.scales, 'u16')
      if (at < 0 || at % tokens !== 0 || rows % tokens !== 0 || at + rows > codes.rows) {
        throw new LowbitError('bad-shape', `rows ${at} to ${at + rows} are no blocks of ${tokens}`)
      }
      if (rows === 0) return
      const levels = 2 ** bits - 1
      const reach = table ? Math.max(-table[0], table[levels]) : levels / 2
      borrowing(device, (take) => {
        const wide = take(rows * width)
        const line = own(window(scales, at / tokens, (at + rows) / tokens), 'u16')
        device.run(
          code,
          { x, values: device.constant(table ?? NO_TABLE), scales: line, codes: wide },
          { ...shapeOf(grid, width), levels, reach },
          (rows / tokens) * (width / channels),
        )
        const out = own(window(codes, at, at + rows), 'u8')
        const count = out.length
        device.run(pack, { codes: wide, out }, { count, width, bits }, Math.ceil(count / LANES))
      })
    },

    decodeRows(target, from, at) {
      const out = own(target)
      const { rows, columns: width } = out
      checkRows(from, width)
      const codes = own(from.codes, 'u8')
      const scales = own(from.scales, 'u16')
      if (at < 0 || at + rows > codes.rows) {
        throw new LowbitError('bad-shape', `there are ${codes.rows} rows, not ${at + rows}`)
      }
      const values = device.constant(from.grid.table ?? NO_TABLE)
      const params = { ...shapeOf(from.grid, width), first: at, count: out.length }
      device.run(decode, { codes, scales, values, out }, params, Math.ceil(out.length / LANES))
    },

    attendCoded(out, q, keys, values, coded, k, v, shape) {
      const width = shape.keyValueHeads * shape.headSize
      const fresh = shape.start - coded + q.rows
      const short = coded < 0 || coded > shape.start || k.rows < fresh || v.rows < fresh
      if (short || shape.headSize % 8 !== 0) {
        throw new LowbitError('bad-shape', 'there are fewer keys or values')
      }
      const dense = [tensor(coded + fresh, width), tensor(coded + fresh, width)]
      try {
        for (const [i, [past, now]] of (
          [
            [keys, k],
            [values, v],
          ] as const
        ).entries()) {
          if (coded > 0) operations.decodeRows(window(dense[i], 0, coded), past, 0)
          copy(window(dense[i], coded, coded + fresh), window(now, 0, fresh))
        }
        attention(out, q, dense[0], dense[1], shape)
      } finally {
        free(...dense)
      }
    },
  }
  return operations
}

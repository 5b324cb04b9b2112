/** The linear algebra of calibration. */

import { type AlgebraOperations, checkIndices, LowbitError } from '@lowbit/core'
import type { Device } from '../gpu/device.ts'
import { elementwise, groupwise, LANES } from '../gpu/shader.ts'
import { expect, own } from '../tensors.ts'
import { factorInverse } from './factor.ts'
import { plain, product, turned } from './product.ts'
import { rotationShader } from './rotation.ts'

const diagonal = elementwise('diagonal', {
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: {},
  body: 'out[p.out_at + i] = x[p.x_at + i * (p.count + 1u)];',
})

const permute = elementwise('permuteColumns', {
  reads: { x: 'f32', order: 'u32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', wide: 'u32' },
  body: `
  let begin = order[p.order_at + i % p.columns];
  out[p.out_at + i] = x[p.x_at + (i / p.columns) * p.wide + begin];`,
})

/** Sums of 64 rows apart, so that many rows cost few roundings. */
const moments = elementwise('columnMoments', {
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: { rows: 'u32' },
  body: `
  var sum = 0.0;
  var squares = 0.0;
  var least = x[p.x_at + i];
  var most = least;
  for (var begin = 0u; begin < p.rows; begin += 64u) {
    var part = 0.0;
    var part_squares = 0.0;
    for (var row = begin; row < min(begin + 64u, p.rows); row++) {
      let value = x[p.x_at + row * p.count + i];
      part += value;
      part_squares += value * value;
      least = min(least, value);
      most = max(most, value);
    }
    sum += part;
    squares += part_squares;
  }
  let rows = f32(p.rows);
  out[p.out_at + i] = sum / rows;
  out[p.out_at + p.count + i] = squares / rows;
  out[p.out_at + 2u * p.count + i] = least;
  out[p.out_at + 3u * p.count + i] = most;`,
})

const scale = elementwise('scale', {
  reads: { x: 'f32', row: 'f32', column: 'f32', bias: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', has_row: 'u32', has_column: 'u32', has_bias: 'u32' },
  body: `
  let c = i % p.columns;
  var value = x[p.x_at + i];
  if (p.has_bias == 1u) { value -= bias[p.bias_at + c]; }
  if (p.has_row == 1u) { value *= row[p.row_at + i / p.columns]; }
  if (p.has_column == 1u) { value *= column[p.column_at + c]; }
  out[p.out_at + i] = value;`,
})

const times = elementwise('times', {
  reads: { y: 'f32' },
  writes: { x: 'f32' },
  params: {},
  body: 'x[p.x_at + i] *= y[p.y_at + i];',
})

const mirror = elementwise('what is above the diagonal', {
  reads: {},
  writes: { h: 'f32' },
  params: { n: 'u32' },
  body: `
  let row = i / p.n;
  let column = i % p.n;
  if (row < column) { h[p.h_at + i] = h[p.h_at + column * p.n + row]; }`,
})

const transpose = elementwise('transpose', {
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: { rows: 'u32', columns: 'u32', wide: 'u32' },
  body: `
  let begin = i % p.wide;
  var value = 0.0;
  if (begin < p.rows) { value = x[p.x_at + begin * p.columns + i / p.wide]; }
  out[p.out_at + i] = value;`,
})

const difference = elementwise('difference', {
  reads: { a: 'f32', b: 'f32' },
  writes: { out: 'f32' },
  params: {},
  body: 'out[p.out_at + i] = a[p.a_at + i] - b[p.b_at + i];',
})

/** Numbers that a workgroup of `dots` sums. */
const STRETCH = 16 * LANES

const dots = groupwise('dots', {
  reads: { a: 'f32', b: 'f32' },
  writes: { out: 'f32' },
  params: { count: 'u32' },
  body: `
  let to = min(p.count, (group + 1u) * ${STRETCH}u);
  var sum = 0.0;
  for (var i = group * ${STRETCH}u + lane; i < to; i += lanes) { sum += a[p.a_at + i] * b[p.b_at + i]; }
  let all = total_of(lane, sum);
  if (lane == 0u) { out[p.out_at + group] = all; }`,
})

export function algebraOperations(device: Device): AlgebraOperations {
  return {
    multiply(target, left, right) {
      const depth = left.columns
      const a = own(left)
      const b = expect(right, right.rows, depth, 'b')
      const [rows, columns] = [a.rows, b.rows]
      const out = plain(expect(target, rows, columns, 'out'), columns)
      product(device, { out, a: plain(a, depth), b: turned(b, depth), rows, columns, depth })
    },
    multiplyTransposed(target, left, right, { accumulate = false } = {}) {
      const b = own(right)
      const [depth, columns] = [b.rows, b.columns]
      const a = expect(left, left.rows, depth, 'a')
      const out = plain(expect(target, a.rows, columns, 'out'), columns)
      const size = { rows: a.rows, columns, depth, keep: accumulate ? 1 : 0 }
      product(device, { out, a: plain(a, depth), b: plain(b, columns), ...size })
    },
    gram(hessian, input, factor) {
      const n = input.columns
      const x = own(input)
      const out = plain(expect(hessian, n, n, 'the Hessian'), n)
      const size = { rows: n, columns: n, depth: x.rows, factor, keep: 1 }
      product(device, { out, a: turned(x, n), b: plain(x, n), ...size, lower: true })
      device.run(mirror, { h: out.span }, { count: n * n, n }, Math.ceil((n * n) / LANES))
    },
    crossGram(target, left, right, factor) {
      const [m, n] = [left.columns, right.columns]
      const a = own(left)
      const b = expect(right, a.rows, n, 'b')
      const out = plain(expect(target, m, n, 'out'), n)
      const size = { rows: m, columns: n, depth: a.rows, factor, keep: 1 }
      product(device, { out, a: turned(a, m), b: plain(b, n), ...size })
    },
    async factorInverse(target, hessian, damping, order) {
      const n = hessian.rows
      const h = expect(hessian, n, n, 'the Hessian')
      const out = expect(target, n, n, 'out')
      if (order && order.length !== n) {
        throw new LowbitError('bad-shape', `an order of ${order.length} for ${n} columns`)
      }
      if (order) checkIndices(order, n)
      return factorInverse(device, out, h, n, damping, order)
    },
    diagonal(target, matrix) {
      const n = matrix.rows
      const x = expect(matrix, n, n, 'the matrix')
      const out = expect(target, 1, n, 'out')
      device.run(diagonal, { x, out }, { count: n }, Math.ceil(n / LANES))
    },
    permuteColumns(target, input, order) {
      const x = own(input)
      const columns = order.length
      const out = expect(target, x.rows, columns, 'out')
      checkIndices(order, x.columns)
      const count = x.rows * columns
      const spans = { x, order: device.constant(order), out }
      device.run(permute, spans, { count, columns, wide: x.columns }, Math.ceil(count / LANES))
    },
    columnMoments(target, input) {
      const x = own(input)
      const out = expect(target, 4, x.columns, 'out')
      const params = { count: x.columns, rows: x.rows }
      device.run(moments, { x, out }, params, Math.ceil(x.columns / LANES))
    },
    scale(target, input, factors) {
      const x = own(input)
      const { rows, columns } = x
      const out = expect(target, rows, columns, 'out')
      const row = factors.rows && expect(factors.rows, rows, 1, 'rows')
      const column = factors.columns && expect(factors.columns, 1, columns, 'columns')
      const bias = factors.bias && expect(factors.bias, 1, columns, 'bias')
      const flags = {
        ...{ has_row: row ? 1 : 0, has_column: column ? 1 : 0, has_bias: bias ? 1 : 0 },
      }
      const spans = { x, row: row ?? x, column: column ?? x, bias: bias ?? x, out }
      const count = rows * columns
      device.run(scale, spans, { count, columns, ...flags }, Math.ceil(count / LANES))
    },
    rotate(target, { block, signs }) {
      const x = own(target)
      const { rows, columns } = x
      if (!Number.isInteger(Math.log2(block)) || columns % block !== 0) {
        throw new LowbitError('bad-shape', `blocks of ${block} do not fit ${columns} columns`)
      }
      const room = device.gpu.limits.maxComputeWorkgroupStorageSize
      if (block * 4 > room) {
        throw new LowbitError('not-supported', `this GPU rotates blocks of ${room / 4} at most`)
      }
      const words = new Uint32Array(Math.ceil(columns / 32))
      new Uint8Array(words.buffer).set(signs.subarray(0, Math.ceil(columns / 8)))
      const spans = { signs: device.constant(words), x }
      device.run(rotationShader(block), spans, { columns }, (rows * columns) / block)
    },
    times(target, other) {
      const x = own(target)
      const y = expect(other, x.rows, x.columns, 'y')
      device.run(times, { x, y }, { count: x.length }, Math.ceil(x.length / LANES))
    },
    transpose(target, input) {
      const x = own(input)
      const wide = Math.max(target.columns, x.rows)
      const out = expect(target, x.columns, wide, 'out')
      const count = out.length
      const params = { count, rows: x.rows, columns: x.columns, wide }
      device.run(transpose, { x, out }, params, Math.ceil(count / LANES))
    },
    async distance(first, second, hessian) {
      const a = own(first)
      const { rows, columns, length } = a
      const b = second && expect(second, rows, columns, 'b')
      const h = hessian && expect(hessian, columns, columns, 'the Hessian')
      const groups = Math.ceil(length / STRETCH)
      const held = [device.allocate(length), device.allocate(length), device.allocate(groups)]
      const [apart, weighted, sums] = held
      try {
        if (b) {
          device.run(difference, { a, b, out: apart }, { count: length }, Math.ceil(length / LANES))
        } else device.copy(apart, a)
        if (h) {
          const size = { rows, columns, depth: columns }
          const [left, right] = [plain(apart, columns), plain(h, columns)]
          product(device, { out: plain(weighted, columns), a: left, b: right, ...size })
        } else device.copy(weighted, apart)
        device.run(dots, { a: apart, b: weighted, out: sums }, { count: length }, groups)
        return new Float32Array(await device.read(sums)).reduce((total, sum) => total + sum, 0)
      } finally {
        for (const span of held) device.release(span)
      }
    },
  }
}

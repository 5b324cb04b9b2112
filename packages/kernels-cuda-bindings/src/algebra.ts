/** The linear algebra of calibration. */

import { type AlgebraOperations, checkIndices, LowbitError } from '@lowbit/core'
import type { Device } from './driver/device.ts'
import { factorInverse, product } from './factor.ts'
import { blocksOf, expect, own } from './tensors.ts'

/** As in kernels/algebra.cu. */
const LONGEST_ROTATION = 8192

/** Numbers that a block of `dots` sums. */
const STRETCH = 2048

export function algebraOperations(device: Device): AlgebraOperations {
  return {
    multiply(target, left, right) {
      const depth = left.columns
      const a = own(left)
      const b = expect(right, right.rows, depth, 'b')
      const [rows, columns] = [a.rows, b.rows]
      const out = expect(target, rows, columns, 'out')
      const strides = { a_row: depth, a_depth: 1, b_depth: 1, b_column: depth, out_row: columns }
      product(device, { out, a, b, rows, columns, depth, ...strides })
    },
    multiplyTransposed(target, left, right, { accumulate = false } = {}) {
      const b = own(right)
      const [depth, columns] = [b.rows, b.columns]
      const a = expect(left, left.rows, depth, 'a')
      const out = expect(target, a.rows, columns, 'out')
      const strides = { a_row: depth, a_depth: 1, b_depth: columns, b_column: 1, out_row: columns }
      const size = { rows: a.rows, columns, depth, keep: accumulate ? 1 : 0 }
      product(device, { out, a, b, ...size, ...strides })
    },
    // (i, j) and (j, i) are the same products in the same order, so both triangles agree to the bit.
    gram(hessian, input, factor) {
      const n = input.columns
      const x = own(input)
      const out = expect(hessian, n, n, 'the Hessian')
      const strides = { a_row: 1, a_depth: n, b_depth: n, b_column: 1, out_row: n }
      const size = { rows: n, columns: n, depth: x.rows, factor, keep: 1 }
      product(device, { out, a: x, b: x, ...size, ...strides })
    },
    crossGram(target, left, right, factor) {
      const [m, n] = [left.columns, right.columns]
      const a = own(left)
      const b = expect(right, a.rows, n, 'b')
      const out = expect(target, m, n, 'out')
      const strides = { a_row: 1, a_depth: m, b_depth: n, b_column: 1, out_row: n }
      product(device, {
        ...{ out, a, b, rows: m, columns: n, depth: a.rows, factor, keep: 1 },
        ...strides,
      })
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
      device.run('diagonal', { x, out: expect(target, 1, n, 'out'), count: n }, blocksOf(n))
    },
    permuteColumns(target, input, order) {
      const x = own(input)
      const columns = order.length
      const out = expect(target, x.rows, columns, 'out')
      checkIndices(order, x.columns)
      const count = x.rows * columns
      device.borrow(device.place(order), (places) => {
        const args = { x, order: places, out, count, columns, wide: x.columns }
        device.run('permute_columns', args, blocksOf(count))
      })
    },
    columnMoments(target, input) {
      const x = own(input)
      const { rows, columns } = x
      const out = expect(target, 4, columns, 'out')
      device.run('column_moments', { x, out, rows, columns }, blocksOf(columns))
    },
    scale(target, input, factors) {
      const x = own(input)
      const { rows, columns } = x
      const out = expect(target, rows, columns, 'out')
      const row = factors.rows && expect(factors.rows, rows, 1, 'rows')
      const column = factors.columns && expect(factors.columns, 1, columns, 'columns')
      const bias = factors.bias && expect(factors.bias, 1, columns, 'bias')
      const count = rows * columns
      device.run('scale', { x, row, column, bias, out, count, columns }, blocksOf(count))
    },
    rotate(target, { block, signs }) {
      const x = own(target)
      const { rows, columns } = x
      if (!Number.isInteger(Math.log2(block)) || columns % block !== 0) {
        throw new LowbitError('bad-shape', `blocks of ${block} do not fit ${columns} columns`)
      }
      if (block > LONGEST_ROTATION) {
        const most = `CUDA's kernels rotate ${LONGEST_ROTATION} at most`
        throw new LowbitError('not-supported', `blocks of ${block}: ${most}`)
      }
      const words = new Uint32Array(Math.ceil(columns / 32))
      new Uint8Array(words.buffer).set(signs.subarray(0, Math.ceil(columns / 8)))
      device.borrow(device.place(words), (span) => {
        device.run('rotate', { x, signs: span, columns, block }, (rows * columns) / block)
      })
    },
    times(target, other) {
      const x = own(target)
      const count = x.rows * x.columns
      device.run('times', { x, y: expect(other, x.rows, x.columns, 'y'), count }, blocksOf(count))
    },
    transpose(target, input) {
      const x = own(input)
      const { rows, columns } = x
      const wide = Math.max(target.columns, rows)
      const out = expect(target, columns, wide, 'out')
      const count = columns * wide
      device.run('transpose', { x, out, count, rows, columns, wide }, blocksOf(count))
    },
    async distance(first, second, hessian) {
      const a = own(first)
      const { rows, columns } = a
      const count = rows * columns
      const b = second && expect(second, rows, columns, 'b')
      const h = hessian && expect(hessian, columns, columns, 'the Hessian')
      const blocks = Math.ceil(count / STRETCH)
      const held = [a.bytes, a.bytes, blocks * 8].map((bytes) => device.allocate(bytes))
      const [apart, weighted, sums] = held
      try {
        device.run('difference', { a, b, out: apart, count }, blocksOf(count))
        if (h) {
          const strides = { a_row: columns, a_depth: 1, b_depth: columns, b_column: 1 }
          const size = { rows, columns, depth: columns, out_row: columns }
          product(device, { out: weighted, a: apart, b: h, ...size, ...strides })
        }
        const pair = { a: apart, b: h ? weighted : apart }
        device.run('dots', { ...pair, out: sums, count, stretch: STRETCH }, blocks)
        const values = new Float64Array(blocks)
        await device.read(sums, values)
        return values.reduce((total, sum) => total + sum, 0)
      } finally {
        for (const span of held) device.release(span)
      }
    },
  }
}

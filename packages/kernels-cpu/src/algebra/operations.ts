/** The linear algebra of calibration. */

import { checkIndices, type Kernels, LowbitError } from '@lowbit/core'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { rotate } from '../weights/rotation.ts'
import { writeSource } from '../weights/source.ts'
import { factorInverse } from './factor.ts'
import { product } from './product.ts'

type Operations = Pick<
  Kernels,
  | 'multiply'
  | 'gram'
  | 'crossGram'
  | 'factorInverse'
  | 'diagonal'
  | 'permuteColumns'
  | 'columnMoments'
  | 'scale'
  | 'rotate'
  | 'times'
  | 'distance'
>

/** Rows of a − b at a time. */
const ROWS = 504

export function algebraOperations(device: Device): Operations {
  const { memory } = device

  function copyOrder(order: Uint32Array, columns: number): number {
    checkIndices(order, columns)
    const at = device.room('order', order.length * 4)
    memory.u32.set(order, at / 4)
    return at
  }

  return {
    multiply(target, left, right) {
      const depth = left.columns
      const a = own(left)
      const b = expect(right, right.rows, depth, 'b')
      const out = expect(target, a.rows, b.rows, 'out')
      const stride = depth * 4
      const source = writeSource(memory, {
        ...{ kind: 'rows', data: b.at, stride, rows: b.rows, depth },
      })
      product(device, {
        ...{ out: out.at, outStride: b.rows * 4, left: a.at, leftStride: stride, rows: a.rows },
        ...{ source, columns: b.rows, depth },
      })
    },

    gram(hessian, input, factor) {
      const n = input.columns
      const x = own(input)
      const out = expect(hessian, n, n, 'the Hessian')
      const stride = n * 4
      const source = writeSource(memory, {
        ...{ kind: 'columns', data: x.at, stride, rows: n, depth: x.rows },
      })
      product(device, {
        ...{ out: out.at, outStride: stride, left: x.at, leftStride: stride, leftTransposed: true },
        ...{ rows: n, source, columns: n, depth: x.rows, factor, accumulate: true, shape: 'upper' },
      })
      device.run('mirror', n * n, out.at, n)
    },

    crossGram(target, left, right, factor) {
      const [m, n] = [left.columns, right.columns]
      const a = own(left)
      const b = expect(right, a.rows, n, 'b')
      const out = expect(target, m, n, 'out')
      const source = writeSource(memory, {
        ...{ kind: 'columns', data: b.at, stride: n * 4, rows: n, depth: b.rows },
      })
      product(device, {
        ...{ out: out.at, outStride: n * 4, left: a.at, leftStride: m * 4, leftTransposed: true },
        ...{ rows: m, source, columns: n, depth: a.rows, factor, accumulate: true },
      })
    },

    async factorInverse(target, hessian, damping, order) {
      const n = hessian.rows
      const h = expect(hessian, n, n, 'the Hessian')
      const out = expect(target, n, n, 'out')
      if (order && order.length !== n) {
        throw new LowbitError('bad-shape', `an order of ${order.length} for ${n} columns`)
      }
      return factorInverse(device, out.at, h.at, n, damping, order ? copyOrder(order, n) : 0)
    },

    diagonal(target, matrix) {
      const n = matrix.rows
      const from = expect(matrix, n, n, 'the matrix')
      device.run('diagonal', 0, expect(target, 1, n, 'out').at, from.at, n)
    },

    permuteColumns(target, input, order) {
      const x = own(input)
      const out = expect(target, x.rows, order.length, 'out')
      const at = copyOrder(order, x.columns)
      const work = x.rows * order.length
      device.run('permuteColumns', work, out.at, x.at, x.rows, order.length, x.columns, at)
    },

    columnMoments(target, input) {
      const x = own(input)
      const out = expect(target, 4, x.columns, 'out')
      device.run('columnMoments', x.rows * x.columns, out.at, x.at, x.rows, x.columns)
    },

    scale(target, input, factors) {
      const x = own(input)
      const { rows, columns } = x
      const out = expect(target, rows, columns, 'out').at
      const row = factors.rows ? expect(factors.rows, rows, 1, 'rows').at : 0
      const column = factors.columns ? expect(factors.columns, 1, columns, 'columns').at : 0
      const bias = factors.bias ? expect(factors.bias, 1, columns, 'bias').at : 0
      device.run('scale', rows * columns, out, x.at, rows, columns, row, column, bias)
    },

    rotate(target, rotation) {
      const { at, rows, columns } = own(target)
      const { block } = rotation
      if (!Number.isInteger(Math.log2(block)) || columns % block !== 0) {
        throw new LowbitError('bad-shape', `blocks of ${block} do not fit ${columns} columns`)
      }
      const signs = device.room('signs', Math.ceil(columns / 8))
      memory.u8.set(rotation.signs.subarray(0, Math.ceil(columns / 8)), signs)
      rotate(device, at, at, rows, columns, { block, signs }, { back: false })
    },

    times(target, other) {
      const x = own(target)
      const y = expect(other, x.rows, x.columns, 'y')
      device.run('times', x.rows * x.columns, x.at, y.at, x.rows, x.columns)
    },

    async distance(first, second, hessian) {
      const { rows, columns } = first
      const a = own(first)
      const b = second && expect(second, rows, columns, 'b')
      const h = hessian && expect(hessian, columns, columns, 'the Hessian')
      const stride = columns * 4
      let total = 0
      for (let row = 0; row < rows; row += ROWS) {
        const some = Math.min(ROWS, rows - row)
        const size = some * columns
        const shift = row * stride
        const sums = device.room('sums', some * 8)
        let left = a.at + shift
        if (b) {
          left = device.room('difference', size * 4)
          device.run('difference', size, left, a.at + shift, b.at + shift, some, columns)
        }
        let right = left
        if (h) {
          right = device.room('weighted', size * 4)
          const source = writeSource(memory, {
            ...{ kind: 'columns', data: h.at, stride, rows: columns, depth: columns },
          })
          product(device, {
            ...{ out: right, outStride: stride, left, leftStride: stride, rows: some },
            ...{ source, columns, depth: columns },
          })
        }
        device.run('rowProducts', size, sums, left, right, some, columns)
        for (let i = 0; i < some; i++) total += memory.f64[sums / 8 + i]
      }
      return total
    },
  }
}

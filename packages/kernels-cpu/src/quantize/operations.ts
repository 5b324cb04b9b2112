/** Scales, rounding and the feedback pass. */

import { type Kernels, LowbitError, type Rounding, type Tensor } from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { writeSource } from '../weights/source.ts'
import { gridMemory } from './grid.ts'

type Operations = Pick<Kernels, 'fit' | 'round' | 'feedback' | 'descend'>

const SCALE_TYPE = { f32: 0, f16: 1, bf16: 2, f8_e8m0: 3 } as const

/** As assembly/feedback.ts divides its scratch: 16 rows on their side, codes, errors twice, a panel. */
const FEEDBACK_ROOM = 128 * 16 * 4 + 128 * 16 + 2 * 128 * 96 * 4 + 64 + 128 * 64 * 4 + 192

/** As assembly/descend.ts divides its scratch: weights, values and gradients of 16 rows, codes. */
const DESCEND_BLOCK = 128
const DESCEND_ROOM = 3 * DESCEND_BLOCK * 16 * 4 + DESCEND_BLOCK * 16

export function quantizeOperations(device: Device): Operations {
  const { memory } = device
  const gridAt = gridMemory(device)

  /** The shape of the scales, checked against the tensors. */
  function scales(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | undefined,
    { blockRows, blockColumns }: Rounding,
    across = Math.ceil(weight.columns / blockColumns),
  ): { scale: number; zero: number } {
    if (!(blockRows >= 1 && blockColumns >= 1)) {
      throw new LowbitError('bad-shape', `no blocks are ${blockRows} × ${blockColumns}`)
    }
    const rows = Math.ceil(weight.rows / blockRows)
    return {
      scale: expect(scale, rows, across, 'scale').at,
      zero: zero ? expect(zero, rows, across, 'zero').at : 0,
    }
  }

  return {
    fit(scaleTensor, zeroTensor, weight, options) {
      const { asymmetric, importance, search, scaleType, blockRows, blockColumns, grid } = options
      const w = own(weight)
      if (asymmetric && grid.kind !== 'integer') {
        throw new LowbitError('bad-option', 'only integer grids have zero points')
      }
      if (asymmetric !== (zeroTensor !== undefined)) {
        throw new LowbitError('bad-option', 'a tensor for zeros is needed if asymmetric, else none')
      }
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, options)
      const weights = importance ? expect(importance, 1, w.columns, 'importance').at : 0
      device.run(
        'fit',
        w.rows * w.columns * 4 * search.candidates,
        ...[scale, zero, w.at, w.rows, w.columns, blockRows, blockColumns, gridAt(grid), weights],
        ...[Math.max(1, search.candidates), search.step, SCALE_TYPE[scaleType]],
      )
    },

    round(codes, decoded, weight, scaleTensor, zeroTensor, rounding) {
      const w = own(weight)
      const { rows, columns } = w
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, rounding)
      const out = expect(codes, rows, columns, 'codes', 'u8').at
      const values = decoded ? expect(decoded, rows, columns, 'decoded').at : 0
      const { blockRows, blockColumns, grid } = rounding
      device.run(
        'round',
        rows * columns * 4,
        ...[out, values, w.at, rows, columns, scale, zero, blockRows, blockColumns, gridAt(grid)],
      )
    },

    feedback(codes, weight, factor, scaleTensor, zeroTensor, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { from, to, blockRows, blockColumns, blockOf, grid } = options
      // With blockOf the scales may be those of the blocks at hand alone.
      const across = blockOf ? scaleTensor.columns : Math.ceil(columns / blockColumns)
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, options, across)
      const out = expect(codes, rows, columns, 'codes', 'u8').at
      const u = expect(factor, columns, columns, 'factor').at
      if (!(from >= 0 && from <= to && to <= columns)) {
        throw new LowbitError('bad-shape', `no columns ${from} to ${to} in ${columns}`)
      }
      if (blockOf && (blockOf.length !== columns || blockOf.some((block) => block >= across))) {
        throw new LowbitError('bad-shape', `blockOf does not name ${across} blocks for each column`)
      }
      const blocks = device.room('blocks', columns * 4)
      const numbers = memory.u32.subarray(blocks / 4, blocks / 4 + columns)
      for (let i = 0; i < columns; i++) numbers[i] = blockOf?.[i] ?? Math.floor(i / blockColumns)
      const scratch = device.roomPerThread('feedback', FEEDBACK_ROOM)
      device.run(
        'feedback',
        (rows * (to - from) * columns) / 2,
        ...[out, w.at, rows, columns, u, scale, zero, across, blockRows, blocks, gridAt(grid)],
        ...[from, to, scratch.at, scratch.each],
      )
    },

    descend(codes, decoded, weight, hessian, scaleTensor, zeroTensor, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { blockRows, blockColumns, grid, damping } = options
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, options)
      const out = expect(codes, rows, columns, 'codes', 'u8').at
      const q = expect(decoded, rows, columns, 'decoded').at
      const h = expect(hessian, columns, columns, 'the Hessian').at
      const across = Math.ceil(columns / blockColumns)
      const blocks = device.room('blocks', columns * 4)
      for (let i = 0; i < columns; i++) {
        memory.u32[blocks / 4 + i] = Math.floor(i / blockColumns)
      }
      const stride = columns * 4
      const size = rows * columns
      const difference = device.room('difference', size * 4)
      const gradient = device.room('gradient', rows * DESCEND_BLOCK * 4)
      const scratch = device.roomPerThread('descend', DESCEND_ROOM)
      for (let from = 0; from < columns; from += DESCEND_BLOCK) {
        const some = Math.min(DESCEND_BLOCK, columns - from)
        // (w − q)·H for the block's columns, afresh: earlier blocks have changed q.
        device.run('difference', size, difference, w.at, q, rows, columns)
        const source = writeSource(memory, {
          ...{ kind: 'rows', data: h + from * stride, stride, rows: some, depth: columns },
        })
        product(device, {
          ...{ out: gradient, outStride: some * 4, left: difference, leftStride: stride, rows },
          ...{ source, columns: some, depth: columns },
        })
        device.run(
          'descend',
          size * some,
          ...[out, w.at, q, gradient, rows, columns, h, damping, scale, zero, across, blockRows],
          ...[blocks, gridAt(grid), from, from + some, scratch.at, scratch.each],
        )
      }
    },
  }
}

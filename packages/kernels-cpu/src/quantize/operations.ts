/** Scales, rounding and the feedback pass. */

import {
  checkBlocks,
  type Kernels,
  LowbitError,
  type Rounding,
  type TableBlocks,
  type Tensor,
  type TrainingKernels,
} from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { writeSource } from '../weights/source.ts'
import { gridMemory } from './grid.ts'
import { trainingOperations } from './training.ts'

type Operations = Pick<
  Kernels,
  'fit' | 'fitTables' | 'decodeCodes' | 'sumByCode' | 'round' | 'feedback' | 'descend'
> &
  TrainingKernels

const SCALE_TYPE = { f32: 0, f16: 1, bf16: 2, f8_e8m0: 3 } as const

/** As assembly/feedback.ts divides its scratch: 16 rows on their side, codes, errors twice, a panel. */
const FEEDBACK_ROOM = 128 * 16 * 4 + 128 * 16 + 2 * 128 * 96 * 4 + 64 + 128 * 64 * 4 + 192

/** As assembly/descend.ts divides its scratch: weights, values and gradients of 16 rows, codes. */
const DESCEND_BLOCK = 128
const DESCEND_ROOM = 3 * DESCEND_BLOCK * 16 * 4 + DESCEND_BLOCK * 16

/** As assembly/tables.ts has it. */
const MOST_CELLS = 65536
const KEY_BYTES = 2 * 2 ** 16
const MOST_ENTRIES = 256

/** Bitmap and ranks of the keys; sums of the cells; four arrays over them; choices of all layers but the first. */
const tableScratch = (cells: number, entries: number): number =>
  KEY_BYTES + 16 * cells + 4 * 8 * (cells + 2) + 2 * (cells + 1) * (entries - 1) + 128

export function quantizeOperations(device: Device): Operations {
  const { memory } = device
  const gridFor = gridMemory(device)

  /** One number for each column, in a room of its own. */
  function columnNumbers(room: string, columns: number, number: (i: number) => number): number {
    const at = device.room(room, columns * 4)
    const numbers = memory.u32.subarray(at / 4, at / 4 + columns)
    for (let i = 0; i < columns; i++) numbers[i] = number(i)
    return at
  }

  function checkNames(
    what: string,
    names: Uint32Array | undefined,
    columns: number,
    across: number,
  ): void {
    if (names && (names.length !== columns || names.some((block) => block >= across))) {
      throw new LowbitError('bad-shape', `${what} does not name ${across} blocks for each column`)
    }
  }

  /** The shape of the scales, checked against the tensors. */
  function scales(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | undefined,
    rounding: Rounding,
    columns?: number,
  ): { scale: number; zero: number } {
    const { down: rows, across: usual } = checkBlocks(weight, rounding)
    const across = columns ?? usual
    return {
      scale: expect(scale, rows, across, 'scale').at,
      zero: zero ? expect(zero, rows, across, 'zero').at : 0,
    }
  }

  /** Tables [blocks, entries], and the scales of rows, checked. */
  function tablesFor(
    tables: Tensor,
    rows: number,
    columns: number,
    { blockRows, blockColumns, rowScale }: TableBlocks,
  ): { table: number; rowScale: number } {
    if (!(blockRows >= 1 && blockColumns >= 1)) {
      throw new LowbitError('bad-shape', `no blocks are ${blockRows} × ${blockColumns}`)
    }
    const entries = tables.columns
    if (!(entries >= 1 && entries <= MOST_ENTRIES)) {
      throw new LowbitError('bad-shape', `tables have 1 to ${MOST_ENTRIES} entries, not ${entries}`)
    }
    const blocks = Math.ceil(rows / blockRows) * Math.ceil(columns / blockColumns)
    return {
      table: expect(tables, blocks, entries, 'tables').at,
      rowScale: rowScale ? expect(rowScale, rows, 1, 'rowScale').at : 0,
    }
  }

  return {
    ...trainingOperations(device),

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
      const table = gridFor(grid, w.rows, w.columns)
      if (table.tableRows < w.rows || table.tableColumns < w.columns) {
        throw new LowbitError('bad-grid', 'a scale is fitted to one table, not to several')
      }
      const weights = importance ? expect(importance, 1, w.columns, 'importance').at : 0
      device.run(
        'fit',
        w.rows * w.columns * 4 * search.candidates,
        ...[scale, zero, w.at, w.rows, w.columns, blockRows, blockColumns, table.at, weights],
        ...[Math.max(1, search.candidates), search.step, SCALE_TYPE[scaleType]],
      )
    },

    decodeCodes(target, codes, tables, options) {
      const { rows, columns } = codes
      const { table, rowScale } = tablesFor(tables, rows, columns, options)
      const out = expect(target, rows, columns, 'out').at
      const c = expect(codes, rows, columns, 'codes', 'u8').at
      const { blockRows, blockColumns } = options
      device.run(
        'decodeCodes',
        rows * columns,
        ...[out, c, rows, columns, table, tables.columns, blockRows, blockColumns, rowScale],
      )
    },

    sumByCode(sums, input, codes, options) {
      const { rows, columns } = codes
      const { table, rowScale } = tablesFor(sums, rows, columns, options)
      const x = expect(input, rows, columns, 'x').at
      const c = expect(codes, rows, columns, 'codes', 'u8').at
      const { blockRows, blockColumns } = options
      const scratch = device.roomPerThread('sums by code', MOST_ENTRIES * 4 * 8)
      device.run(
        'sumByCode',
        rows * columns,
        ...[table, x, c, rows, columns, sums.columns, blockRows, blockColumns, rowScale],
        ...[scratch.at, scratch.each],
      )
    },

    fitTables(target, weight, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { blockRows, blockColumns, method, importance } = options
      const { table, rowScale } = tablesFor(target, rows, columns, options)
      const entries = target.columns
      const each = importance && importance.rows !== 1
      const h = importance ? expect(importance, each ? rows : 1, columns, 'importance').at : 0
      const block = Math.min(rows, blockRows) * Math.min(columns, blockColumns)
      const cells = Math.min(MOST_CELLS, block)
      const uniform = method === 'uniform' ? 1 : 0
      const scratch = device.roomPerThread('tables', uniform ? 0 : tableScratch(cells, entries))
      device.run(
        'fitTables',
        rows * columns * 4,
        ...[table, entries, w.at, rows, columns, blockRows, blockColumns],
        ...[h, each ? columns * 4 : 0, rowScale, uniform, cells, scratch.at, scratch.each],
      )
    },

    round(codes, decoded, weight, scaleTensor, zeroTensor, rounding) {
      const w = own(weight)
      const { rows, columns } = w
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, rounding)
      const out = expect(codes, rows, columns, 'codes', 'u8').at
      const values = decoded ? expect(decoded, rows, columns, 'decoded').at : 0
      const { blockRows, blockColumns, grid } = rounding
      const { at, tableRows, tableColumns } = gridFor(grid, rows, columns)
      device.run(
        'round',
        rows * columns * 4,
        ...[out, values, w.at, rows, columns, scale, zero, blockRows, blockColumns],
        ...[at, tableRows, tableColumns],
      )
    },

    feedback(codes, weight, factor, scaleTensor, zeroTensor, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { from, to, blockRows, blockColumns, blockOf, tableOf, grid } = options
      // With blockOf the scales may be those of the blocks at hand alone.
      const across = blockOf ? scaleTensor.columns : Math.ceil(columns / blockColumns)
      const { scale, zero } = scales(w, scaleTensor, zeroTensor, options, across)
      const out = expect(codes, rows, columns, 'codes', 'u8').at
      const u = expect(factor, columns, columns, 'factor').at
      if (!(from >= 0 && from <= to && to <= columns)) {
        throw new LowbitError('bad-shape', `no columns ${from} to ${to} in ${columns}`)
      }
      checkNames('blockOf', blockOf, columns, across)
      const table = gridFor(grid, rows, columns)
      checkNames('tableOf', tableOf, columns, table.tablesAcross)
      const blocks = columnNumbers('blocks', columns, (i) => {
        return blockOf?.[i] ?? Math.floor(i / blockColumns)
      })
      const tableBlocks = columnNumbers('table blocks', columns, (i) => {
        return tableOf?.[i] ?? Math.floor(i / table.tableColumns)
      })
      const scratch = device.roomPerThread('feedback', FEEDBACK_ROOM)
      device.run(
        'feedback',
        (rows * (to - from) * columns) / 2,
        ...[out, w.at, rows, columns, u, scale, zero, across, blockRows, blocks],
        ...[table.at, table.tableRows, table.tablesAcross, tableBlocks],
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
      const blocks = columnNumbers('blocks', columns, (i) => Math.floor(i / blockColumns))
      const table = gridFor(grid, rows, columns)
      const tableBlocks = columnNumbers('table blocks', columns, (i) => {
        return Math.floor(i / table.tableColumns)
      })
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
          ...[blocks, table.at, table.tableRows, table.tablesAcross, tableBlocks],
          ...[from, from + some, scratch.at, scratch.each],
        )
      }
    },
  }
}

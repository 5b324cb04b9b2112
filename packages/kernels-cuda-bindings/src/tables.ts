/** Tables of values for blocks of a weight: fitted, read, and summed for. */

import { checkTables, type Kernels, segmentSize } from '@lowbit/core'
import type { Arguments, Device, Span } from './driver/device.ts'
import { sortSegments } from './sort.ts'
import { sumByCodes } from './sums.ts'
import { blocksOf, expect, handles, own } from './tensors.ts'

type Operations = Pick<Kernels, 'fitTables' | 'decodeCodes' | 'sumByCode'>

/** The most different values of a block, as in kernels/tables.cu. */
const MOST_GROUPS = 65536
/** Groups that a warp divides by itself. */
const WARP_GROUPS = 256
/** Bytes that the parts of a batch of blocks may take. */
const ROOM = 2 ** 27

interface Fit {
  readonly args: Arguments
  readonly blocks: number
  /** Weights of a block, at most. */
  readonly items: number
  readonly entries: number
}

export function tableOperations(device: Device): Operations {
  function fitByKMeans({ args, blocks, items, entries }: Fit): void {
    const size = segmentSize(items)
    const room = Math.min(size, MOST_GROUPS)
    const wide = room + 1
    const each = { important: 4, groups: 4, pairs: size * 8, begins: wide * 4, sums: wide * 24 }
    const parts = { ...each, losses: wide * 16, starts: wide * entries * 4 }
    const whole = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)
    const batch = Math.max(1, Math.min(blocks, Math.floor(ROOM / whole)))
    const held: Span[] = []
    try {
      const spans: Record<string, Span> = {}
      for (const [name, bytes] of Object.entries(parts)) {
        spans[name] = device.allocate(batch * bytes)
        held.push(spans[name])
      }
      for (let first = 0; first < blocks; first += batch) {
        const here = Math.min(batch, blocks - first)
        const shape = { ...args, ...spans, first, size, room, count: 0 }
        const overBlocks = (kernel: string): void => device.run(kernel, shape, here)
        const overEach = (kernel: string, count: number): void =>
          device.run(kernel, { ...shape, count }, blocksOf(count))
        overBlocks('fit_important')
        overEach('fit_keys', here * size)
        sortSegments(device, spans.pairs, here, size)
        overBlocks('fit_groups')
        overEach('fit_means', here * room)
        overBlocks('fit_prefix')
        overBlocks(room <= WARP_GROUPS ? 'fit_clusters_small' : 'fit_clusters_large')
      }
    } finally {
      for (const span of held) device.release(span)
    }
  }

  return {
    fitTables(tableTensor, weight, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { method, importance: given } = options
      const found = checkTables(handles, tableTensor, rows, columns, options)
      const { span: tables, scales, entries, count, params } = found
      const each = given !== undefined && given.rows !== 1
      const importance = given && expect(given, each ? rows : 1, columns, 'importance')
      const args = {
        ...{ ...params, rows, entries, w, scales, importance, tables },
        importance_row: each ? columns : 0,
      }
      if (method === 'uniform') {
        device.run('fit_evenly', { ...args, first: 0, size: 0, room: 0, count: 0 }, count)
        return
      }
      const items = Math.min(options.blockRows, rows) * Math.min(options.blockColumns, columns)
      fitByKMeans({ args, blocks: count, items, entries })
    },

    decodeCodes(target, codeTensor, tableTensor, blocks) {
      const codes = own(codeTensor, 'u8')
      const { rows, columns } = codes
      const out = expect(target, rows, columns, 'out')
      const found = checkTables(handles, tableTensor, rows, columns, blocks)
      const { span: tables, scales, entries, params } = found
      const count = rows * columns
      device.run(
        'decode_codes',
        { ...params, codes, tables, scales, out, count, entries },
        blocksOf(count),
      )
    },

    sumByCode(sumTensor, input, codeTensor, blocks) {
      const codes = own(codeTensor, 'u8')
      const { rows, columns } = codes
      const x = expect(input, rows, columns, 'x')
      const found = checkTables(handles, sumTensor, rows, columns, blocks)
      const { span, scales, entries, count, params } = found
      const items = Math.min(blocks.blockRows, rows) * Math.min(blocks.blockColumns, columns)
      const sizes = { tables: count, entries, values: 1, items }
      sumByCodes(device, 'sum_by_code', span, { ...params, rows, codes, x, scales }, sizes)
    },
  }
}

/** Keys and values in few bits. */

import {
  type CacheGrid,
  type CacheKernels,
  type CodedRows,
  checkGrid,
  LowbitError,
} from '@lowbit/core'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { KEYS, QUERY_ROWS } from './operations.ts'

/** Up to so many query rows share what is expanded; more go through panels. */
const FEW_ROWS = 5
/** Positions that are expanded together for a few rows, as in assembly/coded-attention.ts. */
const TILE = 8

export function codedOperations(device: Device): CacheKernels {
  const { memory } = device
  /** Tables in the memory of the kernels; grids are few and live long. */
  const tables = new WeakMap<Float32Array, number>()

  function tableOf({ table }: CacheGrid): number {
    if (!table) return 0
    let at = tables.get(table)
    if (at === undefined) {
      at = device.keep(table.byteLength)
      memory.f32.set(table, at / 4)
      tables.set(table, at)
    }
    return at
  }

  /** Addresses and numbers of a grid as the kernels take them. */
  function partsOf({ codes, scales, grid }: CodedRows, width: number) {
    checkGrid(grid, width)
    const { bits, tokens, channels, symmetric } = grid
    const capacity = codes.rows
    const c = expect(codes, capacity, (width * bits) / 8, 'codes', 'u8')
    const blocks = (width / channels) * (symmetric ? 1 : 2)
    const s = expect(scales, Math.ceil(capacity / tokens), blocks, 'scales', 'u16')
    const numbers = [bits, tokens, channels, symmetric ? 1 : 0, tableOf(grid)]
    return { codes: c.at, scales: s.at, capacity, line: (width * bits) / 8, blocks, numbers }
  }

  return {
    encodeRows(into, start, x) {
      const { at, rows, columns } = own(x)
      const { codes, scales, capacity, line, blocks, numbers } = partsOf(into, columns)
      const { tokens } = into.grid
      if (start % tokens !== 0 || rows % tokens !== 0 || start < 0 || start + rows > capacity) {
        throw new LowbitError(
          'bad-shape',
          `rows ${start} to ${start + rows} are no blocks of ${tokens} among ${capacity}`,
        )
      }
      const where = [codes + start * line, scales + (start / tokens) * blocks * 2]
      device.run('encodeRows', rows * columns * 8, ...where, at, rows, columns, ...numbers)
    },

    decodeRows(out, from, start) {
      const { at, rows, columns } = own(out)
      const { codes, scales, capacity, numbers } = partsOf(from, columns)
      if (start < 0 || start + rows > capacity) {
        throw new LowbitError('bad-shape', `there are ${capacity} rows, not ${start + rows}`)
      }
      const room = device.roomPerThread('coded', columns * 8)
      device.run(
        'decodeRows',
        rows * columns * 2,
        ...[at, codes, scales, start, rows, columns, ...numbers, room.at, room.each],
      )
    },

    attendCoded(target, query, keys, values, coded, key, value, shape) {
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const { rows } = query
      const width = keyValueHeads * headSize
      const q = expect(query, rows, heads * headSize, 'q').at
      const out = expect(target, rows, heads * headSize, 'out').at
      const k = expect(key, key.rows, width, 'k')
      const v = expect(value, value.rows, width, 'v')
      const fresh = start - coded + rows
      if (heads % keyValueHeads !== 0 || headSize % 8 !== 0) {
        throw new LowbitError(
          'bad-shape',
          `${heads} heads of ${headSize} on ${keyValueHeads}: heads must share evenly, sizes be multiples of 8`,
        )
      }
      if (coded < 0 || coded > start || k.rows < fresh || v.rows < fresh) {
        throw new LowbitError('bad-shape', `there are fewer keys or values than ${start + rows}`)
      }
      const [pastKeys, pastValues] = [partsOf(keys, width), partsOf(values, width)]
      if (coded > Math.min(pastKeys.capacity, pastValues.capacity)) {
        throw new LowbitError('bad-shape', `fewer than ${coded} positions are in codes`)
      }
      const line = Math.ceil((start + rows) / 8) * 8 + 8
      const few = rows <= FEW_ROWS
      const depth = Math.max(headSize, KEYS)
      const floats = few
        ? rows * (heads / keyValueHeads) * line + (TILE + 2) * headSize
        : QUERY_ROWS * (line + depth) + KEYS * (depth + headSize) + 2 * headSize + 64
      const room = device.roomPerThread('coded', floats * 4 + 256)
      device.run(
        few ? 'attendCoded' : 'attendCodedPanels',
        rows * (start + rows) * heads * headSize,
        ...[out, q, rows, heads, keyValueHeads, headSize, scale, coded, start - coded, k.at, v.at],
        ...[pastKeys.codes, pastKeys.scales, ...pastKeys.numbers],
        ...[pastValues.codes, pastValues.scales, ...pastValues.numbers],
        ...(few ? [line, rows] : [line]),
        ...[room.at, room.each],
      )
    },
  }
}

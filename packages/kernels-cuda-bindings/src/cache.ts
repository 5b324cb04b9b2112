/** Keys and values in few bits: coded, decoded, and attended over as they lie. */

import {
  type CacheKernels,
  type CodedRows,
  checkCodedAttention,
  checkCodedRows,
  checkDecoding,
  checkEncoding,
} from '@lowbit/core'
import { checkHeads } from './decoder.ts'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf, expect, own } from './tensors.ts'

function ownRows(past: CodedRows, width: number) {
  const kept = checkCodedRows(past, width)
  const outliers = past.outliers && own(past.outliers, 'u16')
  const codebooks = past.codebooks && own(past.codebooks)
  const [codes, scales] = [own(past.codes, 'u32'), own(past.scales, 'u16')]
  return { codes, scales, outliers, codebooks, kept }
}

/** Coded rows as kernels take them; the table is on the device already. */
function fieldsOf(from: CodedRows, width: number, table: Span | undefined): Arguments {
  const { kept, ...spans } = ownRows(from, width)
  const { bits, tokens, channels, symmetric, coupled = 1 } = from.grid
  return {
    ...{ ...spans, kept, table, bits, tokens, channels, symmetric: symmetric ? 1 : 0, coupled },
    ...{ line: spans.codes.columns, blocks: width / channels },
  }
}

const prefixed = (prefix: string, args: Arguments): Arguments =>
  Object.fromEntries(Object.entries(args).map(([name, value]) => [`${prefix}_${name}`, value]))

/** Rows from `row` on, of so many bytes each. */
const after = ({ address, bytes }: Span, row: number, each: number): Span => ({
  ...{ address: address + row * each, bytes: bytes - row * each },
})

export function cacheOperations(device: Device): CacheKernels {
  /** A grid's table on the device while `work` queues what reads it. */
  function withTable<T>(table: Float32Array | undefined, work: (table: Span | undefined) => T): T {
    return table ? device.borrow(device.place(table), work) : work(undefined)
  }

  return {
    encodeRows(into, at, input) {
      const x = own(input)
      const { rows, columns: width } = x
      const { codes, scales, outliers, codebooks, kept } = ownRows(into, width)
      const { bits, tokens, channels, symmetric, table, range = 1, coupled } = into.grid
      checkEncoding(into, at, rows)
      const count = rows * codes.columns
      const out = after(codes, at, codes.columns * 4)
      const pack = (from: Arguments, each = width): void => {
        const args = { ...from, out, count, width: each, bits, line: codes.columns }
        device.run('pack_rows', args, blocksOf(count))
      }
      if (bits === 16) {
        pack({ x })
        return
      }
      if (coupled) {
        const vectors = width / coupled
        device.borrow(device.allocate(rows * vectors), (found) => {
          const args = { x, codebooks, codes: found, vectors, coupled }
          device.run('nearest_entries', args, rows * vectors)
          pack({ codes: found }, vectors)
        })
        return
      }
      const levels = 2 ** bits - 1
      const reach = table ? Math.max(-table[0], table[levels]) : levels / 2
      const groups = (rows / tokens) * (width / channels)
      const blocks = { x, width, tokens, channels, kept }
      const lists = outliers && after(outliers, at, outliers.columns * 2)
      const code = (values: Span | undefined, apart: Span | undefined): void => {
        device.borrow(device.allocate(rows * width), (wide) => {
          const out = after(scales, at / tokens, scales.columns * 2)
          const spans = { table: values, scales: out, codes: wide, apart }
          const grid = { levels, symmetric: symmetric ? 1 : 0, reach, cut: (1 - range) / 2 }
          device.run('code_rows', { ...blocks, ...spans, ...grid }, groups)
          pack({ codes: wide })
        })
        if (!lists) return
        const bare = {
          ...fieldsOf({ ...into, outliers: undefined }, width, values),
          ...{ codes: out, scales: after(scales, at / tokens, scales.columns * 2) },
        }
        const size = rows * kept
        device.run('find_lacks', { ...bare, kept, x, lists, count: size, width }, blocksOf(size))
      }
      withTable(table, (values) => {
        if (!lists) {
          code(values, undefined)
          return
        }
        device.borrow(device.allocate(groups * 8), (means) =>
          device.borrow(device.allocate(rows * width), (apart) => {
            device.run('block_means', { ...blocks, means, apart, lists }, groups)
            device.run('pick_outliers', { ...blocks, means, apart, lists }, rows)
            code(values, apart)
          }),
        )
      })
    },

    decodeRows(target, from, at) {
      const out = own(target)
      const { rows, columns: width } = out
      ownRows(from, width)
      checkDecoding(from, at, rows)
      const count = rows * width
      withTable(from.grid.table, (table) => {
        const args = { ...fieldsOf(from, width, table), out, count, width, first: at }
        device.run('decode_rows', args, blocksOf(count))
      })
    },

    attendCoded(target, query, keys, values, coded, key, value, shape) {
      const { heads, keyValueHeads, headSize, start, scale } = shape
      const { rows } = query
      checkCodedAttention(query, keys, values, coded, key, value, shape)
      checkHeads(shape)
      const width = keyValueHeads * headSize
      const [q, k, v] = [query, key, value].map((tensor) => own(tensor))
      const out = expect(target, rows, heads * headSize, 'out')
      const sizes = { heads, sharers: keyValueHeads, size: headSize, start, coded, scale }
      withTable(keys.grid.table, (keyTable) =>
        withTable(values.grid.table, (valueTable) => {
          const past = {
            ...prefixed('key', fieldsOf(keys, width, keyTable)),
            ...prefixed('value', fieldsOf(values, width, valueTable)),
          }
          const args = { ...past, q, k, v, out, ...sizes }
          if (!keys.turn) {
            device.run('attend_coded', args, rows * heads)
            return
          }
          const { cos, sin, from, rotated } = keys.turn
          const turn = { cosines: own(cos), sines: own(sin), from, rotated: rotated ? 1 : 0 }
          device.run('attend_turned', { ...args, ...turn }, rows * heads)
        }),
      )
    },
  }
}

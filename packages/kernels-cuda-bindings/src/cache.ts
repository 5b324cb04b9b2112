/** Keys and values in few bits: coded, decoded, and attended over as they lie. */

import {
  type CacheKernels,
  type CodedRows,
  checkCodedAttention,
  checkCodedRows,
  checkDecoding,
  checkEncoding,
  LowbitError,
} from '@lowbit/core'
import { checkHeads } from './decoder.ts'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf, expect, own } from './tensors.ts'

function ownRows(past: CodedRows, width: number) {
  if (past.codebooks) {
    throw new LowbitError(
      'not-supported',
      'the CUDA kernels have no coupled channels of a cache yet; choose another cache, or run on the CPU kernels',
      { option: 'cache' },
    )
  }
  const kept = checkCodedRows(past, width)
  const outliers = past.outliers && own(past.outliers, 'u16')
  return { codes: own(past.codes, 'u32'), scales: own(past.scales, 'u16'), outliers, kept }
}

/** Coded rows as kernels take them; the table is on the device already. */
function fieldsOf(from: CodedRows, width: number, table: Span | undefined): Arguments {
  const { codes, scales, outliers, kept } = ownRows(from, width)
  const { bits, tokens, channels, symmetric } = from.grid
  return {
    ...{
      codes,
      scales,
      outliers,
      kept,
      table,
      bits,
      tokens,
      channels,
      symmetric: symmetric ? 1 : 0,
    },
    ...{ line: codes.columns, blocks: width / channels },
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
      const { codes, scales, outliers, kept } = ownRows(into, width)
      const { bits, tokens, channels, symmetric, table, range = 1 } = into.grid
      checkEncoding(into, at, rows)
      const count = rows * codes.columns
      const words = { out: after(codes, at, codes.columns * 4), count, width, bits }
      const pack = (from: Arguments): void =>
        device.run('pack_rows', { ...words, ...from, line: codes.columns }, blocksOf(count))
      if (bits === 16) {
        pack({ x })
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
          ...{ codes: words.out, scales: after(scales, at / tokens, scales.columns * 2) },
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
      if (keys.turn) {
        throw new LowbitError(
          'not-supported',
          'the CUDA kernels do not turn keys that are coded before RoPE yet; set positions to behind, or run on the CPU kernels',
          { option: 'positions' },
        )
      }
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
          device.run('attend_coded', { ...past, q, k, v, out, ...sizes }, rows * heads)
        }),
      )
    },
  }
}

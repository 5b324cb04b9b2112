/** Keys and values in few bits: coded, decoded, and attended over as they lie. */

import {
  type CacheKernels,
  type CodedRows,
  checkCodedAttention,
  checkCodedRows,
  checkDecoding,
  checkEncoding,
  ENTRIES,
} from '@lowbit/core'
import { borrowing, type Device, partOf, type Span } from '../gpu/device.ts'
import { LANES } from '../gpu/shader.ts'
import { expect, own, tensorOperations } from '../tensors.ts'
import {
  anglesTogether,
  decodeRows,
  keepOutliers,
  positionsIn,
  type RowsKind,
  together,
} from './coded-rows.ts'
import {
  blockMeans,
  codeRows,
  findOutliers,
  nearestEntries,
  packCodes,
  packHalves,
} from './encoding.ts'
import { runAttention } from './operations.ts'

const NO_TABLE = Float32Array.of(0)

const kindOf = ({ grid, outliers }: CodedRows): RowsKind => ({
  grid,
  apart: outliers !== undefined,
})

const groupsOf = (count: number): number => Math.ceil(count / LANES)

export function codedOperations(device: Device): CacheKernels {
  const { rows: window } = tensorOperations(device)

  /** What `rowsIn` asks for. */
  function inputs(x: string, from: CodedRows, width: number, table = 0) {
    const { codes, scales, codebooks, outliers, grid } = from
    const count = checkCodedRows(from, width)
    const words = own(codes, 'u32')
    return {
      spans: {
        ...{ [`codes_${x}`]: words, [`scales_${x}`]: own(scales, 'u16') },
        ...(codebooks && { [`codebooks_${x}`]: own(codebooks) }),
        ...(outliers && { [`outliers_${x}`]: own(outliers, 'u16') }),
      } as Record<string, Span>,
      params: {
        ...{ [`line_${x}`]: words.columns, [`blocks_${x}`]: width / grid.channels },
        ...{ [`table_${x}`]: table, [`count_${x}`]: count },
      } as Record<string, number>,
    }
  }

  return {
    encodeRows(into, at, input) {
      const x = own(input)
      const { rows, columns: width } = x
      const each = checkCodedRows(into, width)
      const { grid } = into
      const { bits, tokens, channels, symmetric, table, range = 1, coupled } = grid
      checkEncoding(into, at, rows)
      if (rows === 0) return
      const out = own(window(into.codes, at, at + rows), 'u32')
      const count = out.length
      if (bits === 16) {
        device.run(packHalves, { x, out }, { count }, groupsOf(count))
        return
      }
      /** Codes, a word each, to where they belong. */
      const pack = (codes: Span, columns: number): void => {
        const params = { count, width: columns, bits, line: out.columns }
        device.run(packCodes, { codes, out }, params, groupsOf(count))
      }
      if (coupled) {
        const vectors = width / coupled
        const params = { count: rows * vectors, vectors, coupled, entries: ENTRIES }
        borrowing(device, (take) => {
          const codes = take(params.count)
          const spans = { x, codebooks: own(into.codebooks!), codes }
          device.run(nearestEntries, spans, params, groupsOf(params.count))
          pack(codes, vectors)
        })
        return
      }
      const levels = 2 ** bits - 1
      const reach = table ? Math.max(-table[0], table[levels]) : levels / 2
      const blocks = (rows / tokens) * (width / channels)
      const sizes = { width, tokens, channels }
      borrowing(device, (take) => {
        const codes = take(rows * width)
        const flags = into.outliers && take(rows * width)
        const list = into.outliers && take(rows * each)
        if (flags && list) {
          const means = take(blocks)
          device.run(blockMeans, { x, means }, sizes, blocks)
          device.run(findOutliers, { x, means, flags, list }, { ...sizes, count: each }, rows)
        }
        const scales = own(window(into.scales, at / tokens, (at + rows) / tokens), 'u16')
        const kind = { symmetric: symmetric ? 1 : 0, tabled: table ? 1 : 0 }
        device.run(
          codeRows(flags !== undefined),
          { x, values: device.constant(table ?? NO_TABLE), scales, codes, ...(flags && { flags }) },
          { ...sizes, levels, reach, cut: (1 - range) / 2, ...kind },
          blocks,
        )
        pack(codes, width)
        if (!into.outliers || !list) return
        const { outliers: _, ...bare } = into
        const past = inputs('c', bare, width)
        const kept = own(window(into.outliers, at, at + rows), 'u16')
        const tables = device.constant(table ?? NO_TABLE)
        const params = { ...past.params, width, first: at, each, count: rows * each }
        const spans = { ...past.spans, x, list, tables, out: kept }
        device.run(keepOutliers(grid), spans, params, groupsOf(params.count))
        kept.state.below = 65_536
      })
    },

    decodeRows(target, from, at) {
      const out = own(target)
      const { rows, columns: width } = out
      const { spans, params } = inputs('x', from, width)
      checkDecoding(from, at, rows)
      const tables = device.constant(from.grid.table ?? NO_TABLE)
      const count = out.length
      const more = { width, first: at, count }
      device.run(
        decodeRows(kindOf(from)),
        { ...spans, tables, out },
        { ...params, ...more },
        groupsOf(count),
      )
    },

    attendCoded(target, query, keys, values, coded, key, value, shape) {
      const { heads, keyValueHeads, headSize } = shape
      const { rows } = query
      const fresh = checkCodedAttention(query, keys, values, coded, key, value, shape)
      const width = keyValueHeads * headSize
      const [q, k, v] = [query, key, value].map((tensor) => own(tensor))
      const out = expect(target, rows, heads * headSize, 'out')
      const { turn } = keys
      const ofKeys: RowsKind = {
        ...kindOf(keys),
        ...(turn && { turn: { size: headSize, rotated: turn.rotated } }),
      }
      const ofValues = kindOf(values)
      const [keyTable, valueTable] = [keys, values].map(({ grid }) => grid.table ?? [])
      const table = Float32Array.from([...keyTable, ...valueTable])
      const parts: Span[] = [q, ...[k, v].map((x) => partOf(x, 0, fresh * width))]
      const one = together(ofKeys, ofValues)
      /** Where new keys, new values and tables begin, behind the queries or by themselves. */
      const [newKeys, newValues, tables] = one
        ? [q.length, q.length + fresh * width, q.length + 2 * fresh * width]
        : [0, 0, 0]
      const pastKeys = inputs('k', keys, width, tables)
      const pastValues = inputs('v', values, width, tables + keyTable.length)
      const from = positionsIn(ofKeys, ofValues)
      const angles = turn && {
        cosines: partOf(own(turn.cos), 0, (turn.from + coded) * (headSize / 2)),
        sines: partOf(own(turn.sin), 0, (turn.from + coded) * (headSize / 2)),
      }
      const apart = anglesTogether(ofKeys, ofValues)
      const spans = { ...pastKeys.spans, ...pastValues.spans, out, ...(!apart && angles) }
      const behind = tables + table.length
      const begin = {
        ...{ coded, fresh_k: newKeys, fresh_v: newValues },
        ...(turn && { first_angle: turn.from }),
        ...(angles &&
          apart && { cosines_from: behind, sines_from: behind + angles.cosines.length }),
      }
      const params = { ...pastKeys.params, ...pastValues.params, ...begin }
      if (!one) {
        runAttention(device, shape, rows, { ...spans, q, k, v }, from, params)
        return
      }
      borrowing(device, (take) => {
        if (table.length > 0) parts.push(device.constant(table))
        if (angles && apart) parts.push(angles.cosines, angles.sines)
        const all = take(parts.reduce((sum, { length }) => sum + length, 0))
        let at = 0
        for (const part of parts) {
          device.copy(partOf(all, at, part.length), part)
          at += part.length
        }
        runAttention(device, shape, rows, { ...spans, q: all }, from, params)
      })
    },
  }
}

/** Keys and values in few bits. */

import {
  type AttentionShape,
  type CacheGrid,
  type CacheKernels,
  type CodedRows,
  checkCodedAttention,
  checkCodedRows,
  checkDecoding,
  checkEncoding,
  codeColumns,
  ENTRIES,
  outliersOf,
} from '@lowbit/core'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { KEYS, QUERY_ROWS } from './operations.ts'

/** Up to so many query rows share what is expanded; more go through panels. */
const FEW_ROWS = 5
/** Positions of a task, and those that are expanded together, as in assembly/coded-attention.ts. */
const CHUNK = 256
const TILE = 8
/** Bytes of the description of rows. */
const DESCRIBED = 128
/** Floats of a part before its output. */
const PART_HEAD = 4

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

  /** Describes rows where the kernels read it (assembly/coded.ts); `which` of the two of one call. */
  function describe(from: CodedRows, width: number, which = 0): number {
    const { codes, scales, grid, codebooks, outliers, turn } = from
    const count = checkCodedRows(from, width)
    const { bits, tokens, channels, symmetric, coupled = 1 } = grid
    const [c, s] = [own(codes, 'u32'), own(scales, 'u16')]
    const at = device.room('coded rows', 2 * DESCRIBED) + DESCRIBED * which
    const fields = [c.at, s.at, width, bits, tokens, channels, symmetric ? 1 : 0, tableOf(grid)]
    const apart = outliers ? own(outliers, 'u16').at : 0
    memory.u32.set([...fields, apart, count], at / 4)
    memory.f32[at / 4 + 10] = grid.range ?? 1
    const entries = codebooks ? own(codebooks).at : 0
    const angles = turn
      ? [turn.cos, turn.sin].map((x) => own(x).at + turn.from * x.columns * 4)
      : [0, 0]
    const more = [codeColumns(grid, width) * 4, coupled, entries, ...angles, turn?.rotated ? 1 : 0]
    memory.u32.set(more, at / 4 + 11)
    return at
  }

  /** The products of queries with all entries of the codebooks of keys. */
  function multiplyEntries(
    q: number,
    rows: number,
    { heads, keyValueHeads, headSize }: AttentionShape,
    { grid }: CodedRows,
    past: number,
    scratch: readonly number[],
  ): number {
    const fours = Math.ceil((rows * heads) / keyValueHeads / 4)
    const coupled = grid.coupled ?? 1
    const products = (keyValueHeads * fours * headSize * ENTRIES * 4) / coupled
    const at = device.room('products of entries', products * 4)
    const work = products * coupled
    const shape = [rows, heads, keyValueHeads, headSize]
    device.run('multiplyEntries', work, at, q, ...shape, past, ...scratch)
    return at
  }

  return {
    encodeRows(into, start, x) {
      const { at, rows, columns } = own(x)
      const past = describe(into, columns)
      checkEncoding(into, start, rows)
      const work = rows * columns * 8
      const count = outliersOf(into, columns)
      if (into.codebooks) {
        const room = device.roomPerThread('coded', (ENTRIES * 9 + 48) * 4)
        device.run('encodeEntries', work * ENTRIES, past, start, at, rows, room.at, room.each)
        return
      }
      if (count === 0) {
        device.run('encodeRows', work, past, start, at, rows)
        return
      }
      const kept = device.room('kept rows', rows * columns * 4)
      const { tokens, channels } = into.grid
      const found = device.roomPerThread('outliers', (columns / channels) * 12 + tokens * columns)
      const place = [found.at, found.each]
      device.run('findOutliers', work * count, past, start, at, kept, rows, ...place)
      device.run('encodeRows', work, past, start, kept, rows)
      const bare = describe({ ...into, outliers: undefined }, columns, 1)
      const room = device.roomPerThread('coded', columns * 8)
      device.run('decodeRows', work, kept, bare, start, rows, room.at, room.each)
      device.run('keepOutliers', rows * columns, past, start, at, kept, rows)
    },

    decodeRows(out, from, start) {
      const { at, rows, columns } = own(out)
      const past = describe(from, columns)
      checkDecoding(from, start, rows)
      const room = device.roomPerThread('coded', columns * 8)
      device.run('decodeRows', rows * columns * 2, at, past, start, rows, room.at, room.each)
    },

    attendCoded(target, query, keys, values, coded, key, value, shape) {
      const { heads, keyValueHeads, headSize, scale, start } = shape
      const { rows } = query
      const fresh = checkCodedAttention(query, keys, values, coded, key, value, shape)
      const width = keyValueHeads * headSize
      const [q, k, v] = [query, key, value].map((tensor) => own(tensor).at)
      const out = expect(target, rows, heads * headSize, 'out').at
      const past = [describe(keys, width, 0), describe(values, width, 1)]
      const work = rows * (start + rows) * heads * headSize
      const same = [heads, keyValueHeads, headSize, scale, coded, start - coded, k, v]
      if (rows > FEW_ROWS) {
        const line = Math.ceil((start + rows) / 8) * 8 + 8
        const depth = Math.max(headSize, KEYS)
        const floats = QUERY_ROWS * (line + depth) + KEYS * (depth + headSize) + 2 * headSize + 64
        const room = device.roomPerThread('coded', floats * 4 + 256)
        const scratch = [line, room.at, room.each]
        device.run('attendCodedPanels', work, out, q, rows, ...same, ...past, ...scratch)
        return
      }
      const parts = Math.ceil(coded / CHUNK) + Math.ceil(fresh / CHUNK)
      const at = device.room(
        'parts of attention',
        rows * heads * parts * (PART_HEAD + headSize) * 4,
      )
      const groups = Math.ceil(headSize / 32)
      const lines = (rows * heads) / keyValueHeads + 2 * groups + 3
      const room = device.roomPerThread('coded', (lines * CHUNK + (TILE + 2) * headSize + 64) * 4)
      const scratch = [room.at, room.each]
      const direct = keys.codebooks && !keys.turn
      const products = direct ? multiplyEntries(q, rows, shape, keys, past[0], scratch) : 0
      device.run('attendCoded', work, at, q, rows, ...same, ...past, products, ...scratch)
      device.run(
        'joinParts',
        rows * heads * parts * headSize,
        out,
        at,
        rows * heads,
        parts,
        headSize,
      )
    },
  }
}

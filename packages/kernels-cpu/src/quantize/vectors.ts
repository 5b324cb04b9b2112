/** Vectors of weights: nearest entries, k-means sums, and the passes that choose codes. */

import {
  type ColumnRange,
  type Kernels,
  LowbitError,
  type Tensor,
  type VectorRounding,
} from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'
import { writeSource } from '../weights/source.ts'

type Operations = Pick<
  Kernels,
  | 'transpose'
  | 'nearest'
  | 'clusterSums'
  | 'neighbours'
  | 'feedbackVectors'
  | 'decodeVectors'
  | 'scatterVectors'
  | 'cluster'
  | 'descendVectors'
>

const LONGEST = 16
const MOST_ENTRIES = 65536
const BLOCK = 128
const ROWS = 96

/** Room before a packed table, in which the address of its cells is (assembly/cells.ts). */
const TABLE_HEADER = 64
/** Entries of a cell, about; and as many cells as assembly/nearest.ts has room for. */
const CELL = 64
const MOST_CELLS = 512
const SQUARES = MOST_CELLS * 4
/** As assembly/nearest-narrow.ts has it. */
const NARROW_ROOM = 9 * 32
const NARROW = 20

/**
 * Entries from which on cells pay: the longer the vectors, the more of them reach into one another. Four times as
 * many where all entries are searched for eight vectors at a time.
 */
const fewest = (length: number, together: 4 | 8): number =>
  length < 4 || length > 8
    ? Number.POSITIVE_INFINITY
    : (length <= 6 ? 1024 : 2048) * (together / 4) ** 2

/** Entries from which on eight vectors of 7 or 8 meet whole numbers first (assembly/nearest-narrow.ts). */
const FEWEST_NARROW = 2048

/** As assembly/later.ts has it: errors twice, a panel. */
const LATER_ROOM = 2 * BLOCK * ROWS * 4 + 64 + BLOCK * 64 * 4 + 192
/** As assembly/vector-feedback.ts divides its scratch. */
const OUT_ROOM = 2 * 256 + 64 + 2 * 256 + BLOCK * 64 * 4 + LATER_ROOM + SQUARES
const IN_ROOM = 256 + 64 + 1024 + BLOCK * ROWS * 4 + LATER_ROOM
/** As assembly/vector-descend.ts does. */
const DESCEND_ROOM = 64 + 256 + 3 * BLOCK * 64 * 4

export function vectorOperations(device: Device): Operations {
  const { memory } = device

  /**
   * A table [entries, d] with half of each entry's square before it (assembly/nearest.ts). For many searches
   * (`vectors`) in a large one its cells are made too, and their address put before the table.
   */
  function pack(name: string, table: Tensor, vectors = 0, together: 4 | 8 = 4): number {
    const { rows, columns } = table
    const at = device.room(name, TABLE_HEADER + rows * (columns + 1) * 4) + TABLE_HEADER
    device.run('packVectors', 0, at, own(table).at, rows, columns)
    const count = Math.min(MOST_CELLS, Math.floor(rows / CELL / 4) * 4)
    const pays = rows >= fewest(columns, together) && vectors >= 8 * count
    memory.u32[at / 4 - 1] = pays ? makeCells(name, at, rows, columns, count) : 0
    memory.u32[at / 4 - 2] = 0
    if (together === 8 && !pays && rows >= FEWEST_NARROW && (columns === 7 || columns === 8)) {
      const narrow = device.room(`${name}, narrow`, rows * NARROW)
      device.run('packNarrow', 0, narrow, at, rows, columns)
    }
    return at
  }

  function makeCells(name: string, table: number, rows: number, columns: number, count: number) {
    const size = device.run('cellsSize', 0, rows, columns, count)
    const at = device.room(`${name}, cells`, size)
    const scratch = device.room('cells', 512 + 2 * count * (columns + 1) * 4 + rows * 4)
    device.run('buildCells', 0, at, table, rows, columns, count, scratch)
    return at
  }

  function checkTable({ rows, columns }: Tensor, tables = 1): void {
    const entries = rows / tables
    if (columns < 1 || columns > LONGEST) {
      throw new LowbitError(
        'bad-shape',
        `vectors of ${columns} weights; 1 … ${LONGEST} are possible`,
      )
    }
    if (!Number.isInteger(entries) || entries < 1 || entries > MOST_ENTRIES) {
      throw new LowbitError('bad-shape', `${rows} entries for ${tables} tables of a codebook`)
    }
  }

  /** Checks what a pass is given, and writes its list of tables. */
  function prepare(
    codes: readonly Tensor[],
    weight: Tensor,
    options: VectorRounding & ColumnRange,
    neighbours?: readonly Tensor[],
    searches = false,
  ) {
    const { rows, columns } = weight
    const { length, along, tables, from = 0, to = columns, tableRows = rows } = options
    if (!(Number.isInteger(length) && length >= 1 && length <= LONGEST)) {
      throw new LowbitError(
        'bad-shape',
        `vectors of ${length} weights; 1 … ${LONGEST} are possible`,
      )
    }
    if (
      !(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from < to && to <= columns)
    ) {
      throw new LowbitError('bad-shape', `no columns ${from} to ${to} in ${columns}`)
    }
    const out = along === 'out'
    if (out && tableRows < rows) {
      throw new LowbitError('bad-shape', 'vectors along the rows have one table for all of them')
    }
    if (!out && (options.columnScale || options.columnBias)) {
      throw new LowbitError('bad-shape', 'vectors along the columns have no scale of columns')
    }
    if (tables.length === 0 || codes.length !== tables.length) {
      throw new LowbitError(
        'bad-shape',
        `${codes.length} tensors of codes for ${tables.length} tables`,
      )
    }
    const { scaleColumns = columns } = options
    if (!(scaleColumns >= 1) || (!out && scaleColumns < columns && scaleColumns % length !== 0)) {
      throw new LowbitError(
        'bad-shape',
        `scales of ${scaleColumns} columns for vectors of ${length}`,
      )
    }
    const groups = Math.ceil(rows / tableRows)
    const [high, wide] = out
      ? [Math.ceil(rows / length), to - from]
      : [rows, Math.ceil((to - from) / length)]
    const list: number[] = []
    let entries = 0
    tables.forEach((table, i) => {
      expect(table.values, groups * table.entries, length, 'a table')
      checkTable(table.values, groups)
      entries += table.entries
      list.push(expect(codes[i], high, wide, 'codes', 'u16').at)
      list.push(pack(`table ${i}`, table.values, out && searches ? high * wide : 0), table.entries)
      if (!neighbours) return
      const near = neighbours[i]
      list.push(expect(near, table.values.rows, near.columns, 'neighbours', 'u16').at, near.columns)
    })
    const at = device.room('tables', list.length * 4)
    memory.u32.set(list, at / 4)
    const across = Math.ceil(columns / scaleColumns)
    const vector = (tensor: Tensor | undefined, what: string): number =>
      tensor ? expect(tensor, 1, columns, what).at : 0
    return {
      ...{ list: at, from, to, tableRows, entries, across, scaleColumns, codeColumns: wide },
      rowScale: options.rowScale ? expect(options.rowScale, rows, across, 'rowScale').at : 0,
      columnScale: vector(options.columnScale, 'columnScale'),
      columnBias: vector(options.columnBias, 'columnBias'),
    }
  }

  return {
    transpose(target, input) {
      const x = own(input)
      const out = expect(target, x.columns, target.columns, 'out')
      if (out.columns < x.rows) {
        throw new LowbitError('bad-shape', `${x.rows} rows do not fit into ${out.columns} columns`)
      }
      const work = x.rows * x.columns
      device.run('transpose', work, out.at, x.at, x.rows, x.columns, out.columns)
    },

    nearest(codes, input, table, distances) {
      const x = own(input)
      checkTable(table)
      const { rows: entries, columns: d } = expect(table, table.rows, x.columns, 'the table')
      const out = expect(codes, x.rows, 1, 'codes', 'u16').at
      const lengths = distances ? expect(distances, x.rows, 1, 'distances').at : 0
      const packed = pack('table', table, x.rows, device.wide ? 8 : 4)
      const scratch = device.roomPerThread('nearest', 256 + 64 + NARROW_ROOM + SQUARES)
      const work = x.rows * d * entries
      device.run(
        'nearest',
        work,
        ...[out, lengths, x.at, x.rows, d, packed, entries, scratch.at, scratch.each],
      )
    },

    clusterSums(sums, input, codes, weights) {
      const x = own(input)
      const { rows: n, columns: d } = x
      const out = expect(sums, sums.rows, d + 1, 'sums')
      const from = expect(codes, n, 1, 'codes', 'u16').at
      const factors = weights ? expect(weights, n, 1, 'weights').at : 0
      const size = out.rows * (d + 1)
      const room = device.room('cluster sums', size * 8)
      memory.f64.fill(0, room / 8, room / 8 + size)
      const bad = device.run('clusterSums', 0, room, x.at, n, d, from, factors, out.rows)
      if (bad) throw new LowbitError('bad-index', `code ${bad - 1} is beyond ${out.rows} entries`)
      memory.f32.set(memory.f64.subarray(room / 8, room / 8 + size), out.at / 4)
    },

    neighbours(target, table) {
      checkTable(table)
      const { rows: entries, columns: d } = table
      const out = expect(target, entries, target.columns, 'out', 'u16')
      if (out.columns < 1 || out.columns > entries) {
        throw new LowbitError('bad-shape', `${out.columns} neighbours among ${entries} entries`)
      }
      const packed = pack('table', table)
      const scratch = device.roomPerThread('neighbours', out.columns * 4)
      device.run(
        'neighbours',
        entries * entries * d,
        ...[out.at, packed, entries, d, out.columns, scratch.at, scratch.each],
      )
    },

    cluster(target, input, options) {
      const x = own(input)
      const { rows: n, columns: d } = x
      const { groupRows, entries, weights, iterations, seeding, seed = 0 } = options
      if (!(groupRows >= 1 && entries >= 1 && entries <= MOST_ENTRIES)) {
        throw new LowbitError('bad-shape', `${entries} entries for groups of ${groupRows} rows`)
      }
      const tables = expect(target, Math.ceil(n / groupRows) * entries, d, 'tables')
      checkTable(tables, Math.ceil(n / groupRows))
      const factors = weights ? expect(weights, n, 1, 'weights').at : 0
      // As assembly/cluster.ts divides it: the sums' place also holds the covariance.
      const sums = 8 * Math.max(entries * (d + 1), d * (d + 2))
      const room = 256 + 64 + entries * (d + 1) * 4 + 64 + sums + groupRows * 8
      const scratch = device.roomPerThread('cluster', room)
      device.run(
        'cluster',
        n * d * entries * iterations,
        ...[tables.at, x.at, n, d, groupRows, entries, factors, iterations],
        ...[seeding === 'kmeans++' ? 1 : 0, seed | 0, scratch.at, scratch.each],
      )
    },

    scatterVectors(sums, input, codes, options) {
      const x = own(input)
      const { rows, columns } = x
      const pass = prepare(codes, x, options)
      const { from, to, rowScale, across, scaleColumns, codeColumns, tableRows } = pass
      const { length, along, tables } = options
      if (sums.length !== tables.length) {
        throw new LowbitError('bad-shape', `${sums.length} sums for ${tables.length} tables`)
      }
      const list: number[] = []
      const outs = sums.map((sum, i) => {
        const size = tables[i].values.rows * length
        const out = expect(sum, tables[i].values.rows, length, 'sums').at
        const at = device.room(`sums ${i}`, size * 8)
        memory.f64.fill(0, at / 8, at / 8 + size)
        list.push(own(codes[i], 'u16').at, at, tables[i].entries)
        return { out, at, size }
      })
      const at = device.room('tables', list.length * 4)
      memory.u32.set(list, at / 4)
      device.run(
        'scatterVectors',
        0,
        ...[at, tables.length, length, along === 'out' ? 1 : 0, tableRows, x.at, rows, columns],
        ...[rowScale, across, scaleColumns, pass.columnScale, from, to, codeColumns],
      )
      for (const { out, at, size } of outs) {
        memory.f32.set(memory.f64.subarray(at / 8, at / 8 + size), out / 4)
      }
    },

    feedbackVectors(codes, weight, factor, options) {
      const w = own(weight)
      const { rows, columns } = w
      const pass = prepare(codes, w, options, undefined, true)
      const { list, from, to, rowScale, across, scaleColumns } = pass
      const u = expect(factor, columns, columns, 'factor').at
      const { length, along, tables } = options
      const work = rows * (to - from) * (pass.entries + columns / 2)
      if (along === 'out') {
        const scratch = device.roomPerThread('feedback out', OUT_ROOM)
        device.run(
          'feedbackOut',
          work,
          ...[list, tables.length, length, w.at, rows, columns, u, rowScale, across, scaleColumns],
          ...[pass.columnScale, pass.columnBias, from, to, scratch.at, scratch.each],
        )
        return
      }
      const turned = pass.entries * (length + 1) * 4
      const scratch = device.roomPerThread('feedback in', IN_ROOM + turned)
      device.run(
        'feedbackIn',
        work,
        ...[list, tables.length, length, pass.tableRows, w.at, rows, columns, u, rowScale, across],
        ...[scaleColumns, from, to, scratch.at, scratch.each],
      )
    },

    decodeVectors(target, codes, options) {
      const out = own(target)
      const { rows, columns } = out
      const pass = prepare(codes, out, options)
      const { list, from, to, rowScale, across, scaleColumns, codeColumns } = pass
      const { length, along, tables } = options
      device.run(
        'decodeVectors',
        rows * (to - from) * tables.length,
        ...[list, tables.length, length, along === 'out' ? 1 : 0, pass.tableRows, out.at, rows],
        ...[columns, rowScale, across, scaleColumns, pass.columnScale, pass.columnBias, from, to],
        codeColumns,
      )
    },

    descendVectors(codes, decoded, weight, hessian, options) {
      const w = own(weight)
      const { rows, columns } = w
      if (options.along !== 'out') {
        throw new LowbitError('bad-shape', 'coordinate descent takes vectors along the rows')
      }
      if (options.neighbours.length !== options.tables.length) {
        throw new LowbitError('bad-shape', 'neighbours are needed for each table')
      }
      const pass = prepare(codes, w, options, options.neighbours)
      const { list, from, to, rowScale, across, scaleColumns, codeColumns } = pass
      const q = expect(decoded, rows, columns, 'decoded').at
      const h = expect(hessian, columns, columns, 'the Hessian').at
      const { length, tables, damping } = options
      const stride = columns * 4
      const size = rows * columns
      const difference = device.room('difference', size * 4)
      const gradient = device.room('gradient', rows * BLOCK * 4)
      const scratch = device.roomPerThread('descend', DESCEND_ROOM)
      for (let start = from; start < to; start += BLOCK) {
        const some = Math.min(BLOCK, to - start)
        // (w − q)·H for the block's columns, afresh: earlier blocks have changed q.
        device.run('difference', size, difference, w.at, q, rows, columns)
        const source = writeSource(memory, {
          ...{ kind: 'rows', data: h + start * stride, stride, rows: some, depth: columns },
        })
        product(device, {
          ...{ out: gradient, outStride: some * 4, left: difference, leftStride: stride, rows },
          ...{ source, columns: some, depth: columns },
        })
        device.run(
          'descendOut',
          rows * some * (some + 200),
          ...[list, tables.length, length, w.at, q, gradient, rows, columns, h, damping],
          ...[rowScale, across, scaleColumns, pass.columnScale, pass.columnBias, start],
          ...[codeColumns, from, some, scratch.at, scratch.each],
        )
      }
    },
  }
}

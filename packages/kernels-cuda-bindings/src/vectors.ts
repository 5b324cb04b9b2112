/** The passes that choose codes of vectors, and what is read from them. */

import {
  checkDescent,
  checkSums,
  checkVectorPass,
  type Kernels,
  type VectorPass as Pass,
} from '@lowbit/core'
import { inFours } from './clusters.ts'
import type { Arguments, Device, Span } from './driver/device.ts'
import { product } from './factor.ts'
import { sumByCodes } from './sums.ts'
import { blocksOf, type CudaTensor, expect, handles, own } from './tensors.ts'

type Operations = Pick<
  Kernels,
  'feedbackVectors' | 'decodeVectors' | 'scatterVectors' | 'descendVectors'
>

type VectorPass = Pass<CudaTensor>

/** As in kernels/vectors.cu. */
const STEP = 32
/** Bytes of a stage's description there. */
const STAGE_BYTES = 32

const factorsOf = (pass: VectorPass): Arguments => ({
  ...{ row_scale: pass.rowScale, column_scale: pass.columnScale, column_bias: pass.columnBias },
  ...{ columns: pass.columns, across: pass.across, scale_columns: pass.scaleColumns },
})

const placeOf = (pass: VectorPass): Arguments => ({
  ...{ length: pass.length, along_out: pass.along === 'out' ? 1 : 0, wide: pass.wide },
  ...{ table_rows: pass.tableRows, first: pass.from },
})

const from = ({ address, bytes }: Span, numbers: number): Span => ({
  ...{ address: address + numbers * 4, bytes: bytes - numbers * 4 },
})

export function vectorOperations(device: Device): Operations {
  /** All tables in one span, entries filled up to fours, and what the kernels are told of each stage. */
  function withStages(
    { tables, codes, entries, length }: VectorPass,
    near: readonly CudaTensor[],
    work: (stages: Span, padded: Span, total: number) => void,
  ): void {
    const wide = Math.ceil(length / 4) * 4
    const total = tables.reduce((sum, { rows }) => sum + rows, 0)
    device.borrow(device.allocate(total * wide * 4), (padded) => {
      const stages = new DataView(new ArrayBuffer(tables.length * STAGE_BYTES))
      let at = 0
      for (const [i, table] of tables.entries()) {
        const out = from(padded, at * wide)
        const count = table.rows * wide
        device.run('pad_entries', { x: table, out, count, length, wide }, blocksOf(count))
        const stage = i * STAGE_BYTES
        const pointers = [out.address, codes[i].address, near[i]?.address ?? 0]
        for (const [n, address] of pointers.entries()) {
          stages.setBigUint64(stage + n * 8, BigInt(address), true)
        }
        stages.setUint32(stage + 24, entries[i], true)
        stages.setUint32(stage + 28, near[i]?.columns ?? 0, true)
        at += table.rows
      }
      device.borrow(device.place(stages), (described) => work(described, padded, total))
    })
  }

  interface Sweep {
    readonly kernel: string
    /** The factor, or the Hessian. */
    readonly u: Span
    readonly line: Span
    readonly blocks: number
    readonly step: number
    /** Columns that are fed end here. */
    readonly last: number
    readonly args: Arguments
    readonly before?: (begin: number, size: number) => void
  }

  /** Step by step; what columns leave goes to all later ones in one product. */
  function sweep(pass: VectorPass, { kernel, u, line, blocks, step, last, ...sweep }: Sweep): void {
    const { rows, columns, length, from: first, to, wide, tableRows, entries } = pass
    device.borrow(device.allocate(rows * STEP * 4), (errors) => {
      for (let begin = first; begin < to; begin += step) {
        const size = Math.min(step, to - begin)
        sweep.before?.(begin, size)
        const sizes = { rows, length, begin, size, first, wide, count: entries.length }
        const spans = { ...factorsOf(pass), u, line, errors }
        const args = { ...spans, ...sizes, table_rows: tableRows, damping: 0, total: 0 }
        device.run(inFours(kernel, length), { ...args, ...sweep.args }, blocks)
        const end = begin + size
        if (end >= last) continue
        product(device, {
          ...{ out: from(line, end), a: errors, b: from(u, begin * columns + end) },
          ...{ rows, columns: last - end, depth: size, factor: -1, keep: 1 },
          ...{ a_row: STEP, a_depth: 1, b_depth: columns, b_column: 1, out_row: columns },
        })
      }
    })
  }

  function feedbackIn(pass: VectorPass, line: Span, u: Span): void {
    const { rows, columns, length, from: first, to } = pass
    const vectors = Math.ceil((to - first) / length)
    const step = Math.floor(STEP / length) * length
    const wide = Math.ceil(length / 4) * 4
    withStages(pass, [], (stages, tables, total) =>
      device.borrow(device.allocate(vectors * length * length * 4), (triangles) =>
        device.borrow(device.allocate((step / length) * total * wide * 4), (turned) => {
          const shape = { u, out: triangles, count: vectors, columns, length, first, last: to }
          device.run('vector_triangles', shape, blocksOf(vectors))
          sweep(pass, {
            ...{ kernel: 'feedback_in', u, line, blocks: rows, step, last: columns },
            args: { stages, triangles, turned, total },
            before(begin, size) {
              const count = Math.ceil(size / length) * total * wide
              const sizes = { count, length, wide, total, first: (begin - first) / length }
              const spans = { tables, triangles, out: turned }
              device.run('turn_entries', { ...spans, ...sizes }, blocksOf(count))
            },
          })
        }),
      ),
    )
  }

  return {
    feedbackVectors(codes, weight, factor, options) {
      const line = own(weight)
      const { rows, columns } = line
      const u = expect(factor, columns, columns, 'factor')
      const pass = checkVectorPass(handles, codes, line, options)
      if (pass.along === 'in') {
        feedbackIn(pass, line, u)
        return
      }
      const blocks = Math.ceil(rows / pass.length)
      withStages(pass, [], (stages) =>
        sweep(pass, {
          ...{ kernel: 'feedback_out', u, line, blocks, step: STEP, last: columns },
          args: { stages },
        }),
      )
    },

    decodeVectors(target, codes, options) {
      const out = own(target)
      const pass = checkVectorPass(handles, codes, out, options)
      const { rows, from: first, to, tables, entries } = pass
      const width = to - first
      const count = rows * width
      for (const [i, table] of tables.entries()) {
        const spans = { ...factorsOf(pass), ...placeOf(pass), codes: pass.codes[i], table, out }
        const turn = { keep: i > 0 ? 1 : 0, finish: i === tables.length - 1 ? 1 : 0 }
        const args = { ...spans, ...turn, entries: entries[i], count, width }
        device.run('decode_vectors', args, blocksOf(count))
      }
    },

    scatterVectors(sums, input, codes, options) {
      const x = own(input)
      const pass = checkVectorPass(handles, codes, x, options)
      const { rows, length, along, to, groups, high, wide, tableRows, entries } = pass
      const outs = checkSums(handles, sums, pass)
      const groupRows = along === 'out' ? high : Math.min(tableRows, rows)
      const sizes = { rows, last: to, code_rows: high, group_rows: groupRows }
      for (const [i, out] of outs.entries()) {
        const args = { ...factorsOf(pass), ...placeOf(pass), ...sizes, codes: pass.codes[i], x }
        sumByCodes(device, 'scatter_vectors', out, args, {
          ...{ tables: groups, entries: entries[i], values: length, items: groupRows * wide },
        })
      }
    },

    descendVectors(codes, decodedTensor, weight, hessian, options) {
      const w = own(weight)
      const { rows, columns } = w
      const pass = checkVectorPass(handles, codes, w, options)
      const near = checkDescent(handles, options.neighbours, pass)
      const decoded = expect(decodedTensor, rows, columns, 'decoded')
      const h = expect(hessian, columns, columns, 'the Hessian')
      const { damping } = options
      const { from: first, to } = pass
      const count = rows * columns
      const blocks = Math.ceil(rows / pass.length)
      device.borrow(device.allocate(w.bytes), (rest) =>
        device.borrow(device.allocate(w.bytes), (line) => {
          device.run('difference', { a: w, b: decoded, out: rest, count }, blocksOf(count))
          // The slope (w − q) · (H + λ1).
          device.run('multiple', { x: rest, out: line, count, factor: damping }, blocksOf(count))
          product(device, {
            ...{ out: from(line, first), a: rest, b: from(h, first), keep: 1 },
            ...{ rows, columns: to - first, depth: columns },
            ...{ a_row: columns, a_depth: 1, b_depth: columns, b_column: 1, out_row: columns },
          })
          withStages(pass, near, (stages) =>
            sweep(pass, {
              ...{ kernel: 'descend_out', u: h, line, blocks, step: STEP, last: to },
              args: { stages, decoded, damping },
            }),
          )
        }),
      )
    },
  }
}

/** Scales, codes, and the passes that round column by column. */

import {
  checkBlocks,
  columnBlocks,
  type FitOptions,
  gridWords,
  type Kernels,
  LowbitError,
  type Rounding,
  type Tensor,
} from '@lowbit/core'
import type { Arguments, Device, Span } from './driver/device.ts'
import { product } from './factor.ts'
import { blocksOf, expect, expectCodes, own } from './tensors.ts'

type Operations = Pick<Kernels, 'fit' | 'round' | 'feedback' | 'descend'>

/** As in kernels/rounding.cu. */
const STEP = 32
/** Weights of a block that a warp fits by itself. */
const WARP_WEIGHTS = 1024
const SCALE_TYPES: Readonly<Record<FitOptions['scaleType'], number>> = {
  ...{ f32: 0, f16: 1, bf16: 2, f8_e8m0: 3 },
}

/** What the range of a symmetric block is divided by, and whether binary's mean is tried first. */
function fitArguments(options: FitOptions, largest: number): Arguments {
  const { grid, asymmetric, search, scaleType } = options
  const integer = grid.kind === 'integer'
  if (asymmetric && !(integer && grid.lowest === 0 && grid.step === 1)) {
    throw new LowbitError('bad-grid', 'a zero point needs an integer grid that starts at 0')
  }
  const reach = integer && grid.levels > 2 ? (grid.step * (grid.levels - 1)) / 2 : largest
  return {
    ...{ asymmetric: asymmetric ? 1 : 0, candidates: search.candidates, shrink: search.step },
    ...{ scale_type: SCALE_TYPES[scaleType], largest, reach },
    mean: integer && grid.levels === 2 && grid.lowest < 0 ? 1 : 0,
  }
}

function ownScales(scale: Tensor, zero: Tensor | undefined, weight: Tensor, rounding: Rounding) {
  const { down, across } = checkBlocks(weight, rounding)
  const scales = expect(scale, down, across, 'scale')
  const zeros = zero && expect(zero, down, across, 'zero')
  return { scales, zeros, block_rows: rounding.blockRows, across, down }
}

interface Sweep {
  readonly rows: number
  readonly columns: number
  readonly from: number
  readonly to: number
  readonly line: Span
  readonly u: Span
  readonly args: Arguments
}

export function roundingOperations(device: Device): Operations {
  /** Rounds the columns [from, to), step by step, and feeds later columns of `line`. */
  function sweep({ rows, columns, from, to, line, u, args }: Sweep): void {
    device.borrow(device.allocate(rows * STEP * 4), (errors) => {
      for (let begin = from; begin < to; begin += STEP) {
        const size = Math.min(STEP, to - begin)
        const sizes = { count: rows, columns, begin, size }
        device.run('round_columns', { ...args, ...sizes, line, u, errors }, blocksOf(rows))
        const end = begin + size
        if (end === columns) continue
        const [out, b] = [end, begin * columns + end].map((at) => at * 4)
        product(device, {
          out: { address: line.address + out, bytes: line.bytes - out },
          ...{ a: errors, b: { address: u.address + b, bytes: u.bytes - b } },
          ...{ rows, columns: columns - end, depth: size, factor: -1, keep: 1 },
          ...{ a_row: STEP, a_depth: 1, b_depth: columns, b_column: 1, out_row: columns },
        })
      }
    })
  }

  return {
    fit(scale, zero, weight, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { asymmetric, importance: factors, grid, blockColumns } = options
      const { down, ...blocks } = ownScales(scale, zero, w, options)
      if (asymmetric !== (zero !== undefined)) {
        throw new LowbitError('bad-shape', 'a tensor of zero points belongs to asymmetric blocks')
      }
      const importance = factors && expect(factors, 1, columns, 'importance')
      if (grid.kind === 'lookup' && grid.blocks) {
        throw new LowbitError('bad-grid', 'scales are fitted to a grid with one table')
      }
      const { words, params, largest } = gridWords(grid, rows, columns)
      const fitting = fitArguments(options, largest)
      device.borrow(device.place(words), (table) => {
        const sizes = { rows, columns, block_columns: blockColumns }
        const args = { ...params, ...blocks, ...fitting, ...sizes, grid: table, w, importance }
        const large = options.blockRows * Math.min(columns, blockColumns) > WARP_WEIGHTS
        device.run(large ? 'fit_large' : 'fit_small', args, down * blocks.across)
      })
    },

    round(codeTensor, decodedTensor, weight, scale, zero, rounding) {
      const w = own(weight)
      const { rows, columns } = w
      const { down: _, ...blocks } = ownScales(scale, zero, w, rounding)
      const { words, params, levels } = gridWords(rounding.grid, rows, columns)
      const decoded = decodedTensor && expect(decodedTensor, rows, columns, 'decoded')
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      const count = rows * columns
      device.borrow(device.place(words), (grid) => {
        const sizes = { count, columns, block_columns: rounding.blockColumns }
        const args = { ...params, ...blocks, ...sizes, grid, w, codes, decoded }
        device.run('round_codes', args, blocksOf(count))
      })
    },

    feedback(codeTensor, weight, factor, scale, zero, options) {
      const line = own(weight)
      const { rows, columns } = line
      const { from, to, blockRows, grid } = options
      const u = expect(factor, columns, columns, 'factor')
      const scales = expect(scale, Math.ceil(rows / blockRows), scale.columns, 'scale')
      const zeros = zero && expect(zero, scale.rows, scale.columns, 'zero')
      if (!(Number.isInteger(from) && from >= 0 && from <= to && to <= columns)) {
        throw new LowbitError('bad-shape', `columns ${from} to ${to} of ${columns}`)
      }
      const { words, params, levels } = gridWords(grid, rows, columns)
      const blocks = columnBlocks(options, columns, scale.columns)
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      // The quantized values take the place of the weight when the pass is over: until then they lie apart.
      const held = [device.place(words), device.place(blocks), device.allocate(line.bytes)]
      const [table, places, decoded] = held
      try {
        const sizes = { block_rows: blockRows, across: scale.columns, descend: 0, damping: 0 }
        const spans = { grid: table, places, scales, zeros, codes, decoded }
        sweep({ rows, columns, from, to, line, u, args: { ...params, ...sizes, ...spans } })
        const count = rows * (to - from)
        const put = { x: decoded, out: line, count, columns, begin: from, size: to - from }
        device.run('put_columns', put, blocksOf(count))
      } finally {
        for (const span of held) device.release(span)
      }
    },

    descend(codeTensor, decodedTensor, weight, hessian, scale, zero, options) {
      const w = own(weight)
      const { rows, columns } = w
      const { damping, grid } = options
      const decoded = expect(decodedTensor, rows, columns, 'decoded')
      const h = expect(hessian, columns, columns, 'the Hessian')
      const { down: _, ...sizes } = ownScales(scale, zero, w, options)
      const { words, params, levels } = gridWords(grid, rows, columns)
      const blocks = columnBlocks(options, columns, sizes.across)
      const codes = expectCodes(codeTensor, rows, columns, levels, 'u8')
      const held = [
        ...[device.place(words), device.place(blocks)],
        ...[device.allocate(w.bytes), device.allocate(w.bytes)],
      ]
      const [table, places, rest, line] = held
      try {
        const count = rows * columns
        device.run('difference', { a: w, b: decoded, out: rest, count }, blocksOf(count))
        // The slope (w − q) · (H + λ1).
        device.run('multiple', { x: rest, out: line, count, factor: damping }, blocksOf(count))
        product(device, {
          ...{ out: line, a: rest, b: h, rows, columns, depth: columns, keep: 1 },
          ...{ a_row: columns, a_depth: 1, b_depth: columns, b_column: 1, out_row: columns },
        })
        const spans = { grid: table, places, codes, decoded, descend: 1, damping }
        const args = { ...params, ...sizes, ...spans }
        sweep({ rows, columns, from: 0, to: columns, line, u: h, args })
      } finally {
        for (const span of held) device.release(span)
      }
    },
  }
}

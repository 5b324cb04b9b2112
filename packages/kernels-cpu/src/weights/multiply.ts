/** x · Wᵀ and rows of W, with weights as they were loaded. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect } from '../tensors.ts'
import { isFew, multiplyFew } from './few.ts'
import { gatherRows } from './gather.ts'
import { type CpuWeight, loadWeight, ownWeight, unloadWeight } from './load.ts'
import { rotate } from './rotation.ts'
import { tableStore } from './tables.ts'

type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

/** From so many rows on, panels of floats are filled in less time than bytes of two products take longer. */
const ROWS_OF_FLOATS = 80

/** Products of bytes are not made wide (dots-narrow.ts) where a code is two of them. */
const isFasterInFloats = ({ wide }: Device, { dots }: CpuWeight, rows: number): boolean =>
  wide && dots === 'table' && rows >= ROWS_OF_FLOATS

export function weightOperations(device: Device): Operations {
  const tables = tableStore(device)

  /** x in the order in which the weight stores its columns. */
  function arrange(x: number, rows: number, weight: CpuWeight): number {
    const { columns, depth, map, factors } = weight
    if (!map) return x
    const out = device.room('arranged', rows * depth * 4)
    device.run('arrange', rows * depth, out, x, rows, columns, map, factors, depth)
    return out
  }

  /** With x in whole numbers: panels of one or of four rows. */
  function dots(out: number, x: number, rows: number, weight: CpuWeight, add: number): void {
    const [{ source, depth, group, groups }] = weight.parts
    const { integers } = weight
    const wide = weight.dots === 'wide' ? 1 : 0
    const way = wide ? 2 : device.longSums ? 1 : 0
    const high = rows === 1 ? 1 : 4
    const packed = Math.ceil(rows / high) * high
    const numbers = device.room('numbers', (packed * depth) << wide)
    const factors = device.room('factors', (packed * depth) / 8)
    const sums = device.room('sums', packed * groups * 4)
    // A count, and at most one outlier of 12 bytes for each block of 32 (assembly/outliers.ts).
    const outliers = device.room('outliers', packed * (4 + (depth / 32) * 12))
    const spread = device.roomPerThread('spread', depth * 16 + 256)
    const strips = Math.ceil(weight.rows / 8)
    const some = Math.max(1, Math.ceil(strips / (device.threads * 8)))
    device.run(
      'quantizeRows',
      rows * depth,
      ...[numbers, factors, sums, outliers, x, rows, depth, group, high, wide],
    )
    if (weight.dots === 'table') {
      device.run(
        'tableDots',
        (rows * depth * weight.rows) / 2,
        ...[out, weight.rows * 4, numbers, factors, sums, outliers, rows, source, integers, add],
        ...[some, high, spread.at, spread.each],
      )
      return
    }
    device.run(
      'dots',
      (rows * depth * weight.rows) / 2,
      ...[out, weight.rows * 4, numbers, factors, sums, outliers, rows, source, add, some, high],
      ...[way, spread.at, spread.each],
    )
  }

  /** out (+)= x times the stages' sum. */
  function stages(out: number, x: number, rows: number, weight: CpuWeight, add: boolean): void {
    const left = arrange(x, rows, weight)
    if (weight.dots && !isFasterInFloats(device, weight, rows)) {
      dots(out, left, rows, weight, add ? 1 : 0)
      return
    }
    if (isFew(rows, weight)) {
      multiplyFew(device, out, left, rows, weight, add ? 1 : 0)
      return
    }
    const { source, depth } = weight
    product(device, {
      ...{ out, outStride: weight.rows * 4, left, leftStride: depth * 4, rows },
      ...{ source, columns: weight.rows, depth, accumulate: add },
    })
  }

  /** out += what the bias of columns and single entries make of x. */
  function addTerms(out: number, x: number, rows: number, weight: CpuWeight): void {
    const { bias, sparse } = weight.terms
    if (!bias && !sparse) return
    const { columns } = weight
    const sums = bias ? device.room('row dots', rows * 4) : 0
    if (sums) device.run('rowDots', rows * columns, sums, x, rows, columns, bias)
    const { starts = 0, columns: at = 0, values = 0 } = sparse ?? {}
    device.run(
      'addTerms',
      rows * weight.rows,
      ...[out, x, rows, columns, weight.rows, sums, starts, at, values],
    )
  }

  return {
    load: (matrix, options = {}) => loadWeight(device, tables, matrix, options),
    unload: (weight) => unloadWeight(weight),
    matmul(target, input, handle, { accumulate = false } = {}) {
      const weight = ownWeight(handle)
      const rows = input.rows
      let x = expect(input, rows, weight.columns, 'x').at
      const out = expect(target, rows, weight.rows, 'out').at
      if (rows === 0) return
      const { input: before, output: after } = weight.terms
      if (before) {
        const rotated = device.room('rotated x', rows * weight.columns * 4)
        rotate(device, rotated, x, rows, weight.columns, before, { back: false })
        x = rotated
      }
      const to = after ? device.room('rotated out', rows * weight.rows * 4) : out
      stages(to, x, rows, weight, accumulate && !after)
      addTerms(to, x, rows, weight)
      if (after) rotate(device, out, to, rows, weight.rows, after, { back: true, add: accumulate })
    },
    gather(target, handle, rows) {
      const weight = ownWeight(handle)
      const out = expect(target, rows?.length ?? weight.rows, weight.columns, 'out').at
      const highest = rows?.reduce((most, row) => Math.max(most, row), 0) ?? 0
      if (highest >= weight.rows) {
        throw new LowbitError('bad-shape', `row ${highest} of a weight of ${weight.rows} rows`)
      }
      gatherRows(device, out, weight, rows)
    },
  }
}

/** x · Wᵀ and rows of W, with weights as they were loaded. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { product } from '../algebra/product.ts'
import type { Device } from '../device.ts'
import { expect } from '../tensors.ts'
import { type CpuWeight, loadWeight, ownWeight, unloadWeight } from './load.ts'

/**
 * Up to here rows go one to four at a time through the kernels that pack nothing; those with a table
 * take a single row.
 */
const FEW_ROWS = 5

type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

export function weightOperations(device: Device): Operations {
  const { memory } = device

  /** x in the order in which the weight stores its columns. */
  function arrange(x: number, rows: number, weight: CpuWeight): number {
    const { columns, depth, map, factors } = weight
    if (!map) return x
    const out = device.room('arranged', rows * depth * 4)
    device.run('arrange', rows * depth, out, x, rows, columns, map, factors, depth)
    return out
  }

  function few(out: number, x: number, rows: number, weight: CpuWeight, add: number): void {
    const { source, depth, group, groups } = weight
    const strips = Math.ceil(weight.rows / 8)
    const some = Math.max(1, Math.ceil(strips / (device.threads * 8)))
    const sums = weight.hasOffsets ? device.room('sums', rows * groups * 4) : 0
    if (sums) device.run('groupSums', 0, sums, x, rows, group, groups)
    const stride = weight.rows * 4
    for (let row = 0; row < rows; row += 4) {
      const count = Math.min(4, rows - row)
      const work = weight.rows * depth * count
      const [from, to] = [x + row * depth * 4, out + row * stride]
      device.run('gemv', work, to, stride, from, count, source, sums + row * groups * 4, add, some)
    }
  }

  /** With x in 8 bits: panels of one or of four rows. */
  function dots(out: number, x: number, rows: number, weight: CpuWeight, add: number): void {
    const { source, depth, group, groups } = weight
    const wide = weight.dots === 'wide' ? 1 : 0
    const high = rows === 1 ? 1 : 4
    const packed = Math.ceil(rows / high) * high
    const bytes = device.room('bytes', (packed * depth) << wide)
    const factors = device.room('factors', (packed * depth) / 8)
    const sums = device.room('sums', packed * groups * 4)
    const spread = device.roomPerThread('spread', depth * 8)
    const strips = Math.ceil(weight.rows / 8)
    const some = Math.max(1, Math.ceil(strips / (device.threads * 8)))
    device.run(
      'quantizeRows',
      rows * depth,
      ...[bytes, factors, sums, x, rows, depth, group, high, wide],
    )
    device.run(
      'dots',
      (rows * depth * weight.rows) / 2,
      ...[out, weight.rows * 4, bytes, factors, sums, rows, source, add, some, high, wide],
      ...[spread.at, spread.each],
    )
  }

  return {
    load: (matrix, options = {}) => loadWeight(device, matrix, options),
    unload: (weight) => unloadWeight(device, weight),
    matmul(target, input, handle, { accumulate = false } = {}) {
      const weight = ownWeight(handle)
      const rows = input.rows
      const x = expect(input, rows, weight.columns, 'x')
      const out = expect(target, rows, weight.rows, 'out')
      if (rows === 0) return
      const left = arrange(x.at, rows, weight)
      if (weight.dots) {
        dots(out.at, left, rows, weight, accumulate ? 1 : 0)
        return
      }
      if (rows <= (weight.kind.startsWith('table') ? 1 : FEW_ROWS)) {
        few(out.at, left, rows, weight, accumulate ? 1 : 0)
        return
      }
      const { source, depth } = weight
      product(device, {
        ...{ out: out.at, outStride: weight.rows * 4, left, leftStride: depth * 4, rows },
        ...{ source, columns: weight.rows, depth, accumulate },
      })
    },
    gather(target, handle, rows) {
      const weight = ownWeight(handle)
      const count = rows?.length ?? weight.rows
      const out = expect(target, count, weight.columns, 'out')
      const highest = rows?.reduce((most, row) => Math.max(most, row), 0) ?? 0
      if (highest >= weight.rows) {
        throw new LowbitError('bad-shape', `row ${highest} of a weight of ${weight.rows} rows`)
      }
      // Neighbours are taken strip by strip, so that each is decoded once.
      const from = rows?.[0] ?? 0
      const together = from % 8 === 0 && (rows?.every((row, i) => row === from + i) ?? true)
      let indices = 0
      if (rows && !together) {
        indices = device.room('indices', rows.length * 4)
        memory.u32.set(rows, indices / 4)
      }
      const scratch = device.roomPerThread('gathered', 64 * 8 * 4)
      const { columns, source, map, factors } = weight
      const work = count * columns
      device.run(
        'gather',
        work,
        ...[out.at, columns, source, indices, from, count, map, factors, scratch.at, scratch.each],
      )
    },
  }
}

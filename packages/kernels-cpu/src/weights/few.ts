/** x · Wᵀ for a few rows of x, without packing: part by part. */

import type { Device } from '../device.ts'
import type { CpuWeight } from './load.ts'

/**
 * Up to here rows go through the GEMV: one to four at a time, vectors one at a time, other codes that go through a
 * table decoded to panels for more than one row, once for each four.
 */
const FEW_ROWS = 5
const FEW_ROWS_OF_TABLES = 4

/** Two panels, as assembly/gemv-panel.ts has them. */
const ROOM = 2 * 256 * 32

export function isFew(rows: number, { parts }: CpuWeight): boolean {
  const plain = parts.every(({ kind }) => !/table|in$|out/.test(kind))
  return rows <= (plain ? FEW_ROWS : FEW_ROWS_OF_TABLES)
}

export function multiplyFew(
  device: Device,
  out: number,
  x: number,
  rows: number,
  weight: CpuWeight,
  add: number,
): void {
  const strips = Math.ceil(weight.rows / 8)
  const some = Math.max(1, Math.ceil(strips / (device.threads * 8)))
  const stride = weight.rows * 4
  const next = weight.depth * 4
  const scratch = device.roomPerThread('panel', ROOM)
  weight.parts.forEach(({ source, at, depth, group, groups, needsSums, direct }, part) => {
    const from = x + at * 4
    const sums = needsSums ? device.room('sums', rows * groups * 4) : 0
    if (sums) device.run('groupSums', 0, sums, from, next, rows, group, groups)
    // Vectors are walked again for each row: faster than writing panels and reading them.
    const most = direct ? 1 : 4
    for (let row = 0; row < rows; row += most) {
      const count = Math.min(most, rows - row)
      device.run(
        'gemv',
        weight.rows * depth * count,
        ...[out + row * stride, stride, from + row * next, next, count, source],
        ...[sums + row * groups * 4, part > 0 ? 1 : add, some, direct ? 1 : 0],
        ...[scratch.at, scratch.each],
      )
    }
  })
}

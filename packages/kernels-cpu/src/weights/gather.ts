/** Rows of a weight, decoded. */

import type { Device } from '../device.ts'
import type { CpuWeight } from './load.ts'
import { rotate } from './rotation.ts'
import type { LoadedRotation } from './terms.ts'

/** Two panels, as assembly/rows.ts has them. */
const ROOM = 2 * 256 * 32

/** out [count, columns]: the rows that `indices` name, or all. */
export function gatherRows(
  device: Device,
  out: number,
  weight: CpuWeight,
  indices: Uint32Array | undefined,
): void {
  const { rows, columns, terms } = weight
  if (!terms.output) {
    gatherStored(device, out, weight, indices, indices?.length ?? rows)
    return
  }
  const all = indices ?? Uint32Array.from({ length: rows }, (_, row) => row)
  let held = -1
  all.forEach((row, i) => {
    held = rotatedRow(device, out + i * columns * 4, weight, terms.output!, row, held)
  })
}

/** A row of Rᵀ·W from the rows of its block, which are decoded unless they are there (`held`). */
function rotatedRow(
  device: Device,
  out: number,
  weight: CpuWeight,
  { block, signs }: LoadedRotation,
  row: number,
  held: number,
): number {
  const { columns } = weight
  const first = Math.floor(row / block) * block
  const room = device.room('rotated rows', block * columns * 4)
  if (first !== held) {
    const rows = Uint32Array.from({ length: block }, (_, i) => first + i)
    gatherStored(device, room, weight, rows, block)
  }
  device.run('rotatedRow', 0, out, room, columns, block, signs, first, row)
  return first
}

/** Rows before the rotation of outputs. */
function gatherStored(
  device: Device,
  out: number,
  weight: CpuWeight,
  rows: Uint32Array | undefined,
  count: number,
): void {
  let indices = 0
  if (rows) {
    indices = device.room('indices', rows.length * 4)
    device.memory.u32.set(rows, indices / 4)
  }
  const scratch = device.roomPerThread('gathered', ROOM)
  const { columns, source, map, factors, terms } = weight
  const work = count * columns
  // Neighbours are taken strip by strip, so that each is decoded once.
  const from = rows?.[0] ?? 0
  const together = from % 8 === 0 && (rows?.every((row, i) => row === from + i) ?? true)
  device.run(
    'gather',
    work,
    ...[
      out,
      columns,
      source,
      together ? 0 : indices,
      from,
      count,
      map,
      factors,
      scratch.at,
      scratch.each,
    ],
  )
  const { bias, sparse, input } = terms
  if (bias || sparse) {
    const { starts = 0, columns: at = 0, values = 0 } = sparse ?? {}
    device.run('addRows', work, out, count, columns, indices, bias, starts, at, values)
  }
  if (input) rotate(device, out, out, count, columns, input, { back: true })
}

/** Rotations of activations and of decoded rows (assembly/terms.ts). */

import type { Device } from '../device.ts'
import type { LoadedRotation } from './terms.ts'

/** out (+)= R·x, or Rᵀ·x (`back`), for each row; out may be x where nothing is added. */
export function rotate(
  device: Device,
  out: number,
  x: number,
  rows: number,
  columns: number,
  { block, signs }: LoadedRotation,
  { back, add = false }: { back: boolean; add?: boolean },
): void {
  const scratch = device.roomPerThread('rotation', block * 4)
  device.run(
    'rotate',
    rows * columns * Math.log2(2 * block),
    ...[out, x, rows, columns, block, signs, back ? 1 : 0, add ? 1 : 0, scratch.at, scratch.each],
  )
}

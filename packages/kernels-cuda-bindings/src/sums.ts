/** Sums over what has one code, in an order that is always the same: see kernels/sums.cuh. */

import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf } from './tensors.ts'

/** As in kernels/sums.cuh. */
const THREADS = 256
/** Items of a stretch: more would leave a large GPU with too few blocks. */
const STRETCH = 8192
/** Numbers that sums of stretches may take. */
const ROOM = 2 ** 24

export interface SumSizes {
  readonly tables: number
  readonly entries: number
  /** Numbers that are summed for each code. */
  readonly values: number
  /** The most that a table has. */
  readonly items: number
}

/** out [tables · entries, values], summed by `kernel`. */
export function sumByCodes(
  device: Device,
  kernel: string,
  out: Span,
  args: Arguments,
  { tables, entries, values, items }: SumSizes,
): void {
  const size = tables * entries * values
  const wanted = Math.ceil(items / STRETCH)
  const stretches = Math.max(1, Math.min(wanted, Math.floor(ROOM / size)))
  const stretch = Math.ceil(items / stretches / THREADS) * THREADS
  const width = Math.min(THREADS, 2 ** Math.ceil(Math.log2(entries)))
  const tiles = Math.ceil(entries / THREADS)
  device.borrow(device.allocate(size * stretches * 8), (parts) => {
    const shape = { entries, tables, width, tiles, stretches, stretch }
    device.run(kernel, { ...args, ...shape, out: parts }, tables * tiles * stretches)
    device.run('add_stretches', { parts, out, count: size, stretches }, blocksOf(size))
  })
}

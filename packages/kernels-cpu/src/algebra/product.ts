/** Products of matrices through the packed GEMM (assembly/gemm.ts). */

import type { Device } from '../device.ts'

/**
 * Rows of the left side at a time, at most, so that a block of it stays in the second cache. Each block fills the
 * right side's panels again, so that a short one costs nearly as much as a long one.
 */
const ROWS = 600
/** Columns of a task, at most. */
const CHUNK = 64
/** k of a block, as in assembly/gemm.ts. */
const BLOCK = 256

const SHAPE = { full: 0, upper: 1, upperRight: 2 } as const

export interface Product {
  readonly out: number
  /** Bytes from row to row of out. */
  readonly outStride: number
  readonly left: number
  /** Bytes from row to row of the left side. */
  readonly leftStride: number
  /** The left side is there as [depth][rows]. */
  readonly leftTransposed?: boolean
  readonly rows: number
  /** Descriptor of the right side. */
  readonly source: number
  readonly columns: number
  readonly depth: number
  readonly factor?: number
  readonly accumulate?: boolean
  /**
   * `upper`: only out's upper triangle is wanted, in whole tiles; `upperRight`: the right side is
   * upper triangular, [k][n] = 0 for k > n.
   */
  readonly shape?: keyof typeof SHAPE
}

/** out (+)= factor · left · right. */
export function product(device: Device, what: Product): void {
  const { rows, columns, depth, factor = 1, shape = 'full' } = what
  if (rows === 0 || columns === 0) return
  const chunk = chunkFor(device, columns)
  const panels = device.roomPerThread('panels', (chunk + 8) * BLOCK * 4 + 192 + 64)
  const pack = what.leftTransposed ? 'packColumns' : 'packRows'
  const high = device.panelRows
  const block = Math.ceil(rows / Math.ceil(rows / ROWS) / high) * high
  for (let row = 0; row < rows; row += block) {
    const some = Math.min(block, rows - row)
    const packed = device.room('left', (some + high) * depth * 4)
    const left = what.left + row * (what.leftTransposed ? 4 : what.leftStride)
    device.run(pack, some * depth, packed, left, what.leftStride, some, depth, factor)
    device.run(
      'gemm',
      some * depth * columns,
      what.out + row * what.outStride,
      what.outStride,
      packed,
      some,
      what.source,
      columns,
      depth,
      what.accumulate ? 1 : 0,
      chunk,
      SHAPE[shape],
      row,
      panels.at,
      panels.each,
    )
  }
}

/** Smaller chunks where there would be too few for all threads; the results are the same. */
function chunkFor({ threads }: Device, columns: number): number {
  if (threads === 1) return CHUNK
  const even = Math.ceil(columns / (threads * 4) / 8) * 8
  return Math.max(16, Math.min(CHUNK, even))
}

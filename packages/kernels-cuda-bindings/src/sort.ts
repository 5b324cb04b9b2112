/** Sorts of words of 64 bits: see kernels/sort.cu. */

import type { Device, Span } from './driver/device.ts'
import { blocksOf } from './tensors.ts'

/** As in kernels/sort.cu. */
const CHUNK = 512

/** Sorts each segment of `size` words by itself; `size` is a power of two. */
export function sortSegments(device: Device, pairs: Span, segments: number, size: number): void {
  const count = segments * size
  const run = (kernel: string, begin: number, end: number, stride: number, blocks: number) =>
    device.run(kernel, { pairs, count, begin, end, size, stride }, blocks)
  const chunks = Math.ceil(count / CHUNK)
  run('sort_chunks', 2, Math.min(size, CHUNK), 0, chunks)
  for (let merged = CHUNK * 2; merged <= size; merged *= 2) {
    for (let stride = merged / 2; stride >= CHUNK; stride /= 2) {
      run('sort_across', merged, merged, stride, blocksOf(count / 2))
    }
    run('sort_chunks', merged, merged, 0, chunks)
  }
}

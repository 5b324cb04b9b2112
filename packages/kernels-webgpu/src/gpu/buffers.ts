/** Buffers of the device, in sizes that they can be used again for. */

import { LowbitError } from '@lowbit/core'

export interface Block {
  readonly buffer: GPUBuffer
  readonly size: number
  /** The batch of commands that used it last: what is written by the queue comes before a batch in the making. */
  batch: number
}

export interface Buffers {
  /**
   * At least so many bytes; what lies in them is left over from before. With `notIn` none that commands of that batch
   * use, so that the queue may write to it at once.
   */
  take(bytes: number, notIn?: number): Block
  give(block: Block): void
  /** Bytes that are given back and too many to keep, but that recorded commands may still use. */
  readonly doomed: number
  /** Frees them, once the commands are submitted. */
  sweep(): void
  clear(): void
}

/** Free blocks that are kept, in bytes. */
export const KEPT = 256 * 2 ** 20

export function createBuffers(device: GPUDevice): Buffers {
  const free = new Map<number, Block[]>()
  let kept = 0
  let doomed: Block[] = []
  let doomedBytes = 0
  return {
    take(bytes, notIn) {
      const size = sizeOf(bytes)
      const same = free.get(size) ?? []
      const place = same.findLastIndex(({ batch }) => batch !== notIn)
      const [found] = place < 0 ? [] : same.splice(place, 1)
      if (found) {
        kept -= size
        return found
      }
      if (size > device.limits.maxBufferSize) {
        throw new LowbitError(
          'out-of-memory',
          `the GPU's buffers hold ${device.limits.maxBufferSize} bytes at most, not ${size}`,
        )
      }
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST
      return { buffer: device.createBuffer({ size, usage }), size, batch: -1 }
    },
    give(block) {
      if (kept + block.size > KEPT) {
        doomed.push(block)
        doomedBytes += block.size
        return
      }
      kept += block.size
      const same = free.get(block.size)
      if (same) same.push(block)
      else free.set(block.size, [block])
    },
    get doomed() {
      return doomedBytes
    },
    sweep() {
      for (const { buffer } of doomed) buffer.destroy()
      doomed = []
      doomedBytes = 0
    },
    clear() {
      this.sweep()
      for (const blocks of free.values()) for (const { buffer } of blocks) buffer.destroy()
      free.clear()
      kept = 0
    },
  }
}

/** A quarter of a power of two, so that blocks are found again and at most a quarter is wasted. */
function sizeOf(bytes: number): number {
  const step = 2 ** Math.max(8, Math.ceil(Math.log2(Math.max(1, bytes))) - 3)
  return Math.max(256, Math.ceil(bytes / step) * step)
}

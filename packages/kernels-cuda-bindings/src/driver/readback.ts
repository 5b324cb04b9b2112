/** Reading back without blocking Node's thread: into memory that the driver can write to while others run. */

import { LowbitError } from '@lowbit/core'
import koffi from 'koffi'
import type { Driver } from './driver.ts'
import type { Span } from './memory.ts'

/** The last copy has not arrived yet. */
const NOT_READY = 600
/** More is copied through the driver's own buffers, waiting. */
const MOST = 64 * 2 ** 20
/** Of a block of pinned memory; each is kept for later, by its size. */
const LEAST = 4096

interface Block {
  readonly size: number
  readonly memory: unknown
  readonly bytes: Uint8Array
  readonly event: unknown
}

export interface Readback {
  /** What is there when it is called, once all that was queued before is through. */
  read(from: Span, into: ArrayBufferView): Promise<void>
  end(): void
}

/** `enter` makes the GPU the current one, or throws where it is given up. */
export function createReadback(driver: Driver, stream: unknown, enter: () => void): Readback {
  const idle = new Map<number, Block[]>()
  const all: Block[] = []
  const doing = 'reading back'

  function take(bytes: number): Block {
    const size = Math.max(LEAST, 2 ** Math.ceil(Math.log2(bytes)))
    const kept = idle.get(size)?.pop()
    if (kept) return kept
    const event = driver.get('cuEventCreate', doing, 0)
    const memory = driver.get('cuMemHostAlloc', doing, size, 0)
    const block = { size, memory, bytes: new Uint8Array(koffi.view(memory, size)), event }
    all.push(block)
    return block
  }

  async function arrived(event: unknown): Promise<void> {
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve))
      enter()
      const result = driver.attempt('cuEventQuery', event)
      if (result === 0) return
      // Asked again where it went wrong, so that the error is named.
      if (result !== NOT_READY) driver.call('cuEventQuery', doing, event)
    }
  }

  async function readPinned({ address, bytes }: Span, into: Uint8Array): Promise<void> {
    const block = take(bytes)
    try {
      driver.call('cuMemcpyDtoHAsync_v2', doing, block.memory, address, bytes, stream)
      driver.call('cuEventRecord', doing, block.event, stream)
      await arrived(block.event)
      into.set(block.bytes.subarray(0, bytes))
    } finally {
      const others = idle.get(block.size)
      if (others) others.push(block)
      else idle.set(block.size, [block])
    }
  }

  return {
    async read(from, into) {
      const { buffer, byteOffset, byteLength } = into
      if (from.bytes > byteLength) {
        throw new LowbitError('bad-shape', `${from.bytes} bytes are read into ${byteLength}`)
      }
      if (from.bytes === 0) return
      if (from.bytes <= MOST) {
        await readPinned(from, new Uint8Array(buffer, byteOffset, byteLength))
        return
      }
      driver.call('cuMemcpyDtoHAsync_v2', doing, into, from.address, from.bytes, stream)
      driver.call('cuStreamSynchronize', 'waiting for the GPU', stream)
    },
    end() {
      for (const { memory, event } of all) {
        driver.attempt('cuMemFreeHost', memory)
        driver.attempt('cuEventDestroy_v2', event)
      }
    },
  }
}

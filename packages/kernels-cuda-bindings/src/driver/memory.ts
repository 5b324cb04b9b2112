/** Memory of the device: spans, kept by their size when they are given back, so that they are used again. */

import { LowbitError } from '@lowbit/core'
import type { Driver } from './driver.ts'

export interface Span {
  readonly address: number
  readonly bytes: number
}

export interface Memory {
  /** Bytes held by spans now. */
  readonly held: number
  allocate(bytes: number): Span
  release(span: Span): void
  /** Gives everything back to the driver. */
  end(): void
}

/** What is kept for later at most; beyond it the driver gets it back. */
const KEPT = 256 * 2 ** 20

/**
 * A span that is given back may be in use by kernels that are still to run: what gets it next runs after them, on the
 * same stream. Of idle spans the one with the lowest address is taken, so that the same calls find the same spans.
 * `beforeFreeing` brings what uses idle spans onto the stream, before the driver gets them back.
 */
export function createMemory(driver: Driver, limit: number, beforeFreeing: () => void): Memory {
  const idle = new Map<number, number[]>()
  const all = new Set<number>()
  let held = 0
  let kept = 0

  function flush(): void {
    beforeFreeing()
    for (const address of [...idle.values()].flat()) {
      driver.call('cuMemFree_v2', 'freeing memory', address)
      all.delete(address)
    }
    idle.clear()
    kept = 0
  }

  function takeLowest(size: number): number | undefined {
    const found = idle.get(size)
    if (!found || found.length === 0) return undefined
    const lowest = found.reduce((least, address) => Math.min(least, address))
    found.splice(found.indexOf(lowest), 1)
    kept -= size
    return lowest
  }

  function fresh(bytes: number): number {
    const doing = `allocating ${bytes} bytes`
    try {
      return Number(driver.get('cuMemAlloc_v2', doing, bytes))
    } catch (error) {
      if (!(error instanceof LowbitError && error.code === 'out-of-memory') || kept === 0) {
        throw error
      }
      flush()
      return Number(driver.get('cuMemAlloc_v2', doing, bytes))
    }
  }

  return {
    get held() {
      return held
    },
    allocate(bytes) {
      if (held + bytes > limit) {
        throw new LowbitError(
          'out-of-memory',
          `${held + bytes} bytes are needed on the GPU, and the limit is ${limit}`,
        )
      }
      // A tensor without elements still has an address.
      const size = Math.max(bytes, 4)
      const address = takeLowest(size)
      const at = address ?? fresh(size)
      all.add(at)
      held += bytes
      return { address: at, bytes }
    },
    release({ address, bytes }) {
      const size = Math.max(bytes, 4)
      held -= bytes
      kept += size
      const others = idle.get(size)
      if (others) others.push(address)
      else idle.set(size, [address])
      if (kept > KEPT) flush()
    },
    end() {
      for (const address of all) driver.attempt('cuMemFree_v2', address)
      all.clear()
      idle.clear()
    },
  }
}

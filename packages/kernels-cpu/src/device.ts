/** What every operation is built from: memory, calls on all threads, and room to work in. */

import type { Memory } from './memory.ts'
import type { Threads } from './threads.ts'

export interface Device {
  readonly memory: Memory
  readonly threads: number
  /** Whether the module is the one with relaxed SIMD. */
  readonly relaxed: boolean
  /** Whether two operations of 128 bits become one (wide.ts). */
  readonly wide: boolean
  /** Whether products of bytes are best summed in 32 bits at once (assembly/dots-narrow.ts). */
  readonly longSums: boolean
  /** Rows of a packed panel (assembly/tile.ts). */
  readonly panelRows: number
  /**
   * Calls an export. `work` is roughly its multiplications: below some tens of thousands waking
   * others costs more than it saves.
   */
  run(name: string, work: number, ...args: number[]): number
  /** Room kept from call to call under a name, at least so many bytes; its content may be anything. */
  room(name: string, bytes: number): number
  /** The same for each thread. */
  roomPerThread(name: string, bytes: number): { at: number; each: number }
  /** Memory that is never given back, for what is made once. */
  keep(bytes: number): number
  /** Bytes of all that, which nobody asked for. */
  readonly rooms: number
}

const SMALL = 50_000

/** Four products of 255 and 127, in pairs that stop at 32,767. */
const SATURATED = 2 * 32_767

export function createDevice(memory: Memory, threads: Threads, relaxed: boolean): Device {
  const rooms = new Map<string, { at: number; bytes: number }>()
  let total = 0

  function room(name: string, bytes: number): number {
    const old = rooms.get(name)
    if (old && old.bytes >= bytes) return old.at
    if (old) {
      memory.release(old.at)
      rooms.delete(name)
      total -= old.bytes
    }
    const at = memory.allocate(bytes)
    rooms.set(name, { at, bytes })
    total += bytes
    return at
  }

  return {
    memory,
    threads: threads.count,
    relaxed,
    wide: threads.wide,
    longSums: relaxed && threads.call('longProbe', false, [255, 127]) !== SATURATED,
    panelRows: threads.call('panelRows', false, []),
    run: (name, work, ...args) => threads.call(name, work > SMALL, args),
    room,
    roomPerThread(name, bytes) {
      const each = Math.ceil(bytes / 64) * 64
      return { at: room(name, each * threads.count), each }
    },
    keep(bytes) {
      total += bytes
      return memory.allocate(bytes)
    },
    get rooms() {
      return total
    },
  }
}

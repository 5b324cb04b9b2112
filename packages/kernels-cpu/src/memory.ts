/** Blocks of one linear memory: a best-fit list of free blocks, joined with their neighbours. */

import { LowbitError } from '@lowbit/core'

const PAGE = 65536
/** Below it: the control block (threads.ts), the passing descriptors and the module's constants. */
const BASE = PAGE
const ALIGNMENT = 64
/** Vector loads may run past the end of a block by less than this. */
const SLACK = 16
/** wasm32 ends here. */
const LARGEST = 4 * 2 ** 30
/** The memory grows by at least this. */
const GROWTH = 16 * 2 ** 20

export interface Memory {
  readonly memory: WebAssembly.Memory
  /** Address of a new block of undefined content, 64-byte aligned. */
  allocate(bytes: number): number
  release(address: number): void
  /** Bytes asked for and not released. */
  readonly held: number
  readonly f32: Float32Array
  readonly f64: Float64Array
  readonly u8: Uint8Array
  readonly u16: Uint16Array
  readonly i32: Int32Array
  readonly u32: Uint32Array
}

interface Views {
  buffer: ArrayBufferLike
  f32: Float32Array
  f64: Float64Array
  u8: Uint8Array
  u16: Uint16Array
  i32: Int32Array
  u32: Uint32Array
}

/** `limit` in bytes, 4 GiB at most. */
export function createMemory(shared: boolean, limit: number): Memory {
  const maximum = Math.max(4, Math.floor(Math.min(limit, LARGEST) / PAGE))
  const memory = new WebAssembly.Memory({ initial: 4, maximum, shared })
  /** Free blocks in the order of their addresses. */
  const free: { at: number; size: number }[] = []
  const blocks = new Map<number, { size: number; asked: number }>()
  let end = BASE
  let held = 0
  let views: Views | undefined

  // Growing detaches an unshared buffer and leaves a shared one short: views are made anew.
  function current(): Views {
    const buffer = memory.buffer
    if (views?.buffer !== buffer) {
      views = {
        buffer,
        f32: new Float32Array(buffer),
        f64: new Float64Array(buffer),
        u8: new Uint8Array(buffer),
        u16: new Uint16Array(buffer),
        i32: new Int32Array(buffer),
        u32: new Uint32Array(buffer),
      }
    }
    return views
  }

  function refuse(bytes: number): never {
    throw new LowbitError(
      'out-of-memory',
      `no room for ${bytes} bytes: ${held} of ${maximum * PAGE} bytes are in use`,
    )
  }

  function allocate(bytes: number): number {
    if (!(bytes >= 0)) refuse(bytes)
    const size = Math.ceil((bytes + SLACK) / ALIGNMENT) * ALIGNMENT
    let best = -1
    for (let i = 0; i < free.length; i++) {
      if (free[i].size < size) continue
      if (best < 0 || free[i].size < free[best].size) best = i
      if (free[best].size === size) break
    }
    let at: number
    if (best >= 0) {
      const block = free[best]
      at = block.at
      if (block.size === size) free.splice(best, 1)
      else {
        block.at += size
        block.size -= size
      }
    } else {
      at = end
      extend(at + size, bytes)
      end = at + size
    }
    blocks.set(at, { size, asked: bytes })
    held += bytes
    return at
  }

  function extend(to: number, bytes: number): void {
    const now = memory.buffer.byteLength
    if (to <= now) return
    if (to > maximum * PAGE) refuse(bytes)
    const wanted = Math.min(maximum, Math.ceil(Math.max(to, now + GROWTH) / PAGE))
    for (const pages of [wanted, Math.ceil(to / PAGE)]) {
      try {
        memory.grow(pages - now / PAGE)
        return
      } catch {
        // The host may refuse what the limit allows; then try just what is needed.
      }
    }
    refuse(bytes)
  }

  function release(at: number): void {
    const block = blocks.get(at)
    if (!block) throw new LowbitError('freed', `nothing is allocated at ${at}`)
    blocks.delete(at)
    held -= block.asked
    let low = 0
    let high = free.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (free[middle].at < at) low = middle + 1
      else high = middle
    }
    free.splice(low, 0, { at, size: block.size })
    join(low)
    if (low > 0) join(low - 1)
    const last = free.at(-1)
    if (last && last.at + last.size === end) {
      end = last.at
      free.pop()
    }
  }

  /** Joins free block i with the next where they touch. */
  function join(i: number): void {
    const block = free[i]
    const next = free[i + 1]
    if (!next || block.at + block.size !== next.at) return
    block.size += next.size
    free.splice(i + 1, 1)
  }

  return {
    memory,
    allocate,
    release,
    get held() {
      return held
    },
    get f32() {
      return current().f32
    },
    get f64() {
      return current().f64
    },
    get u8() {
      return current().u8
    },
    get u16() {
      return current().u16
    },
    get i32() {
      return current().i32
    },
    get u32() {
      return current().u32
    },
  }
}

/** Blocks of memory that belong together: if one cannot be had, none is kept. */

import type { Memory } from '../memory.ts'
import type { LoadedTable } from './tables.ts'

export interface Collection {
  readonly releases: (() => void)[]
  readonly bytes: number
  /** A block of so many bytes; loads may run past it by `overread`. */
  add(bytes: number, overread?: number): number
  floats(values: Float32Array): number
  words(values: Uint32Array | Int32Array): number
  bytesOf(values: Uint8Array): number
  table(table: LoadedTable): number
  drop(): void
}

export function collect(memory: Memory): Collection {
  const releases: (() => void)[] = []
  let bytes = 0
  function add(size: number, overread = 0): number {
    const at = memory.allocate(size + overread)
    releases.push(() => memory.release(at))
    bytes += size
    return at
  }
  return {
    releases,
    get bytes() {
      return bytes
    },
    add,
    floats(values) {
      const at = add(values.byteLength, 32)
      memory.f32.set(values, at / 4)
      return at
    },
    words(values) {
      const at = add(values.byteLength)
      memory.u32.set(values, at / 4)
      return at
    },
    bytesOf(values) {
      const at = add(values.byteLength)
      memory.u8.set(values, at)
      return at
    },
    table(table) {
      releases.push(table.release)
      bytes += table.bytes
      return table.at
    },
    drop() {
      for (const release of releases.splice(0)) release()
    },
  }
}

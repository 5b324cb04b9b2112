/** Tables in the memory of the kernels; those that several weights share are there once. */

import type { Device } from '../device.ts'
import { packIntegers, packTable } from './pack.ts'
import type { TableValues } from './plan.ts'

export interface LoadedTable {
  readonly at: number
  /** Bytes that it took; none where it was there. */
  readonly bytes: number
  release(): void
}

interface Shared {
  readonly values: TableValues
  readonly pitch: number
  readonly at: number
  uses: number
}

/** Loads past a table's end read this much. */
const OVERREAD = 64

export interface TableStore {
  /** Entries of `length` floats, each padded to `pitch` bytes. */
  vectors(values: TableValues, length: number, pitch: number, shared: boolean): LoadedTable
  /** Tables of a container of so many bits. */
  scalars(values: TableValues, bits: number): LoadedTable
  /** Tables of up to 16 values in integers (assembly/table-dots.ts). */
  integers(values: TableValues): LoadedTable
}

export function tableStore(device: Device): TableStore {
  const { memory } = device
  const shared = new Set<Shared>()

  function vectors(table: TableValues, length: number, pitch: number, isShared: boolean) {
    if (isShared) {
      for (const one of shared) {
        if (one.pitch !== pitch || !same(one.values, table)) continue
        one.uses++
        return { at: one.at, bytes: 0, release: () => release(one) }
      }
    }
    const { values, factors, count, entries } = table
    const bytes = count * entries * pitch
    const at = memory.allocate(bytes + OVERREAD)
    const room = device.room('table values', (values.length + count) * 4)
    memory.f32.set(values, room / 4)
    if (factors) memory.f32.set(factors, room / 4 + values.length)
    const scale = factors ? room + values.length * 4 : 0
    device.run('padEntries', values.length, at, room, scale, count, entries, length, pitch)
    if (!isShared) return { at, bytes, release: () => memory.release(at) }
    const one = { values: table, pitch, at, uses: 1 }
    shared.add(one)
    return { at, bytes, release: () => release(one) }
  }

  function release(one: Shared): void {
    if (--one.uses > 0) return
    shared.delete(one)
    memory.release(one.at)
  }

  function packed(
    { values, factors, count, entries }: TableValues,
    size: number,
    pack: (table: Float32Array) => Float32Array,
  ): LoadedTable {
    const at = memory.allocate(count * size * 4)
    for (let table = 0; table < count; table++) {
      const factor = factors?.[table] ?? 1
      const part = values.slice(table * entries, (table + 1) * entries).map((v) => v * factor)
      memory.f32.set(pack(part), at / 4 + table * size)
    }
    return { at, bytes: count * size * 4, release: () => memory.release(at) }
  }

  return {
    vectors,
    scalars: (values, bits) =>
      packed(values, bits === 8 ? 256 : 16, (table) => packTable(table, bits)),
    integers: (values) => packed(values, 16, packIntegers),
  }
}

/** Readers may make the numbers of a shared table anew for each matrix. */
function same(a: TableValues, b: TableValues): boolean {
  if (a.entries !== b.entries || a.count !== b.count) return false
  return equal(a.values, b.values) && equal(a.factors, b.factors)
}

function equal(a: Float32Array | undefined, b: Float32Array | undefined): boolean {
  if (a === b) return true
  if (!a || !b || a.length !== b.length) return false
  return a.every((value, i) => value === b[i])
}

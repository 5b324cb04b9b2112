/** Parts of a weight in the memory of the kernels: codes, scales and tables of a stage. */

import { LowbitError } from '@lowbit/core'
import type { Device } from '../device.ts'
import type { Collection } from './collection.ts'
import { packScales } from './pack.ts'
import type { Part } from './plan.ts'
import { type Kind, SOURCE_BYTES, type Source, writeSource } from './source.ts'
import type { TableStore } from './tables.ts'

export interface LoadedPart {
  readonly kind: Kind
  /** Its descriptor. */
  readonly source: number
  /** Its first packed column, and how many. */
  readonly at: number
  readonly depth: number
  readonly group: number
  readonly groups: number
  /** Where its tables are, or 0. */
  readonly table: number
  /** Whether it needs the sums of x over groups. */
  readonly needsSums: boolean
  /** Whether one row of x can walk along its vectors (assembly/gemv-codebook.ts). */
  readonly direct: boolean
}

export function loadPart(
  device: Device,
  own: Collection,
  tables: TableStore,
  part: Part,
  rows: number,
): LoadedPart {
  const { kind, segment, vector, depth, center, scales, offsets, stage } = part
  const source = own.add(SOURCE_BYTES)
  const { data, stride } = loadCodes(device, own, part, rows)
  const { groups } = segment
  // The last vector may be longer than what is left of the columns.
  const group = groups === 1 ? depth : segment.padded
  const unit: [number, number] =
    kind === 'out' ? [vector.length, Math.ceil(vector.length / 4) * 4] : [8, 8]
  const perRow = (values: Float32Array | undefined): number =>
    values ? own.floats(packScales(values, rows, groups, ...unit)) : 0
  const table = loadTables(own, tables, part)
  const description: Source = {
    ...{ kind, data, stride, rows, depth, group, groups, center, vector },
    ...{ scales: perRow(scales), offsets: perRow(offsets) },
    ...(part.tables && { tables: part.tables, table }),
  }
  writeSource(device.memory, description, source)
  const isVector = kind === 'in' || kind === 'out'
  return {
    ...{ kind, source, at: segment.at, depth, group, groups, table },
    needsSums: !isVector && (offsets !== undefined || center !== 0),
    direct: isVector && !offsets && (kind === 'out' || walks(part, stage.vector.length)),
  }
}

/** Entries of one and two weights fill a register together, inside a group. */
function walks({ segment, vector }: Part, length: number): boolean {
  if (vector.pitch > 32) return false
  return segment.groups === 1 || length > 2 || segment.padded % 4 === 0
}

function loadTables(own: Collection, store: TableStore, part: Part): number {
  const { table, tables, vector, kind, stage } = part
  if (!table || !tables) return 0
  const isVector = kind === 'in' || kind === 'out'
  const isShared = 'shared' in stage.grid && stage.grid.shared !== undefined
  const loaded = isVector
    ? store.vectors(table, vector.length, vector.pitch, isShared)
    : store.scalars(table, Number(kind.slice(-1)))
  return own.table(loaded) + table.first * tables.bytes
}

/** The tables once more, in integers: bytes from the part's tables to them. */
export function loadIntegers(
  own: Collection,
  store: TableStore,
  { table, tables }: Part,
  { table: at }: LoadedPart,
): number {
  if (!table || !tables) return 0
  return own.table(store.integers(table)) + table.first * tables.bytes - at
}

/** Repacked by the kernels from the stream of bits (assembly/unpack.ts). */
function loadCodes(device: Device, own: Collection, part: Part, rows: number) {
  const { memory } = device
  const { segment, width, first, kind, vector, vectors, depth } = part
  const { bits, data: stream } = part.stage.codes
  const { length, wide } = vector
  const { group, padded } = segment
  const columns = segment.to - segment.from
  const strips = Math.ceil(rows / 8)
  const units = kind === 'out' ? vectors : strips
  const across = kind === 'in' ? Math.ceil(width / length) : width
  checkStream(part, (kind === 'out' ? vectors : rows) * across)
  const container = Number(kind.slice(-1))
  const perUnit = kind === 'out' ? depth * wide : kind === 'in' ? vectors * 8 * wide : 0
  const stride = perUnit || depth * container
  const data = own.add(units * stride)
  const room = device.room('stream', stream.length + 8)
  memory.u8.set(stream, room)
  const highest = device.room('highest', units * 4)
  const work = rows * columns
  const start = [data, stride, room, bits]
  if (kind === 'out') {
    const where = [vectors, across, first, columns, wide, group, padded, highest]
    device.run('unpackOut', work, ...start, ...where)
  } else if (kind === 'in') {
    const some = Math.ceil(columns / length)
    const groups = length > 1 ? [some, some] : [group, padded]
    const where = [rows, across, first / length, some, wide, ...groups, highest]
    device.run('unpackIn', work, ...start, ...where)
  } else {
    const where = [rows, across, first, columns, container, group, padded, highest]
    device.run('unpackScalars', work, ...start, ...where)
  }
  for (const code of memory.u32.subarray(highest / 4, highest / 4 + units)) {
    if (code < part.levels) continue
    throw new LowbitError(
      'bad-code',
      `code ${code} means nothing in a grid of ${part.levels} values`,
    )
  }
  return { data, stride }
}

function checkStream({ stage: { codes } }: Part, count: number): void {
  const bytes = Math.ceil((count * codes.bits) / 8)
  if (codes.count === count && codes.data.length >= bytes) return
  throw new LowbitError(
    'bad-codes',
    `${count} codes of ${codes.bits} bits are needed, not ${codes.count} in ${codes.data.length} bytes`,
  )
}

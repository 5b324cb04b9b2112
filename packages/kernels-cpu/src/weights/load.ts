/** Weights in the memory of the kernels. */

import {
  type DenseMatrix,
  decode,
  isQuantized,
  type LoadOptions,
  LowbitError,
  type Matrix,
  type QuantizedMatrix,
  toFloat32,
  type Weight,
} from '@lowbit/core'
import type { Device } from '../device.ts'
import { type Collection, collect } from './collection.ts'
import { columnMap } from './pack.ts'
import { type LoadedPart, loadIntegers, loadPart } from './parts.ts'
import { hasFewValues, type Part, type Plan, planWeight } from './plan.ts'
import { SOURCE_BYTES, writeSource } from './source.ts'
import type { TableStore } from './tables.ts'
import { loadTerms, nameTerms, type Terms } from './terms.ts'

export interface CpuWeight extends Weight {
  /** What a GEMV runs one after the other. */
  readonly parts: readonly LoadedPart[]
  /** Descriptor of all of them, for panels. */
  readonly source: number
  /** Columns as packed. */
  readonly depth: number
  /** Input feature of each packed column, as i32, or 0. */
  readonly map: number
  /** A factor for each input feature, or 0. */
  readonly factors: number
  readonly terms: Terms
  /** How it meets 8-bit activations, if it does. */
  readonly dots?: 'narrow' | 'wide' | 'table'
  /** Bytes from a part's tables to the same in integers, where dots are `table`. */
  readonly integers: number
  readonly releases: (() => void)[]
}

export function ownWeight(weight: Weight): CpuWeight {
  const own = weight as CpuWeight
  if (!own.releases?.length) {
    throw new LowbitError('bad-tensor', 'the weight was unloaded, or belongs to other kernels')
  }
  return own
}

export function loadWeight(
  device: Device,
  tables: TableStore,
  matrix: Matrix,
  options: LoadOptions,
): CpuWeight {
  if (!isQuantized(matrix)) {
    if (matrix.type !== 'f16' || finite(matrix.values as Uint16Array)) {
      return loadDense(device, matrix, matrix.type)
    }
    // The kernels' conversion knows no infinities and NaNs.
    const values = toFloat32('f16', matrix.values as Uint16Array)
    return loadDense(device, { ...matrix, type: 'f32', values }, 'f32: f16 is not finite')
  }
  const bytes = options.activations === 'int8'
  const plan = planWeight(matrix, { integers: bytes, tables: bytes && device.relaxed })
  if (typeof plan === 'string') {
    const { rows, columns } = matrix
    const dense: DenseMatrix = { rows, columns, type: 'f32', values: decode(matrix) }
    return loadDense(device, dense, `dense f32: no fused kernel for ${plan}`)
  }
  return loadParts(device, tables, matrix, plan, options)
}

/** A loop, since a call for each of a model's weights would take a second. */
function finite(halves: Uint16Array): boolean {
  for (let i = 0; i < halves.length; i++) {
    if ((halves[i] & 0x7c00) === 0x7c00) return false
  }
  return true
}

function loadDense(device: Device, matrix: DenseMatrix, variant: string): CpuWeight {
  const { memory } = device
  const { rows, columns, type, values } = matrix
  if (values.length !== rows * columns) {
    throw new LowbitError('bad-shape', `${values.length} values are not ${rows} × ${columns}`)
  }
  const halves = type !== 'f32'
  const size = halves ? 2 : 4
  const own = collect(memory)
  try {
    const source = own.add(SOURCE_BYTES)
    const data = own.add(Math.ceil(rows / 8) * 8 * columns * size)
    // Strip by strip through a small room, so that the matrix is never there twice.
    const part = Math.max(8, Math.floor(2 ** 22 / (columns * size) / 8) * 8)
    const room = device.room('stripe', Math.min(part, rows) * columns * size)
    for (let row = 0; row < rows; row += part) {
      const some = Math.min(part, rows - row)
      const piece = values.subarray(row * columns, (row + some) * columns)
      if (halves) memory.u16.set(piece, room / 2)
      else memory.f32.set(piece, room / 4)
      const out = data + row * columns * size
      device.run('stripe', some * columns, out, room, some, columns, halves ? 1 : 0)
    }
    const stride = columns * 8 * size
    writeSource(memory, { kind: type, data, stride, rows, depth: columns }, source)
    const whole: LoadedPart = {
      ...{ kind: type, source, at: 0, depth: columns, group: columns, groups: 1, table: 0 },
      ...{ needsSums: false, direct: false },
    }
    const { releases, bytes } = own
    return {
      ...{ rows, columns, bytes, variant, parts: [whole], source, depth: columns },
      ...{ map: 0, factors: 0, terms: { bias: 0 }, integers: 0, releases },
    }
  } catch (error) {
    own.drop()
    throw error
  }
}

function loadParts(
  device: Device,
  tables: TableStore,
  matrix: QuantizedMatrix,
  plan: Plan,
  options: LoadOptions,
): CpuWeight {
  const { rows, columns, order, columnScale } = matrix
  const { depth } = plan
  const own = collect(device.memory)
  try {
    const parts = plan.parts.map((part) => loadPart(device, own, tables, part, rows))
    const map = columnMap(plan, columns, order) ?? (columnScale && identity(columns))
    const factors = columnScale ? own.floats(columnScale.values) : 0
    const terms = loadTerms(own, matrix)
    const source = sumOf(device, own, parts, plan, rows)
    const [first] = plan.parts
    const reason = plan.parts.length === 1 ? whyNoDots(device, first) : 'int8 is for single stages'
    const dots = options.activations === 'int8' && !reason ? chooseDots(device, first) : undefined
    const names = [plan.parts.map(({ name }) => name).join(' + '), ...nameTerms(terms)].join(', ')
    const times = dots
      ? `${dots === 'wide' ? 'int16' : 'int8'}, ${dots} dot products`
      : `f32${options.activations === 'int8' ? ` (${reason})` : ''}`
    const integers = dots === 'table' ? loadIntegers(own, tables, first, parts[0]) : 0
    const place = map ? own.words(map) : 0
    const { releases, bytes } = own
    return {
      ...{ rows, columns, bytes, variant: `${names} × ${times}`, parts, source, depth },
      ...{ map: place, factors, terms, dots, integers, releases },
    }
  } catch (error) {
    own.drop()
    throw error
  }
}

const identity = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i)

/** The descriptor of all parts; of a single one its own. */
function sumOf(
  { memory }: Device,
  own: Collection,
  parts: readonly LoadedPart[],
  { depth }: Plan,
  rows: number,
): number {
  const [first] = parts
  if (parts.length === 1 && first.depth === depth) return first.source
  const source = own.add(SOURCE_BYTES)
  const data = own.words(Uint32Array.from(parts.flatMap(({ source, at }) => [source, at])))
  writeSource(memory, { kind: 'sum', data, stride: 0, rows, depth, groups: parts.length }, source)
  return source
}

/**
 * Activations have a factor for each 32 columns, so groups must be made of those. Bytes are
 * multiplied where the engine has the relaxed instruction and sums fit into 16 bits; elsewhere both
 * sides are 16 bits wide, and activations get them all.
 */
function chooseDots(device: Device, { kind }: Part): CpuWeight['dots'] {
  if (kind.startsWith('table')) return 'table'
  return device.relaxed && kind !== 'integer8' ? 'narrow' : 'wide'
}

function whyNoDots(device: Device, { kind, segment, table }: Part): string {
  if (kind === 'in' || kind === 'out') return 'vectors have no integers for int8'
  if (kind.startsWith('table')) {
    if (!hasFewValues(kind)) return 'a table of more than 16 values has no integers for int8'
    if (!device.relaxed) return 'a table needs relaxed SIMD for int8'
    if (!table?.values.every(Number.isFinite)) return 'a table with infinite values'
  }
  return segment.padded % 32 === 0 ? '' : 'int8 needs longer groups'
}

export function unloadWeight(weight: Weight): void {
  for (const release of ownWeight(weight).releases.splice(0)) release()
}

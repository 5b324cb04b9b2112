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
  unpackCodes,
  type Weight,
} from '@lowbit/core'
import type { Device } from '../device.ts'
import type { Memory } from '../memory.ts'
import { columnMap, packScales, packStrips, packTable, stripBytes } from './pack.ts'
import { type Plan, planWeight } from './plan.ts'
import { type Kind, SOURCE_BYTES, type Source, writeSource } from './source.ts'

export interface CpuWeight extends Weight {
  readonly kind: Kind
  /** Its descriptor. */
  readonly source: number
  /** Columns as packed. */
  readonly depth: number
  readonly group: number
  readonly groups: number
  readonly hasOffsets: boolean
  /** Input feature of each packed column, as i32, or 0. */
  readonly map: number
  /** A factor for each input feature, or 0. */
  readonly factors: number
  /** How it meets 8-bit activations, if it does. */
  readonly dots?: 'narrow' | 'wide'
  readonly blocks: number[]
}

export function ownWeight(weight: Weight): CpuWeight {
  const own = weight as CpuWeight
  if (!own.blocks?.length) {
    throw new LowbitError('bad-tensor', 'the weight was unloaded, or belongs to other kernels')
  }
  return own
}

export function loadWeight(device: Device, matrix: Matrix, options: LoadOptions): CpuWeight {
  if (!isQuantized(matrix)) {
    if (matrix.type !== 'f16' || matrix.values.every((half) => (half & 0x7c00) !== 0x7c00)) {
      return loadDense(device, matrix, matrix.type)
    }
    // The kernels' conversion knows no infinities and NaNs.
    const values = toFloat32('f16', matrix.values as Uint16Array)
    return loadDense(device, { ...matrix, type: 'f32', values }, 'f32: f16 is not finite')
  }
  const plan = planWeight(matrix, options.activations === 'int8')
  if (typeof plan === 'string') {
    const { rows, columns } = matrix
    const dense: DenseMatrix = { rows, columns, type: 'f32', values: decode(matrix) }
    return loadDense(device, dense, `dense f32: no fused kernel for ${plan}`)
  }
  return loadCodes(device, matrix, plan, options)
}

/** Blocks that belong together: if one cannot be had, none is kept. */
function collect(memory: Memory) {
  const blocks: number[] = []
  let bytes = 0
  return {
    blocks,
    get bytes() {
      return bytes
    },
    add(size: number): number {
      const at = memory.allocate(size)
      blocks.push(at)
      bytes += size
      return at
    },
    floats(values: Float32Array): number {
      const at = this.add(values.byteLength)
      memory.f32.set(values, at / 4)
      return at
    },
    drop(): void {
      for (const at of blocks.splice(0)) memory.release(at)
    },
  }
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
    const description: Source = {
      kind: type,
      data,
      stride: columns * 8 * size,
      rows,
      depth: columns,
    }
    writeSource(memory, description, source)
    const { blocks, bytes } = own
    return {
      ...{ rows, columns, bytes, variant, kind: type, source, depth: columns },
      ...{ group: columns, groups: 1, hasOffsets: false, map: 0, factors: 0, blocks },
    }
  } catch (error) {
    own.drop()
    throw error
  }
}

function loadCodes(
  device: Device,
  matrix: QuantizedMatrix,
  plan: Plan,
  options: LoadOptions,
): CpuWeight {
  const { memory } = device
  const { rows, columns, order, columnScale } = matrix
  const { bits, groups, padded, center } = plan
  const depth = groups * padded
  const own = collect(memory)
  try {
    const source = own.add(SOURCE_BYTES)
    const stride = stripBytes(bits, depth)
    const size = Math.ceil(rows / 8) * stride
    const data = own.add(size)
    memory.u8.fill(0, data, data + size)
    const codes = unpackCodes(matrix.stages[0].codes)
    packStrips(memory.u8.subarray(data, data + size), codes, rows, columns, plan)
    const scales = own.floats(packScales(plan.scales, rows, groups))
    const offsets = plan.offsets ? own.floats(packScales(plan.offsets, rows, groups)) : 0
    const table = plan.table ? own.floats(packTable(plan.table, bits)) : 0
    const columnOf = columnMap(columns, plan, order)
    const map = columnOf
      ? own.floats(new Float32Array(columnOf.buffer))
      : columnScale
        ? own.floats(new Float32Array(Int32Array.from({ length: columns }, (_, i) => i).buffer))
        : 0
    const factors = columnScale ? own.floats(columnScale.values) : 0
    const kind: Kind = `${plan.table ? 'table' : 'integer'}${bits}`
    writeSource(
      memory,
      { kind, data, stride, rows, depth, group: padded, groups, scales, offsets, center, table },
      source,
    )
    const { blocks, bytes } = own
    const dots = options.activations === 'int8' ? chooseDots(device, plan) : undefined
    const reason = options.activations === 'int8' && !dots ? ` (${whyNoDots(plan)})` : ''
    const variant = dots
      ? `${plan.name} × ${dots === 'narrow' ? 'int8' : 'int16'}, ${dots} dot products`
      : `${plan.name} × f32${reason}`
    return {
      ...{ rows, columns, bytes, variant, kind, source, depth },
      ...{
        group: padded,
        groups,
        hasOffsets: offsets !== 0 || center !== 0,
        map,
        factors,
        dots,
        blocks,
      },
    }
  } catch (error) {
    own.drop()
    throw error
  }
}

/**
 * Activations have a factor for each 32 columns, so groups must be made of those. Bytes are
 * multiplied where the engine has the relaxed instruction and sums fit into 16 bits; elsewhere both
 * sides are 16 bits wide, and activations get them all.
 */
function chooseDots(device: Device, plan: Plan): CpuWeight['dots'] {
  if (whyNoDots(plan)) return undefined
  return device.relaxed && plan.bits < 8 ? 'narrow' : 'wide'
}

function whyNoDots({ table, padded }: Plan): string {
  if (table) return 'a table has no integers for int8'
  return padded % 32 === 0 ? '' : 'int8 needs longer groups'
}

export function unloadWeight(device: Device, weight: Weight): void {
  for (const at of ownWeight(weight).blocks.splice(0)) device.memory.release(at)
}

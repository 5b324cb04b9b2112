/** Counts everything that is in a checkpoint, one matrix at a time. */

import {
  bitsPerWeight,
  type Checkpoint,
  isQuantized,
  type Matrix,
  type MatrixSize,
  measureMatrix,
  sharedTables,
} from '@lowbit/core'
import { describeMatrix } from './describe-matrix.ts'
import type { ReportedModule } from './report-file.ts'

export interface TensorReport {
  readonly module: string
  readonly shape: readonly number[]
  readonly kind: 'quantized' | 'dense' | 'vector' | 'other'
  readonly description: string
  /** Counted bits of one weight, without tables that it shares with other matrices. */
  readonly bits: number
  readonly bytes: number
  /** Names of the shared tables that it refers to, where there are any. */
  readonly sharedTables?: readonly string[]
  /** Where the folder has a report of how it was made. */
  readonly method?: string
  /** Share of the output's power, or of the weight's own, that is lost. */
  readonly error?: number
  readonly errorOf?: 'output' | 'weight'
}

/** A table that several matrices of the checkpoint refer to: stored once, counted once. */
export interface SharedTable {
  readonly name: string
  readonly bytes: number
  /** Modules of the matrices that refer to it. */
  readonly matrices: readonly string[]
}

export interface Inspection {
  readonly parameters: number
  /** Over the quantized matrices; over the linears of the blocks where nothing is quantized. */
  readonly bitsPerWeight: number
  /** Over every parameter. */
  readonly bitsPerParameter: number
  /** Bytes of each part that takes any. */
  readonly parts: Readonly<Record<string, number>>
  readonly tensors: readonly TensorReport[]
  readonly sharedTables: readonly SharedTable[]
}

const TYPE_BYTES = { f32: 4, f16: 2, bf16: 2 } as const

export async function inspectCheckpoint(
  checkpoint: Checkpoint,
  inBlocks: ReadonlySet<string>,
  reported: ReadonlyMap<string, ReportedModule> | undefined,
  onProgress: (done: number, total: number, module: string) => void,
  signal: AbortSignal,
): Promise<Inspection> {
  const tensors: TensorReport[] = []
  const parts: Record<string, number> = {}
  const counted = new Set<string>()
  const shared = new Map<string, { bytes: number; matrices: string[] }>()
  const add = (part: string, bytes: number): void => {
    if (bytes > 0) parts[part] = (parts[part] ?? 0) + bytes
  }
  const kinds = { quantized: { bits: 0, weights: 0 }, dense: { bits: 0, weights: 0 } }
  for (const [i, module] of checkpoint.modules.entries()) {
    signal.throwIfAborted()
    const matrix = await checkpoint.readMatrix(module)
    const size = sizeOf(matrix, counted)
    for (const [part, bits] of Object.entries(size)) if (part !== 'total') add(part, bits / 8)
    const kind = isQuantized(matrix) ? 'quantized' : 'dense'
    const weights = matrix.rows * matrix.columns
    if (kind === 'quantized' || inBlocks.has(module)) {
      kinds[kind].bits += size.total
      kinds[kind].weights += weights
    }
    const tables = isQuantized(matrix) ? sharedTables(matrix) : new Map<string, number>()
    for (const [name, bits] of tables) {
      const table = shared.get(name) ?? { bytes: bits / 8, matrices: [] }
      shared.set(name, table)
      table.matrices.push(module)
    }
    const own = sizeOf(matrix, new Set(tables.keys()))
    const made = reported?.get(module)
    tensors.push({
      module,
      shape: [matrix.rows, matrix.columns],
      kind,
      description: describeMatrix(matrix),
      bits: own.total / weights,
      bytes: own.total / 8,
      ...(tables.size > 0 && { sharedTables: [...tables.keys()] }),
      ...(made && { method: made.method, error: made.error, errorOf: made.errorOf }),
    })
    onProgress(i + 1, checkpoint.modules.length, module)
  }
  for (const vector of checkpoint.vectors) {
    const { type, values } = await checkpoint.readVector(vector)
    const bytes = values.length * TYPE_BYTES[type]
    add('vectors', bytes)
    const shape = [values.length]
    const bits = TYPE_BYTES[type] * 8
    tensors.push({ module: vector, shape, kind: 'vector', description: type, bits, bytes })
  }
  for (const name of checkpoint.rest) {
    const { dtype, shape, bytes } = await checkpoint.readRaw(name)
    add('other', bytes.length)
    const elements = shape.reduce((product, n) => product * n, 1)
    const bits = elements > 0 ? (bytes.length * 8) / elements : 0
    const description = dtype
    tensors.push({ module: name, shape, kind: 'other', description, bits, bytes: bytes.length })
  }
  const { bits, weights } = kinds.quantized.weights > 0 ? kinds.quantized : kinds.dense
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((n, x) => n * x, 1), 0)
  const tables = [...shared].map(([name, table]) => ({ name, ...table }))
  const stored = [...tensors, ...tables].reduce((sum, { bytes }) => sum + bytes, 0)
  return {
    parameters,
    bitsPerWeight: weights > 0 ? bits / weights : 0,
    bitsPerParameter: parameters > 0 ? (stored * 8) / parameters : 0,
    parts,
    tensors,
    sharedTables: tables,
  }
}

type Size = Partial<MatrixSize> & { readonly dense?: number; readonly total: number }

function sizeOf(matrix: Matrix, counted: Set<string>): Size {
  if (isQuantized(matrix)) return measureMatrix(matrix, counted)
  const dense = bitsPerWeight([matrix]) * matrix.rows * matrix.columns
  return { dense, total: dense }
}

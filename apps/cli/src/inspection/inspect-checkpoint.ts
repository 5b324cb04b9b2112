/** Counts everything that is in a checkpoint, one matrix at a time. */

import {
  bitsPerWeight,
  type Checkpoint,
  isQuantized,
  type Matrix,
  type MatrixSize,
  measureMatrix,
} from '@lowbit/core'
import { describeMatrix } from './describe-matrix.ts'

export interface TensorReport {
  readonly module: string
  readonly shape: readonly number[]
  readonly kind: 'quantized' | 'dense' | 'vector' | 'other'
  readonly description: string
  /** Counted bits of one weight. */
  readonly bits: number
  readonly bytes: number
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
}

const TYPE_BYTES = { f32: 4, f16: 2, bf16: 2 } as const

export async function inspectCheckpoint(
  checkpoint: Checkpoint,
  inBlocks: ReadonlySet<string>,
  onProgress: (done: number, total: number, module: string) => void,
  signal: AbortSignal,
): Promise<Inspection> {
  const tensors: TensorReport[] = []
  const parts: Record<string, number> = {}
  const counted = new Set<string>()
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
    tensors.push({
      module,
      shape: [matrix.rows, matrix.columns],
      kind,
      description: describeMatrix(matrix),
      bits: size.total / weights,
      bytes: size.total / 8,
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
  const stored = tensors.reduce((sum, { bytes }) => sum + bytes, 0)
  return {
    parameters,
    bitsPerWeight: weights > 0 ? bits / weights : 0,
    bitsPerParameter: parameters > 0 ? (stored * 8) / parameters : 0,
    parts,
    tensors,
  }
}

type Size = Partial<MatrixSize> & { readonly dense?: number; readonly total: number }

function sizeOf(matrix: Matrix, counted: Set<string>): Size {
  if (isQuantized(matrix)) return measureMatrix(matrix, counted)
  const dense = bitsPerWeight([matrix]) * matrix.rows * matrix.columns
  return { dense, total: dense }
}

/** A checkpoint in one layout → the same in another. */

import {
  type Checkpoint,
  type DenseMatrix,
  decode,
  type Entry,
  type Format,
  fromFloat32,
  isQuantized,
  type Matrix,
} from '@lowbit/core'
import { assemble, type Described, dropParts, type Folder, writePart } from '@lowbit/formats'
import { newConfig } from './new-config.ts'

export interface ConvertJob {
  readonly checkpoint: Checkpoint
  readonly format: Format
  readonly folder: Folder
  /** What quantized weights become in the dense layout. */
  readonly denseType: DenseMatrix['type']
  readonly maxShardBytes?: number
  readonly signal?: AbortSignal
  onProgress?(done: number, total: number, module: string): void
}

/** Bytes of entries that are gathered before they are written: bounds the memory, whatever the model's size. */
const PART_BYTES = 64 * 2 ** 20

export async function convertModel(job: ConvertJob): Promise<{ bytes: number }> {
  const { checkpoint, format, folder, signal } = job
  const parts: string[] = []
  const described: Record<string, Described[string]> = {}
  let entries: Entry[] = []
  let held = 0
  const flush = async (): Promise<void> => {
    if (entries.length === 0) return
    const part = `convert-${String(parts.length).padStart(5, '0')}`
    Object.assign(described, await writePart(folder, part, entries, format, signal))
    parts.push(part)
    entries = []
    held = 0
  }
  const total = checkpoint.modules.length
  for (const [i, module] of checkpoint.modules.entries()) {
    signal?.throwIfAborted()
    const matrix = await checkpoint.readMatrix(module)
    entries.push({
      module,
      matrix: format.name === 'dense' ? toDense(matrix, job.denseType) : matrix,
    })
    held += matrix.rows * matrix.columns * 2
    if (held >= PART_BYTES) await flush()
    job.onProgress?.(i + 1, total, module)
  }
  for (const vector of checkpoint.vectors) {
    entries.push({ vector, value: await checkpoint.readVector(vector) })
  }
  for (const tensor of checkpoint.rest) {
    entries.push({ tensor, raw: await checkpoint.readRaw(tensor) })
  }
  await flush()
  const config = newConfig(checkpoint.config, format, described)
  const bytes = await assemble({ folder, parts, config, maxShardBytes: job.maxShardBytes, signal })
  for (const name of checkpoint.files) {
    await folder.write(name, [await checkpoint.readFile(name)], signal)
  }
  await dropParts(folder, parts)
  return { bytes }
}

function toDense(matrix: Matrix, type: DenseMatrix['type']): DenseMatrix {
  if (!isQuantized(matrix)) return matrix
  const values = decode(matrix)
  const { rows, columns } = matrix
  return { rows, columns, type, values: type === 'f32' ? values : fromFloat32(type, values) }
}

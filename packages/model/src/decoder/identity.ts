/** Tells models apart by what they are, wherever their files lie. */

import { type Checkpoint, digest } from '@lowbit/core'

/** Samples of a tensor. */
const SAMPLES = 64

/** Passes a checkpoint on; the identity is that of config.json and a sample of every tensor that was read by then. */
export function observed(checkpoint: Checkpoint): {
  checkpoint: Checkpoint
  identity(): Promise<string>
} {
  const seen: unknown[] = [checkpoint.config]
  return {
    checkpoint: {
      ...checkpoint,
      async readMatrix(module) {
        const matrix = await checkpoint.readMatrix(module)
        seen.push(module, matrix.rows, matrix.columns, ...arraysIn(matrix).map(sample))
        return matrix
      },
      async readVector(tensor) {
        const vector = await checkpoint.readVector(tensor)
        seen.push(tensor, sample(vector.values))
        return vector
      },
    },
    identity: () => digest(new TextEncoder().encode(JSON.stringify(seen))),
  }
}

/** All arrays of numbers that a matrix is made of: codes, scales, tables. */
function arraysIn(value: unknown): ArrayLike<number>[] {
  if (ArrayBuffer.isView(value)) return [value as unknown as ArrayLike<number>]
  if (typeof value !== 'object' || value === null) return []
  return Object.values(value).flatMap(arraysIn)
}

const sample = (values: ArrayLike<number>): number[] => {
  const count = Math.min(SAMPLES, values.length)
  return Array.from({ length: count }, (_, i) => values[Math.floor((i * values.length) / count)])
}

/** What a weight is besides its codes (assembly/terms.ts), in the memory of the kernels. */

import type { QuantizedMatrix, Rotation, SparseEntries } from '@lowbit/core'
import type { Collection } from './collection.ts'

export interface Terms {
  /** One number for each input feature, or 0. */
  readonly bias: number
  readonly sparse?: LoadedEntries
  readonly input?: LoadedRotation
  readonly output?: LoadedRotation
}

/** Entries row by row: where each row starts (u32, one more than rows), columns (u32), values (f32). */
export interface LoadedEntries {
  readonly starts: number
  readonly columns: number
  readonly values: number
}

export interface LoadedRotation {
  readonly block: number
  readonly signs: number
}

export function loadTerms(own: Collection, matrix: QuantizedMatrix): Terms {
  const { columnBias, sparse, rotation } = matrix
  const load = (part: Rotation | undefined): LoadedRotation | undefined =>
    part && { block: part.block, signs: own.bytesOf(part.signs) }
  const [input, output] = [load(rotation?.input), load(rotation?.output)]
  return {
    bias: columnBias ? own.floats(columnBias.values) : 0,
    ...(sparse && sparse.values.values.length > 0 && { sparse: loadSparse(own, matrix, sparse) }),
    ...(input && { input }),
    ...(output && { output }),
  }
}

function loadSparse(
  own: Collection,
  { rows }: QuantizedMatrix,
  { rows: rowOf, columns, values }: SparseEntries,
): LoadedEntries {
  const count = values.values.length
  const starts = new Uint32Array(rows + 1)
  for (const row of rowOf) starts[row + 1]++
  for (let row = 0; row < rows; row++) starts[row + 1] += starts[row]
  const next = starts.slice()
  const sorted = { columns: new Uint32Array(count), values: new Float32Array(count) }
  for (let i = 0; i < count; i++) {
    const at = next[rowOf[i]]++
    sorted.columns[at] = columns[i]
    sorted.values[at] = values.values[i]
  }
  return {
    starts: own.words(starts),
    columns: own.words(sorted.columns),
    values: own.floats(sorted.values),
  }
}

/** In words: what the variant says besides the parts. */
export function nameTerms({ bias, sparse, input, output }: Terms): string[] {
  const rotated = input && output ? 'both sides' : input ? 'inputs' : 'outputs'
  return [
    ...(bias ? ['column bias'] : []),
    ...(sparse ? ['sparse entries'] : []),
    ...(input || output ? [`${rotated} rotated`] : []),
  ]
}

/** Entries of a checkpoint → tensors of a container. */

import {
  type Entry,
  type Format,
  isQuantized,
  type RawTensor,
  storeNumbers,
  tensorName,
} from '@lowbit/core'
import { dense } from '../layouts/dense.ts'

/** The tensors of one entry by full name. A dense matrix is stored densely whatever the layout. */
export function entryTensors(entry: Entry, format: Format): Map<string, RawTensor> {
  if ('tensor' in entry) return new Map([[entry.tensor, entry.raw]])
  if ('vector' in entry) {
    const { type, values } = entry.value
    const bytes = storeNumbers({ type, values })
    return new Map([[entry.vector, { dtype: type.toUpperCase(), shape: [values.length], bytes }]])
  }
  const layout = isQuantized(entry.matrix) ? format : dense
  const stored = layout.write(entry.module, entry.matrix)
  return new Map([...stored].map(([name, raw]) => [tensorName(entry.module, name), raw]))
}

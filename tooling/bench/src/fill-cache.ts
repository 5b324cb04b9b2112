/** A long past without reading one, which takes minutes. */

import { type Cache, seededRandom } from '@lowbit/core'
import type { Decoder } from '@lowbit/model'

const CHUNK = 256

/** Keys and values of no text: what they are does not change how long they take. */
export function fillCache({ kernels, config }: Decoder, cache: Cache, tokens: number): void {
  const { layers, keyValueHeads, headSize } = config
  const random = seededRandom(1)
  for (let from = 0; from < tokens; from += CHUNK) {
    const rows = Math.min(CHUNK, tokens - from)
    const width = keyValueHeads * headSize
    const values = Float32Array.from({ length: rows * width }, () => random() - 0.5)
    const some = kernels.upload(values, rows, width)
    for (let layer = 0; layer < layers; layer++) cache.append(layer, some, some)
    cache.advance(rows)
    kernels.free(some)
  }
}

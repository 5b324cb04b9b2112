/** Bits per weight → vectors and centroids. */

import type { VectorShape } from './options.ts'

/**
 * What scales of rows and columns and the shared table add on matrices of some hundred rows and columns; on
 * large ones it is less.
 */
const SCALES = 0.05

/** Long vectors lose less, and the search takes 2^bits steps a weight: no more than this many bits. */
const MOST_BITS = 13

/** The shape that comes closest to `bits` from below: its codes and its scales. */
export function shapeForBits(bits: number): VectorShape {
  let best = { length: 16, code: 4 }
  for (let code = 4; code <= MOST_BITS; code++) {
    for (let length = 2; length <= 16; length++) {
      const rate = code / length
      if (rate > bits - SCALES) continue
      const [old, oldCode] = [best.code / best.length, best.code]
      if (rate > old || (rate === old && code > oldCode)) best = { length, code }
    }
  }
  return { length: best.length, entries: 2 ** best.code }
}

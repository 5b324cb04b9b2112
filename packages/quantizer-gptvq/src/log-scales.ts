/** Scales in 4 bits in the log domain with an offset for each block of columns (GPTVQ, section 4.2). */

import {
  type Kernels,
  packCodes,
  type QuantizedNumbers,
  type Tensor,
  ternaryGrid,
  toNumbers,
} from '@lowbit/core'
import { LOG_BITS } from './options.ts'

/** A quarter of an octave: 16 steps reach down to a fourteenth of the largest. */
const STEP = 0.25
const LEVELS = 2 ** LOG_BITS

export interface LogScales {
  readonly stored: QuantizedNumbers
  /** [rows, blocks], decoded. */
  readonly values: Float32Array
}

/** Scales of the largest magnitude of each `width` columns of each row of weight [rows, columns]. */
export async function logScales(
  kernels: Kernels,
  weight: Tensor,
  width: number,
): Promise<LogScales> {
  const { rows } = weight
  const blocks = Math.ceil(weight.columns / width)
  const largest = kernels.tensor(rows, blocks)
  // On {−1, 0, 1} the scale that covers the range is the largest magnitude.
  kernels.fit(largest, undefined, weight, {
    ...{ grid: ternaryGrid(), blockRows: 1, blockColumns: width, asymmetric: false },
    ...{ search: { candidates: 1, step: 0 }, scaleType: 'f32' },
  })
  const found = await kernels.read(largest)
  kernels.free(largest)
  const table = toNumbers(
    'f16',
    Array.from({ length: LEVELS }, (_, i) => 2 ** (-STEP * i)),
  )
  const offsets = new Float32Array(blocks)
  for (let i = 0; i < found.length; i++) {
    offsets[i % blocks] = Math.max(offsets[i % blocks], found[i])
  }
  const scale = toNumbers('f16', offsets)
  scale.values.forEach((x, i) => {
    if (x === 0) scale.values[i] = 2 ** -24
  })
  const codes = new Uint8Array(found.length)
  const values = new Float32Array(found.length)
  for (let i = 0; i < found.length; i++) {
    const top = scale.values[i % blocks]
    const octaves = found[i] > 0 ? Math.log2(top / found[i]) : Number.POSITIVE_INFINITY
    codes[i] = Math.min(LEVELS - 1, Math.max(0, Math.round(octaves / STEP)))
    values[i] = top * table.values[codes[i]]
  }
  return {
    values,
    stored: {
      ...{ rows, columns: blocks, codes: packCodes(codes, LOG_BITS) },
      grid: { kind: 'lookup', entries: LEVELS, tables: table },
      scale: { blocks: { rows, columns: 1 }, values: scale },
    },
  }
}

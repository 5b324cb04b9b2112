/** Scales as they are stored, and what a code means with the stored scale. */

import { packCodes } from '../bits/stream.ts'
import { decodeNumbers } from '../matrix/decode.ts'
import { floatGrid, signedGrid } from '../matrix/grid.ts'
import type { Blocks, Numbers, NumberType, QuantizedNumbers, Scale } from '../matrix/types.ts'
import { encodeFloat, FLOAT_FORMATS } from '../numbers/float.ts'
import type { ScalarScheme } from './options.ts'

/** How many scales share one f32 in double quantization (QLoRA, section 3). */
const DOUBLE_BLOCK = 256

export interface StoredScale {
  readonly scale: Scale
  /** The values that the stored scale decodes to: what codes must be rounded with. */
  readonly values: Float32Array
}

/** Turns fitted scales ([blockRows × blockColumns], row-major) into what the scheme stores. */
export function storeScale(
  scheme: ScalarScheme,
  blocks: Blocks,
  fitted: Float32Array,
  blockRows: number,
  blockColumns: number,
): StoredScale {
  if (scheme.nested === 'none') {
    const values: Numbers = { type: scheme.fitType, values: fitted }
    return { scale: { blocks, values }, values: fitted }
  }
  const nested =
    scheme.nested === 'double'
      ? doubleQuantize(fitted, blockRows, blockColumns)
      : nvfp4Scales(fitted, blockRows, blockColumns)
  return { scale: { blocks, values: nested }, values: decodeNumbers(nested) }
}

/** 8 signed bits around the mean, an f32 for each 256. */
function doubleQuantize(fitted: Float32Array, rows: number, columns: number): QuantizedNumbers {
  const mean = Math.fround(fitted.reduce((sum, x) => sum + x, 0) / fitted.length)
  const factors = new Float32Array(Math.ceil(fitted.length / DOUBLE_BLOCK))
  const codes = new Uint8Array(fitted.length)
  for (let block = 0; block < factors.length; block++) {
    const part = fitted.subarray(block * DOUBLE_BLOCK, (block + 1) * DOUBLE_BLOCK)
    const largest = part.reduce((most, x) => Math.max(most, Math.abs(x - mean)), 0)
    factors[block] = largest / 127 || 1
    for (let i = 0; i < part.length; i++) {
      codes[block * DOUBLE_BLOCK + i] = Math.round((part[i] - mean) / factors[block]) + 128
    }
  }
  return {
    rows,
    columns,
    codes: packCodes(codes, 8),
    grid: signedGrid(8),
    scale: { blocks: { elements: DOUBLE_BLOCK }, values: { type: 'f32', values: factors } },
    offset: { type: 'f32', values: Float32Array.of(mean) },
  }
}

/** E4M3 under one f32 that maps the largest scale to 448, as NVFP4 has it. */
function nvfp4Scales(fitted: Float32Array, rows: number, columns: number): QuantizedNumbers {
  const format = FLOAT_FORMATS.f8_e4m3
  const largest = fitted.reduce((most, x) => Math.max(most, x), 0)
  const factor = Math.fround(largest / 448) || 1
  // A scale that rounds to 0 would wipe out its block; the smallest subnormal keeps a sign of it.
  const codes = Uint8Array.from(fitted, (x) => Math.max(1, encodeFloat(format, x / factor)))
  return {
    rows,
    columns,
    codes: packCodes(codes, 8),
    grid: floatGrid(format),
    scale: { blocks: { rows, columns }, values: { type: 'f32', values: Float32Array.of(factor) } },
  }
}

/** Zero points of an asymmetric integer grid, in as many bits as a code. */
export function storeZero(bits: number, blocks: Blocks, zeros: Float32Array): Scale {
  return { blocks, values: { type: `u${bits}` as NumberType, values: zeros } }
}

/** The element-wise grids by the names that options and recipes use. */

import * as z from 'zod'
import { LowbitError } from '../errors.ts'
import {
  binaryGrid,
  floatGrid,
  normalFloatGrid,
  signedGrid,
  ternaryGrid,
  unsignedGrid,
} from '../matrix/grid.ts'
import type { ScalarGrid } from '../matrix/types.ts'
import { floatFormat } from '../numbers/float.ts'

export interface NamedGrid {
  /** Bits of a code where the name decides; otherwise the option `bits` does. */
  readonly bits?: number
  readonly summary: string
  /** Whether a zero point makes sense. */
  readonly asymmetric?: boolean
  /** The block and scale that belong to the name (MX, NVFP4, NF4's 64). */
  readonly groupSize?: number
  readonly scaleType?: 'f8_e8m0' | 'f8_e4m3'
}

const mx = (bits: number, summary: string): NamedGrid => ({
  bits,
  summary,
  groupSize: 32,
  scaleType: 'f8_e8m0',
})

/** Every grid by name. `eXmY` names any float of X exponent and Y mantissa bits besides. */
export const NAMED_GRIDS = {
  int: { summary: 'integers of 1–8 bits', asymmetric: true },
  nf: { summary: 'NormalFloat of 2–8 bits (QLoRA)' },
  nf4: { bits: 4, summary: 'NormalFloat of 4 bits in blocks of 64 (QLoRA)', groupSize: 64 },
  fp8_e4m3: { bits: 8, summary: 'FP8 E4M3 (OCP)' },
  fp8_e5m2: { bits: 8, summary: 'FP8 E5M2 (OCP)' },
  fp6_e3m2: { bits: 6, summary: 'FP6 E3M2 (OCP)' },
  fp6_e2m3: { bits: 6, summary: 'FP6 E2M3 (OCP)' },
  fp4: { bits: 4, summary: 'FP4 E2M1 (OCP)' },
  mxfp8_e4m3: mx(8, 'MXFP8: E4M3, a power of two for each 32'),
  mxfp8_e5m2: mx(8, 'MXFP8: E5M2, a power of two for each 32'),
  mxfp6_e3m2: mx(6, 'MXFP6: E3M2, a power of two for each 32'),
  mxfp6_e2m3: mx(6, 'MXFP6: E2M3, a power of two for each 32'),
  mxfp4: mx(4, 'MXFP4: E2M1, a power of two for each 32'),
  nvfp4: {
    bits: 4,
    summary: 'NVFP4: E2M1, an E4M3 scale for each 16 and one f32 for all',
    groupSize: 16,
    scaleType: 'f8_e4m3',
  },
  binary: { bits: 1, summary: '{−1, 1} with the mean of |w| as scale (XNOR-Net)' },
  ternary: { bits: 2, summary: '{−1, 0, 1}' },
} as const satisfies Record<string, NamedGrid>

export type GridName = keyof typeof NAMED_GRIDS

const FLOAT_NAME = /^(?:fp\d_|mxfp\d_)?e([1-8])m([0-7])$/

/** The schema of a grid option. */
export const gridName = z.string().refine((name) => name in NAMED_GRIDS || FLOAT_NAME.test(name), {
  error: `is not a grid; there are ${Object.keys(NAMED_GRIDS).join(', ')}, and eXmY for any other float`,
})

export function namedGrid(name: string): NamedGrid {
  if (name in NAMED_GRIDS) return NAMED_GRIDS[name as GridName]
  const [, exponent, mantissa] = FLOAT_NAME.exec(name)!.map(Number)
  return { bits: 1 + exponent + mantissa, summary: `float E${exponent}M${mantissa}` }
}

/** The grid of a name and, where the name leaves it open, a number of bits. */
export function makeGrid(name: string, bits: number, asymmetric: boolean): ScalarGrid {
  const known = namedGrid(name)
  if (known.bits && known.bits > 8) {
    throw new LowbitError(
      'bad-option',
      `grid ${name} has ${known.bits} bits, codes have at most 8`,
      {
        option: 'grid',
      },
    )
  }
  if (name === 'int') return asymmetric ? unsignedGrid(bits) : signedInteger(bits)
  if (name === 'nf' || name === 'nf4') return normalFloatGrid(known.bits ?? bits)
  if (name === 'binary') return binaryGrid()
  if (name === 'ternary') return ternaryGrid()
  const element = { fp4: 'e2m1', mxfp4: 'e2m1', nvfp4: 'e2m1' }[name] ?? name
  const [, exponent, mantissa] = FLOAT_NAME.exec(element)!.map(Number)
  return floatGrid(floatFormat(exponent, mantissa))
}

/** One signed bit means {−1, 1}: {−1, 0} would lose half of the weights. */
const signedInteger = (bits: number): ScalarGrid => (bits === 1 ? binaryGrid() : signedGrid(bits))

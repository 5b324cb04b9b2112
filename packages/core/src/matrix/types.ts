/**
 * The one value that everybody speaks: every quantizer makes a `QuantizedMatrix`, every format stores
 * one, every set of kernels runs one. What it means is defined by `decode` (decode.ts).
 */

import type { FloatFormat } from '../numbers/float.ts'

/** How a stored real number is kept. `u1`…`u8` are integers, for zero points. */
export type NumberType =
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'f8_e4m3'
  | 'f8_e5m2'
  | 'f8_e8m0'
  | 'i8'
  | 'u1'
  | 'u2'
  | 'u3'
  | 'u4'
  | 'u5'
  | 'u6'
  | 'u7'
  | 'u8'

/** Numbers and the type that they are stored as; every value is exactly representable in it. */
export interface Numbers {
  readonly type: NumberType
  readonly values: Float32Array
}

/**
 * A division of a rows × columns matrix into blocks that share something (a scale, a table).
 * Either rectangles of `rows` × `columns` (ragged at the edges; counted row by row of blocks), or
 * `elements` consecutive weights of the row-major matrix (as bitsandbytes counts).
 */
export type Blocks =
  | { readonly rows: number; readonly columns: number }
  | { readonly elements: number }

/** A scale (or zero point, or bias) for each block of a matrix. */
export interface Scale {
  readonly blocks: Blocks
  readonly values: Numbers | QuantizedNumbers
}

/**
 * Numbers that are themselves quantized: `scale · grid(code) + offset`. They are laid out as a matrix
 * with one row for each row of blocks, so that the outer scale's blocks count over that matrix
 * (double quantization, K-quants' super-blocks, NVFP4's second level).
 */
export interface QuantizedNumbers {
  readonly rows: number
  readonly columns: number
  readonly codes: PackedCodes
  readonly grid: ScalarGrid
  readonly scale: Scale
  readonly offset?: Numbers
}

/** Unsigned codes of 1–16 bits as one bit stream: LSB first, no padding between codes. */
export interface PackedCodes {
  readonly bits: number
  readonly count: number
  readonly data: Uint8Array
}

/** Code `c` means `lowest + step·c`. Signed, unsigned, binary {−1, 1} and ternary are all this. */
export interface IntegerGrid {
  readonly kind: 'integer'
  readonly bits: number
  readonly levels: number
  readonly lowest: number
  readonly step: number
}

/** Code `c` is the bit pattern of a small float. */
export interface FloatGrid {
  readonly kind: 'float'
  readonly format: FloatFormat
}

/** Code `c` means `tables[block][c]`; tables are `entries` numbers each, one per block (one in all by default). */
export interface LookupGrid {
  readonly kind: 'lookup'
  readonly entries: number
  readonly tables: Numbers
  /** For integer tables: one factor for each table. */
  readonly tableScale?: Numbers
  readonly blocks?: Blocks
  /** The name under which several matrices of a checkpoint share these tables; counted once. */
  readonly shared?: string
}

/** Code `c` means the `length` weights at `tables[block][c·length …]`. */
export interface CodebookGrid {
  readonly kind: 'codebook'
  readonly entries: number
  readonly length: number
  readonly tables: Numbers
  /** For integer tables: one factor for each table. */
  readonly tableScale?: Numbers
  readonly blocks?: Blocks
  readonly shared?: string
}

export type ScalarGrid = IntegerGrid | FloatGrid | LookupGrid
export type Grid = ScalarGrid | CodebookGrid

/**
 * One summand of a matrix: codes of the covered columns.
 * With `vector.along = 'in'` the codes are rows × ⌈columns / length⌉, with `'out'` they are
 * ⌈rows / length⌉ × columns, both row-major; weights past the edge are dropped.
 * A weight is `scale · (grid(code) − zero) + bias`.
 */
export interface Stage {
  /** The stored columns [from, to) that it covers; all by default. Blocks count inside the stage. */
  readonly columns?: readonly [from: number, to: number]
  readonly codes: PackedCodes
  readonly vector: { readonly length: number; readonly along: 'in' | 'out' }
  readonly grid: Grid
  readonly scale?: Scale
  readonly zero?: Scale
  readonly bias?: Scale
}

/** Single weights kept dense: added at (row, input feature). */
export interface SparseEntries {
  readonly rows: Uint32Array
  readonly columns: Uint32Array
  readonly values: Numbers
}

/** x → H·diag(signs)·x in consecutive blocks of `block` (a power of two), H the orthonormal Hadamard matrix. */
export interface Rotation {
  readonly block: number
  /** One bit for each feature, LSB first; 1 means −1. */
  readonly signs: Uint8Array
}

export interface QuantizedMatrix {
  /** Out features. */
  readonly rows: number
  /** In features. */
  readonly columns: number
  /** Decoded, then summed, in the stored order of columns. */
  readonly stages: readonly Stage[]
  /** Stored column i is input feature order[i] (act-order, VPTQ's permutation). */
  readonly order?: Uint32Array
  /** Per output feature, multiplied after the sum: a scale that all stages have in common. */
  readonly rowScale?: Numbers
  /** Per input feature, multiplied after the sum: VPTQ's norm, an AWQ scale that is not folded. */
  readonly columnScale?: Numbers
  /** Per input feature, added after rowScale and columnScale. */
  readonly columnBias?: Numbers
  /** Added last, before the rotations. */
  readonly sparse?: SparseEntries
  /** The layer's weight is R_outᵀ · (all of the above) · R_in. */
  readonly rotation?: { readonly input?: Rotation; readonly output?: Rotation }
}

/** A matrix as it was: rows × columns, row-major. */
export interface DenseMatrix {
  readonly rows: number
  readonly columns: number
  readonly type: 'f32' | 'f16' | 'bf16'
  /** f16 and bf16 as their bit patterns. */
  readonly values: Float32Array | Uint16Array
}

export type Matrix = QuantizedMatrix | DenseMatrix

export function isQuantized(matrix: Matrix): matrix is QuantizedMatrix {
  return 'stages' in matrix
}

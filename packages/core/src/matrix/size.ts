/** Bits per weight, counted: everything that must be stored to decode the matrix, nothing nominal. */

import { isNested } from './decode.ts'
import type {
  CodebookGrid,
  LookupGrid,
  Matrix,
  Numbers,
  NumberType,
  QuantizedMatrix,
  QuantizedNumbers,
  Scale,
} from './types.ts'
import { isQuantized } from './types.ts'

export interface MatrixSize {
  readonly codes: number
  readonly scales: number
  readonly zeros: number
  readonly tables: number
  readonly order: number
  readonly columns: number
  readonly sparse: number
  readonly rotation: number
  /** The sum, in bits. */
  readonly total: number
}

const TYPE_BITS: Record<NumberType, number> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  f8_e4m3: 8,
  f8_e5m2: 8,
  f8_e8m0: 8,
  i8: 8,
  u1: 1,
  u2: 2,
  u3: 3,
  u4: 4,
  u5: 5,
  u6: 6,
  u7: 7,
  u8: 8,
}

/** Bits of one number of a type. */
export function numberBits(type: NumberType): number {
  return TYPE_BITS[type]
}

const numbersBits = (numbers: Numbers | undefined): number =>
  numbers ? numbers.values.length * TYPE_BITS[numbers.type] : 0

/** Bits of a scale with all its levels. */
function scaleBits(scale: Scale | undefined): number {
  if (!scale) return 0
  return isNested(scale.values) ? quantizedNumbersBits(scale.values) : numbersBits(scale.values)
}

function quantizedNumbersBits(numbers: QuantizedNumbers): number {
  const { grid } = numbers
  const table = grid.kind === 'lookup' ? numbersBits(grid.tables) + numbersBits(grid.tableScale) : 0
  return (
    numbers.codes.count * numbers.codes.bits +
    scaleBits(numbers.scale) +
    numbersBits(numbers.offset) +
    table
  )
}

/**
 * Counts the bits of one matrix. Shared tables are counted at their first mention: pass the same
 * `counted` set for all matrices of a checkpoint.
 */
export function measureMatrix(matrix: QuantizedMatrix, counted = new Set<string>()): MatrixSize {
  let codes = 0
  let scales = numbersBits(matrix.rowScale)
  let zeros = 0
  let tables = 0
  for (const stage of matrix.stages) {
    codes += stage.codes.count * stage.codes.bits
    scales += scaleBits(stage.scale) + scaleBits(stage.bias)
    zeros += scaleBits(stage.zero)
    const { grid } = stage
    if (grid.kind === 'lookup' || grid.kind === 'codebook') {
      if (grid.shared && counted.has(grid.shared)) continue
      if (grid.shared) counted.add(grid.shared)
      tables += tableBits(grid)
    }
  }
  const order = matrix.order ? matrix.columns * (matrix.columns <= 65536 ? 16 : 32) : 0
  const columns = numbersBits(matrix.columnScale) + numbersBits(matrix.columnBias)
  const sparse = matrix.sparse
    ? matrix.sparse.rows.length * 64 + numbersBits(matrix.sparse.values)
    : 0
  const rotation =
    8 * ((matrix.rotation?.input?.signs.length ?? 0) + (matrix.rotation?.output?.signs.length ?? 0))
  const total = codes + scales + zeros + tables + order + columns + sparse + rotation
  return { codes, scales, zeros, tables, order, columns, sparse, rotation, total }
}

/** Bits of the tables that a matrix shares with others, by their names. */
export function sharedTables(matrix: QuantizedMatrix): ReadonlyMap<string, number> {
  const tables = new Map<string, number>()
  for (const { grid } of matrix.stages) {
    if (!('shared' in grid) || !grid.shared) continue
    tables.set(grid.shared, tableBits(grid))
  }
  return tables
}

function tableBits(grid: LookupGrid | CodebookGrid): number {
  return numbersBits(grid.tables) + numbersBits(grid.tableScale)
}

/** Counted bits per weight of a set of matrices; dense ones count with their own type. */
export function bitsPerWeight(matrices: Iterable<Matrix>): number {
  const counted = new Set<string>()
  let bits = 0
  let weights = 0
  for (const matrix of matrices) {
    weights += matrix.rows * matrix.columns
    bits += isQuantized(matrix)
      ? measureMatrix(matrix, counted).total
      : matrix.rows * matrix.columns * TYPE_BITS[matrix.type]
  }
  return weights === 0 ? 0 : bits / weights
}

/**
 * Tables of values and codebooks, tuned end to end. A table that matrices share gets its gradient from all of them. What
 * the model runs with is what will be stored: entries are rounded to their type, and those kept beside them in f32
 * take the gradient as if they were not.
 */

import {
  type CodebookGrid,
  type Kernels,
  type LookupGrid,
  type Numbers,
  type QuantizedMatrix,
  type Stage,
  type Tensor,
  toNumbers,
  unpackCodes,
} from '@lowbit/core'
import { type Factors, factors, moveBy } from './adam.ts'

type TableGrid = LookupGrid | CodebookGrid

export interface TunedTable {
  readonly grid: TableGrid
  /** Entries before they are rounded, and Adam's moments. */
  readonly state: Factors
  /** Their root mean square, which steps are measured in. */
  readonly unit: number
  /** Of this step so far. */
  readonly gradient: Float64Array
}

export type TunedTables = Map<string, TunedTable>

/**
 * The name of a stage's table among what is tuned: its own, or that under which it is shared. None where it can't be
 * tuned: other grids, several tables, scales or zeros between the table and the matrix.
 */
export function tableKey(module: string, stage: Stage, index: number): string | undefined {
  const { grid, scale, zero, bias } = stage
  if (grid.kind !== 'lookup' && grid.kind !== 'codebook') return undefined
  if (scale || zero || bias || grid.tables.values.length !== sizeOf(grid)) return undefined
  return grid.shared ? `tables.${grid.shared}` : `${module}.tables.${index}`
}

const lengthOf = (grid: TableGrid): number => (grid.kind === 'codebook' ? grid.length : 1)
const sizeOf = (grid: TableGrid): number => grid.entries * lengthOf(grid)

/** Adds the tables of a matrix that are not there yet. */
export function collectTables(
  known: TunedTables,
  module: string,
  { stages }: QuantizedMatrix,
): void {
  for (const [index, stage] of stages.entries()) {
    const key = tableKey(module, stage, index)
    if (!key || known.has(key)) continue
    const grid = stage.grid as TableGrid
    const step = grid.tableScale?.values[0] ?? 1
    const values = grid.tables.values.map((x) => x * step)
    const unit = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length)
    const state = { ...factors(values.length), values }
    known.set(key, { grid, state, unit, gradient: new Float64Array(values.length) })
  }
}

/** The entries as they are stored now: rounded, with the factor that they had. */
export function storedTable({ grid, state }: TunedTable): Numbers {
  const step = grid.tableScale?.values[0] ?? 1
  return toNumbers(
    grid.tables.type,
    state.values.map((x) => (step === 0 ? 0 : x / step)),
  )
}

/** A matrix with its tables as they are now. */
export function withTables(
  known: TunedTables,
  module: string,
  matrix: QuantizedMatrix,
): QuantizedMatrix {
  const stages = matrix.stages.map((stage, index) => {
    const table = known.get(tableKey(module, stage, index) ?? '')
    if (!table) return stage
    return { ...stage, grid: { ...(stage.grid as TableGrid), tables: storedTable(table) } }
  })
  return { ...matrix, stages }
}

/**
 * Adds what a matrix contributes: `gradient` [rows, columns] is that of rowScale · (Σ stages) · columnScale, multiplied
 * by both scales already, in stored order.
 */
export async function addTableGradients(
  known: TunedTables,
  kernels: Kernels,
  module: string,
  matrix: QuantizedMatrix,
  gradient: Tensor,
): Promise<void> {
  for (const [index, stage] of matrix.stages.entries()) {
    const table = known.get(tableKey(module, stage, index) ?? '')
    if (!table) continue
    const { entries } = table.grid
    const { along } = stage.vector
    const length = lengthOf(table.grid)
    const [from, to] = stage.columns ?? [0, matrix.columns]
    const [high, wide] =
      along === 'out'
        ? [Math.ceil(matrix.rows / length), to - from]
        : [matrix.rows, Math.ceil((to - from) / length)]
    const codes = kernels.upload(Uint16Array.from(unpackCodes(stage.codes)), high, wide)
    const [values, sums] = [kernels.tensor(entries, length), kernels.tensor(entries, length)]
    const tables = [{ values, entries }]
    kernels.scatterVectors([sums], gradient, [codes], { length, along, tables, from, to })
    const found = await kernels.read(sums)
    kernels.free(codes, values, sums)
    for (let i = 0; i < found.length; i++) table.gradient[i] += found[i]
  }
}

/** One step of Adam for all tables, once all matrices have added theirs. */
export function moveTables(known: TunedTables, step: number, rate: number): void {
  for (const { state, unit, gradient } of known.values()) {
    moveBy(state, gradient, step, rate * unit)
    gradient.fill(0)
  }
}

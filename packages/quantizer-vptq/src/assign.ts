/** Codes for one matrix: the feedback pass, then coordinate descent, scales and tables fitted to the codes. */

import {
  type ColumnRange,
  type Kernels,
  type Numbers,
  type Tensor,
  updateTables,
  type VectorRounding,
  type VectorTable,
} from '@lowbit/core'
import { type Codebook, findNeighbours, storeCodebook } from './codebook.ts'
import type { Norm } from './normalize.ts'
import { refitScales } from './refit.ts'

/** Columns [from, to) in stored order and the codebooks that they are summed from. */
export interface Part {
  readonly from: number
  readonly to: number
  readonly books: readonly Codebook[]
}

export interface AssignInput {
  readonly kernels: Kernels
  /** Weight and Hessian in stored order. */
  readonly weight: Tensor
  readonly hessian: Tensor
  readonly factor: Tensor
  readonly damping: number
  readonly parts: readonly Part[]
  /** In stored order. */
  readonly norm: Norm
  readonly sweeps: number
  readonly refits: number
  /** Steps that move tables after each refit; 0 where they are shared with other matrices. */
  readonly updates: number
  readonly signal?: AbortSignal
}

export interface Assigned {
  /** For each part, for each of its codebooks: [⌈rows / length⌉, to − from]. */
  readonly codes: readonly (readonly Uint16Array[])[]
  readonly norm: Norm
  /** The parts with the codebooks that the codes mean now. */
  readonly parts: readonly Part[]
}

interface LoadedPart extends Part {
  readonly tables: readonly VectorTable[]
  readonly neighbours: readonly Tensor[]
  readonly codes: readonly Tensor[]
  readonly length: number
}

export async function assignCodes(input: AssignInput): Promise<Assigned> {
  const { kernels, weight, hessian, factor, damping, sweeps, refits } = input
  const { rows, columns } = weight
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    let parts = input.parts.map((part) => loadPart(kernels, part, rows, sweeps > 0, own))
    let norm = input.norm
    let scales = uploadNorm(kernels, norm, own)
    const decoded = own(kernels.tensor(rows, columns))
    kernels.copy(decoded, weight)
    for (const part of parts) {
      kernels.feedbackVectors(part.codes, decoded, factor, options(part, scales))
      input.signal?.throwIfAborted()
    }
    const descend = (): void => {
      for (let sweep = 0; sweep < sweeps; sweep++) {
        for (const part of parts) {
          const { neighbours } = part
          const how = { ...options(part, scales), damping, neighbours }
          kernels.descendVectors(part.codes, decoded, weight, hessian, how)
        }
      }
    }
    descend()
    for (let refit = 0; refit < refits; refit++) {
      input.signal?.throwIfAborted()
      const { rowScale, columnBias } = norm
      const entries = own(kernels.tensor(rows, columns))
      for (const part of parts) kernels.decodeVectors(entries, part.codes, options(part, {}))
      const found =
        rowScale && !columnBias
          ? await refitScales({ kernels, weight, hessian, damping, entries, rowScale })
          : undefined
      if (!found && input.updates === 0) break
      if (found) norm = found
      scales = uploadNorm(kernels, norm, own)
      if (input.updates > 0) parts = await moveTables(input, parts, scales)
      for (const part of parts) kernels.decodeVectors(decoded, part.codes, options(part, scales))
      descend()
    }
    const codes = await Promise.all(
      parts.map((part) =>
        Promise.all(
          part.codes.map(async (tensor) => (await kernels.readCodes(tensor)) as Uint16Array),
        ),
      ),
    )
    return { codes, norm, parts }
  } finally {
    kernels.free(...owned)
  }
}

/** Tables that are this matrix's own, moved to where its output errs least and rounded to their type again. */
async function moveTables(
  { kernels, weight, hessian, updates, signal }: AssignInput,
  parts: readonly LoadedPart[],
  scales: Scales,
): Promise<LoadedPart[]> {
  const coded = parts.map((part) => ({ codes: part.codes, options: options(part, scales) }))
  await updateTables({ kernels, weight, hessian, parts: coded, iterations: updates, signal })
  return Promise.all(
    parts.map(async (part) => {
      const books = await Promise.all(
        part.books.map(async ({ grid }, i) => {
          const { values } = part.tables[i]
          const { type } = grid.tables
          const stored = storeCodebook(await kernels.read(values), grid.length, type)
          kernels.write(values, stored.values)
          return stored
        }),
      )
      for (const [i, near] of part.neighbours.entries()) {
        kernels.neighbours(near, part.tables[i].values)
      }
      return { ...part, books }
    }),
  )
}

function loadPart(
  kernels: Kernels,
  part: Part,
  rows: number,
  descends: boolean,
  own: (tensor: Tensor) => Tensor,
): LoadedPart {
  const { length } = part.books[0].grid
  const tables = part.books.map(({ values, grid: { entries } }) => ({
    ...{ entries, values: own(kernels.upload(values, entries, length)) },
  }))
  return {
    ...part,
    ...{ tables, length },
    neighbours: descends
      ? part.books.map(({ neighbours: near, grid: { entries } }, i) =>
          own(
            near
              ? kernels.upload(near, entries, near.length / entries)
              : findNeighbours(kernels, tables[i].values),
          ),
        )
      : [],
    codes: tables.map(() =>
      own(kernels.tensor(Math.ceil(rows / length), part.to - part.from, 'u16')),
    ),
  }
}

type Scales = Pick<VectorRounding, 'rowScale' | 'columnScale' | 'columnBias'>

function options(part: LoadedPart, scales: Scales): VectorRounding & Required<ColumnRange> {
  const { from, to, length, tables } = part
  return { from, to, length, along: 'out', tables, ...scales }
}

function uploadNorm(kernels: Kernels, norm: Norm, own: (tensor: Tensor) => Tensor): Scales {
  const column = (numbers: Numbers): Tensor =>
    own(kernels.upload(numbers.values, 1, numbers.values.length))
  const { rowScale, columnScale, columnBias } = norm
  return {
    ...(rowScale && { rowScale: own(kernels.upload(rowScale.values, rowScale.values.length, 1)) }),
    ...(columnScale && { columnScale: column(columnScale) }),
    ...(columnBias && { columnBias: column(columnBias) }),
  }
}

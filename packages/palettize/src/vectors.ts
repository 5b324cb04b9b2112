/**
 * Vector palettes: one code for `clusterDim` weights along the channel axis, as Core ML has them (axis 0: consecutive rows
 * of one column; axis 1: consecutive columns of one row). The table is found by k-means from one k-means++
 * start, each vector weighed by diag(H) of its columns, and assigned by the feedback pass over vectors; then table
 * and codes are fitted to each other, as those of scalars are.
 */

import {
  inverseOrder,
  type Kernels,
  type Numbers,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Tensor,
  toNumbers,
  updateTables,
  type VectorRounding,
} from '@lowbit/core'
import { type Feedback, prepareFeedback } from './assign.ts'
import type { Importance } from './importance.ts'
import type { PaletteScheme } from './options.ts'

/** Of Lloyd's algorithm; more change little (faiss takes as many). */
const ITERATIONS = 20
/** Steps of conjugate gradients in a refit. */
const UPDATES = 10
/** Sweeps of descent after each. */
const REFIT_SWEEPS = 2
/** Entries that descent looks at around the one at hand. */
const NEIGHBOURS = 32

export async function makeVectorPalette(
  input: QuantizeInput,
  scheme: PaletteScheme,
  importance: Importance,
  own: (tensor: Tensor) => Tensor,
): Promise<QuantizedMatrix> {
  const { kernels, weight, signal } = input
  const { rows, columns } = weight
  const { clusterDim: length } = scheme
  const along = scheme.axis === 0 ? 'out' : 'in'
  const entries = 2 ** scheme.bits!
  const vectors = await vectorsOf(input, length, along, own)
  const weights = await vectorWeights(input, importance, vectors.rows, length, along, own)
  const table = own(kernels.tensor(entries, length))
  kernels.cluster(table, vectors, {
    ...{ groupRows: vectors.rows, entries, iterations: ITERATIONS },
    ...{ weights, seeding: 'kmeans++', seed: input.seed },
  })
  let tables = await roundTable(kernels, table, scheme)
  signal?.throwIfAborted()
  const rounding = { length, along, tables: [{ values: table, entries }] } as const
  const feedback = scheme.feedback
    ? await prepareFeedback(input, scheme, importance.diagonal!, along === 'out')
    : undefined
  if (feedback) own(feedback.factor)
  const codes = feedback
    ? await feedBack(input, scheme, rounding, feedback, own)
    : await nearest(input, vectors, table, length, along, own)
  if (feedback) tables = await roundTable(kernels, table, scheme)
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(codes, scheme.bits!),
        vector: { length, along },
        grid: { kind: 'codebook', entries, length, tables },
      },
    ],
  }
}

/** The table as it is stored, which it becomes. */
async function roundTable(
  kernels: Kernels,
  table: Tensor,
  { tableType }: PaletteScheme,
): Promise<Numbers> {
  const tables = toNumbers(tableType === 'f32' ? 'f32' : 'f16', await kernels.read(table))
  kernels.write(table, tables.values)
  return tables
}

/** [vectors, length]; the last of a row or column is filled up with zeros. `out`: column by column. */
async function vectorsOf(
  { kernels, weight }: QuantizeInput,
  length: number,
  along: 'in' | 'out',
  own: (tensor: Tensor) => Tensor,
): Promise<Tensor> {
  const { rows, columns } = weight
  const padded = (size: number): number => Math.ceil(size / length) * length
  const turned = own(kernels.tensor(columns, along === 'out' ? padded(rows) : rows))
  kernels.transpose(turned, weight)
  let lines = turned
  if (along === 'in') {
    lines = own(kernels.tensor(rows, padded(columns)))
    kernels.transpose(lines, turned)
  }
  const values = await kernels.read(lines)
  return own(kernels.upload(values, values.length / length, length))
}

/** diag(H) of a vector's column, or the mean over its columns. */
async function vectorWeights(
  { kernels, weight }: QuantizeInput,
  { tensor }: Importance,
  count: number,
  length: number,
  along: 'in' | 'out',
  own: (tensor: Tensor) => Tensor,
): Promise<Tensor | undefined> {
  if (!tensor) return undefined
  const h = await kernels.read(tensor)
  if (!h.some((x) => x > 0)) return undefined
  const { rows, columns } = weight
  const down = Math.ceil(rows / length)
  const across = Math.ceil(columns / length)
  const means = Float32Array.from({ length: across }, (_, i) => {
    const part = h.subarray(i * length, (i + 1) * length)
    return part.reduce((sum, x) => sum + x, 0) / length
  })
  const weights = Float32Array.from({ length: count }, (_, i) =>
    along === 'out' ? h[Math.floor(i / down)] : means[i % across],
  )
  return own(kernels.upload(weights, count, 1))
}

async function nearest(
  { kernels, weight }: QuantizeInput,
  vectors: Tensor,
  table: Tensor,
  length: number,
  along: 'in' | 'out',
  own: (tensor: Tensor) => Tensor,
): Promise<Uint16Array> {
  const codes = own(kernels.tensor(vectors.rows, 1, 'u16'))
  kernels.nearest(codes, vectors, table)
  const found = (await kernels.readCodes(codes)) as Uint16Array
  if (along === 'in') return found
  // Vectors lie column by column, codes row by row.
  const { rows, columns } = weight
  const down = Math.ceil(rows / length)
  return Uint16Array.from(found, (_, i) => found[(i % columns) * down + Math.floor(i / columns)])
}

/** Codes by the feedback pass and by descent, and the table moved to where it serves them best. */
async function feedBack(
  input: QuantizeInput,
  scheme: PaletteScheme,
  rounding: VectorRounding,
  { factor, lambda, order }: Feedback,
  own: (tensor: Tensor) => Tensor,
): Promise<Uint16Array> {
  const { kernels, weight, signal } = input
  const hessian = input.hessian!
  const { rows, columns } = weight
  const { length, along } = rounding
  const [high, wide] =
    along === 'out' ? [Math.ceil(rows / length), columns] : [rows, Math.ceil(columns / length)]
  const codes = own(kernels.tensor(high, wide, 'u16'))
  const working = own(kernels.tensor(rows, columns))
  if (order) kernels.permuteColumns(working, weight, order)
  else kernels.copy(working, weight)
  kernels.feedbackVectors([codes], working, factor, rounding)
  if (order) {
    const found = (await kernels.readCodes(codes)) as Uint16Array
    const place = inverseOrder(order)
    kernels.write(
      codes,
      found.map((_, i) => found[i - (i % columns) + place[i % columns]]),
    )
  }
  const [{ values, entries }] = rounding.tables
  const neighbours = own(kernels.tensor(entries, Math.min(NEIGHBOURS, entries), 'u16'))
  const descend = (sweeps: number): void => {
    // Only vectors of one column: the others have one slope for each of their weights.
    if (along === 'in' || sweeps === 0) return
    kernels.decodeVectors(working, [codes], rounding)
    kernels.neighbours(neighbours, values)
    for (let sweep = 0; sweep < sweeps; sweep++) {
      kernels.descendVectors([codes], working, weight, hessian, {
        ...{ ...rounding, damping: lambda, neighbours: [neighbours] },
      })
    }
  }
  descend(scheme.sweeps)
  // Codes that do not move leave nothing to a second round.
  const rounds = along === 'in' ? Math.min(1, scheme.rounds) : scheme.rounds
  for (let round = 0; round < rounds; round++) {
    await updateTables({
      ...{ kernels, weight, hessian, iterations: UPDATES, signal },
      parts: [{ codes: [codes], options: rounding }],
    })
    await roundTable(kernels, values, scheme)
    descend(REFIT_SWEEPS)
  }
  return (await kernels.readCodes(codes)) as Uint16Array
}

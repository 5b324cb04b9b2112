/** Codebooks: fitted on samples of normalized vectors, stored in few bits. */

import {
  type CodebookGrid,
  type Kernels,
  kMeans,
  type Numbers,
  type Tensor,
  toNumbers,
} from '@lowbit/core'
import type { VectorShape, VptqOptions } from './options.ts'

/** A codebook as it is stored, and the name under which matrices share it. */
export interface Codebook {
  readonly grid: CodebookGrid
  /** The decoded entries, [entries, length]. */
  readonly values: Float32Array
  /** What `findNeighbours` gives; where matrices share the codebook, all of them descend among the same. */
  readonly neighbours?: Uint16Array
}

/** Entries that descent looks at around the one at hand. */
const NEIGHBOURS = 32

/** Vectors of a shape, and how much each one's error counts. */
export interface Samples {
  /** [n, length] */
  readonly values: Float32Array
  readonly weights?: Float32Array
}

export interface FitSettings {
  readonly kernels: Kernels
  readonly iterations: number
  readonly type: VptqOptions['tableType']
  readonly random: () => number
  readonly shared?: string
  readonly signal?: AbortSignal
  onProgress?(done: number): void
}

export async function fitCodebook(
  { length, entries }: VectorShape,
  { values, weights }: Samples,
  settings: FitSettings,
): Promise<Codebook> {
  const { kernels, iterations, random, signal } = settings
  const n = values.length / length
  const points = kernels.upload(values, n, length)
  const factors = weights && kernels.upload(weights, n, 1)
  try {
    const found = await kMeans(kernels, points, {
      ...{ entries, iterations, random, weights: factors, signal },
      onIteration: settings.onProgress,
    })
    return storeCodebook(found, length, settings.type, settings.shared)
  } finally {
    kernels.free(points, ...(factors ? [factors] : []))
  }
}

/** Entries [entries, length] rounded to a type; integers are symmetric with one factor. */
export function storeCodebook(
  found: Float32Array,
  length: number,
  type: Numbers['type'],
  shared?: string,
): Codebook {
  const entries = found.length / length
  let tables: Numbers = toNumbers(type === 'i8' ? 'f32' : type, found)
  let values = tables.values
  let tableScale: Numbers | undefined
  if (type === 'i8') {
    const largest = found.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
    const step = Math.fround(largest / 127) || 1
    tableScale = { type: 'f32', values: Float32Array.of(step) }
    tables = toNumbers(
      'i8',
      found.map((x) => x / step),
    )
    values = tables.values.map((x) => Math.fround(x * step))
  }
  return {
    values,
    grid: {
      ...{ kind: 'codebook', entries, length, tables },
      ...(tableScale && { tableScale }),
      ...(shared && { shared }),
    },
  }
}

/** For each entry those that are nearest to it, itself among them: a new tensor u16 [entries, ≤ 32]. */
export function findNeighbours(kernels: Kernels, table: Tensor): Tensor {
  const near = kernels.tensor(table.rows, Math.min(NEIGHBOURS, table.rows), 'u16')
  kernels.neighbours(near, table)
  return near
}

/** The codebook with its neighbours beside it. */
export async function withNeighbours(kernels: Kernels, book: Codebook): Promise<Codebook> {
  const { values, grid } = book
  const table = kernels.upload(values, grid.entries, grid.length)
  const near = findNeighbours(kernels, table)
  try {
    return { ...book, neighbours: (await kernels.readCodes(near)) as Uint16Array }
  } finally {
    kernels.free(table, near)
  }
}

/**
 * The vectors of `length` rows of x [rows, columns], column by column: [columns · ⌈rows / length⌉, length], the last of
 * each column filled up with zeros.
 */
export async function columnVectors(
  kernels: Kernels,
  x: Tensor,
  length: number,
): Promise<Float32Array> {
  const turned = kernels.tensor(x.columns, Math.ceil(x.rows / length) * length)
  kernels.transpose(turned, x)
  const values = await kernels.read(turned)
  kernels.free(turned)
  return values
}

/** What the nearest entries leave of vectors. */
export async function residuals(
  kernels: Kernels,
  vectors: Float32Array,
  { values, grid: { entries, length } }: Codebook,
): Promise<Float32Array> {
  const n = vectors.length / length
  const points = kernels.upload(vectors, n, length)
  const table = kernels.upload(values, entries, length)
  const codes = kernels.tensor(n, 1, 'u16')
  kernels.nearest(codes, points, table)
  const decoded = kernels.tensor(n, length)
  kernels.decodeVectors(decoded, [codes], {
    ...{ length, along: 'in', tables: [{ values: table, entries }] },
  })
  const [found] = [await kernels.read(decoded)]
  kernels.free(points, table, codes, decoded)
  return vectors.map((x, i) => x - found[i])
}

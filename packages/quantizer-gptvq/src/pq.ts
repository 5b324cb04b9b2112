/**
 * Product quantization (Jégou et al., TPAMI 2011; for weights Gong et al., 1412.6115): a row is cut into parts, each
 * part into short vectors, and the vectors of a part share a codebook found by k-means. It knows nothing
 * of the layer's inputs: the plain base that VPTQ and GPTVQ build on.
 */

import {
  assertFinite,
  definePlugin,
  kMeans,
  LowbitError,
  type Numbers,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  seededRandom,
  type Tensor,
  toNumbers,
} from '@lowbit/core'
import * as z from 'zod'
import { storeTables } from './tables.ts'

export const pqOptions = z.object({
  vectorLength: z
    .int()
    .min(1)
    .max(16)
    .default(4)
    .describe('weights of a vector: consecutive columns of one row'),
  centroids: z.int().min(2).max(65536).default(256).describe('vectors of a codebook'),
  subspaces: z
    .int()
    .min(1)
    .max(65536)
    .default(1)
    .describe('parts of a row, each with a codebook of its own'),
  normalize: z
    .boolean()
    .default(true)
    .describe('a scale for each row, so that rows of all sizes share the codebook'),
  iterations: z.int().min(1).max(1000).default(20).describe('iterations of k-means'),
  tableType: z.enum(['i8', 'f16', 'f32']).default('i8').describe('type of the codebooks'),
})

type PqOptions = z.output<typeof pqOptions>

export const pq = definePlugin(
  {
    name: 'pq',
    summary: 'product quantization: k-means of vectors along the columns, without calibration',
    source: 'Jégou et al., TPAMI 2011',
    options: pqOptions,
  },
  (options): Quantizer => {
    const { vectorLength, centroids, subspaces } = options
    return {
      kind: 'quantizer',
      name: 'pq',
      options,
      needs: {},
      label: `${centroids} vectors of ${vectorLength}${subspaces > 1 ? `, ${subspaces} subspaces` : ''}`,
      quantize: (input) => quantize(input, options),
    }
  },
)

async function quantize(input: QuantizeInput, options: PqOptions): Promise<QuantizedMatrix> {
  const { kernels, weight, name, signal } = input
  const { rows, columns } = weight
  const { vectorLength: length, iterations, tableType } = options
  const vectors = Math.ceil(columns / length)
  if (options.subspaces > vectors) {
    throw new LowbitError(
      'bad-option',
      `pq: a row of ${columns} weights has ${vectors} vectors of ${length}, not ${options.subspaces} subspaces of them`,
      { option: 'subspaces', tensor: name },
    )
  }
  await assertFinite(kernels, weight, name)
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const rowScale = options.normalize ? await normalizeRows(kernels, weight) : undefined
    /** Columns of a subspace: whole vectors. */
    const width = Math.ceil(vectors / options.subspaces) * length
    const parts = Math.ceil(columns / width)
    const random = seededRandom(input.seed)
    const books: Float32Array[] = []
    const codes = new Uint16Array(rows * vectors)
    for (let part = 0; part < parts; part++) {
      signal?.throwIfAborted()
      const [from, to] = [part * width, Math.min(columns, (part + 1) * width)]
      const points = own(await partVectors(kernels, weight, from, to, length))
      const found = await kMeans(kernels, points, {
        ...{ entries: options.centroids, iterations, random, signal },
      })
      const { values } = storeTables(found, 1, tableType)
      const table = own(kernels.upload(values, values.length / length, length))
      const nearest = own(kernels.tensor(points.rows, 1, 'u16'))
      kernels.nearest(nearest, points, table)
      const across = Math.ceil((to - from) / length)
      const own16 = await kernels.readCodes(nearest)
      for (let row = 0; row < rows; row++) {
        const piece = own16.subarray(row * across, (row + 1) * across)
        codes.set(piece, row * vectors + from / length)
      }
      books.push(found)
    }
    // Parts with fewer vectors than centroids have shorter tables; all are filled up to the longest.
    const entries = Math.max(...books.map((book) => book.length / length))
    const all = new Float32Array(parts * entries * length)
    books.forEach((book, part) => {
      all.set(book, part * entries * length)
    })
    const { tables, tableScale } = storeTables(all, parts, tableType)
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(codes, Math.max(1, Math.ceil(Math.log2(entries)))),
          vector: { length, along: 'in' },
          grid: {
            ...{ kind: 'codebook', entries, length, tables },
            ...(tableScale && { tableScale }),
            ...(parts > 1 && { blocks: { rows, columns: width } }),
          },
        },
      ],
      ...(rowScale && { rowScale }),
    }
  } finally {
    kernels.free(...owned)
  }
}

/** Divides each row by the root of its mean square, and says by what. */
async function normalizeRows(kernels: QuantizeInput['kernels'], weight: Tensor): Promise<Numbers> {
  const { rows, columns } = weight
  const turned = kernels.tensor(columns, rows)
  kernels.transpose(turned, weight)
  const moments = kernels.tensor(4, rows)
  kernels.columnMoments(moments, turned)
  const squares = (await kernels.read(moments)).subarray(rows, 2 * rows)
  const scale = toNumbers('f16', squares.map(Math.sqrt))
  const inverse = scale.values.map((x) => (x > 0 ? 1 / x : 0))
  const factors = kernels.upload(inverse, rows, 1)
  kernels.scale(weight, weight, { rows: factors })
  kernels.free(turned, moments, factors)
  return scale
}

/** The vectors of columns [from, to), row by row; the last of a row is filled up with zeros. */
async function partVectors(
  kernels: QuantizeInput['kernels'],
  weight: Tensor,
  from: number,
  to: number,
  length: number,
): Promise<Tensor> {
  const { rows } = weight
  const across = Math.ceil((to - from) / length)
  const part = kernels.tensor(rows, to - from)
  kernels.permuteColumns(
    part,
    weight,
    Uint32Array.from({ length: to - from }, (_, i) => from + i),
  )
  const values = await kernels.read(part)
  kernels.free(part)
  if ((to - from) % length === 0) return kernels.upload(values, rows * across, length)
  const padded = new Float32Array(rows * across * length)
  for (let row = 0; row < rows; row++) {
    padded.set(values.subarray(row * (to - from), (row + 1) * (to - from)), row * across * length)
  }
  return kernels.upload(padded, rows * across, length)
}

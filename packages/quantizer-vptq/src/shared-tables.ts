/** One set of codebooks for all matrices of a checkpoint, fitted on a sample of their normalized vectors. */

import type { PrepareInput } from '@lowbit/core'
import { randomRotation, seededRandom, seedFor } from '@lowbit/core'
import { type Codebook, columnVectors, fitCodebook, residuals, withNeighbours } from './codebook.ts'
import { divideByNorm, findNorm } from './normalize.ts'
import type { VectorShape, VptqScheme } from './options.ts'

export interface Tables {
  /** One for each group of columns; a single one where tables are shared. */
  readonly main: readonly Codebook[]
  readonly residual?: readonly Codebook[]
  readonly outlier?: Codebook
}

/** Sampled vectors for each centroid: more hardly lower the error. */
const SAMPLES_PER_ENTRY = 32
const FEWEST_SAMPLES = 20_000

export async function fitSharedTables(
  { name, weights, kernels, seed, signal, onProgress }: PrepareInput,
  scheme: VptqScheme,
): Promise<Tables> {
  const { main, residual, outlier, iterations, tableType: type } = scheme
  const random = seededRandom(seed)
  const shapes: VectorShape[] = outlier ? [main, outlier] : [main]
  const samples = shapes.map(({ entries }) => {
    const wanted = Math.max(FEWEST_SAMPLES, SAMPLES_PER_ENTRY * entries)
    return { perMatrix: Math.ceil(wanted / weights.length), parts: [] as Float32Array[] }
  })
  for (const [i, source] of weights.entries()) {
    const weight = await source.read()
    if (scheme.rotation === 'input') {
      kernels.rotate(
        weight,
        randomRotation(weight.columns, seededRandom(seedFor(seed, source.name))),
      )
    }
    divideByNorm(kernels, weight, weight, await findNorm(kernels, weight, scheme.norm))
    for (const [j, { length }] of shapes.entries()) {
      const vectors = await columnVectors(kernels, weight, length)
      const { perMatrix, parts } = samples[j]
      parts.push(sample(vectors, length, perMatrix, random))
    }
    kernels.free(weight)
    signal?.throwIfAborted()
    onProgress?.((0.3 * (i + 1)) / weights.length)
  }
  const fit = async (
    shape: VectorShape,
    values: Float32Array,
    part: string,
    from: number,
    to: number,
  ): Promise<Codebook> => {
    const book = await fitCodebook(
      shape,
      { values },
      {
        ...{ kernels, iterations, type, random, signal, shared: `${name}_${part}` },
        onProgress: (done) => onProgress?.(from + (to - from) * done),
      },
    )
    return scheme.sweeps > 0 ? withNeighbours(kernels, book) : book
  }
  const vectors = join(samples[0].parts)
  const book = await fit(main, vectors, 'main', 0.3, 0.8)
  return {
    main: [book],
    ...(residual && {
      residual: [
        await fit(residual, await residuals(kernels, vectors, book), 'residual', 0.8, 0.9),
      ],
    }),
    ...(outlier && { outlier: await fit(outlier, join(samples[1].parts), 'outlier', 0.9, 1) }),
  }
}

/** Some of the vectors, each as likely as the other. */
function sample(
  vectors: Float32Array,
  length: number,
  count: number,
  random: () => number,
): Float32Array {
  const n = vectors.length / length
  if (n <= count) return vectors
  const out = new Float32Array(count * length)
  for (let i = 0; i < count; i++) {
    const at = Math.floor(random() * n) * length
    out.set(vectors.subarray(at, at + length), i * length)
  }
  return out
}

function join(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

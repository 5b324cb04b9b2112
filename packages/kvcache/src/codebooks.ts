/** Codebooks of coupled channels, fitted to a model's keys or values. */

import { type CacheSample, ENTRIES, type Kernels, LowbitError } from '@lowbit/core'

/** A layer's codebooks as core's CodedRows has them: for each vector of a row 256 entries. */
export interface CacheCodebooks {
  readonly keys: Float32Array
  readonly values: Float32Array
}

/** Means of Lloyd's algorithm, and where it begins. */
const ITERATIONS = 20
const SEED = 1

/**
 * For each run of `coupled` channels the 256 vectors with the least Σ weight · |x − nearest|² over the rows from `skip`
 * on, weight being the sum of a vector's weights (CQ, Zhang et al., NeurIPS 2024, section 3.3: k-means).
 */
export async function fitCodebook(
  kernels: Kernels,
  samples: readonly CacheSample[],
  coupled: 4 | 8,
  skip = 0,
): Promise<Float32Array> {
  const [{ width }] = samples
  const vectors = width / coupled
  const counts = samples.map(({ numbers }) => Math.max(0, numbers.length / width - skip))
  const rows = counts.reduce((a, b) => a + b)
  if (rows === 0) {
    throw new LowbitError(
      'bad-option',
      `codebooks are fitted to samples of more than ${skip} tokens`,
      {
        option: 'samples',
      },
    )
  }
  const weighted = samples.every(({ weights }) => weights)
  const x = new Float32Array(rows * width)
  const importance = new Float32Array(rows * vectors)
  for (let vector = 0, to = 0; vector < vectors; vector++) {
    for (const [i, { numbers, weights }] of samples.entries()) {
      for (let row = skip; row < skip + counts[i]; row++, to++) {
        const from = row * width + vector * coupled
        x.set(numbers.subarray(from, from + coupled), to * coupled)
        importance[to] = weights?.subarray(from, from + coupled).reduce((a, b) => a + b, 0) ?? 1
      }
    }
  }
  const points = kernels.upload(x, rows * vectors, coupled)
  const weights = weighted ? kernels.upload(importance, rows * vectors, 1) : undefined
  const entries = kernels.tensor(vectors * ENTRIES, coupled)
  const how = { entries: ENTRIES, iterations: ITERATIONS, seeding: 'kmeans++', seed: SEED } as const
  kernels.cluster(entries, points, { groupRows: rows, ...how, weights })
  const found = (await kernels.read(entries)).slice()
  kernels.free(points, entries, ...(weights ? [weights] : []))
  return found
}

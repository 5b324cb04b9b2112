/** k-means over vectors, on the kernels: the codebooks of VPTQ, GPTVQ, PQ and vector palettes begin with it. */

import type { Kernels, Tensor } from '../plugins/kernels.ts'

export interface KMeansOptions {
  /** Centroids; fewer come out where there are fewer points. */
  readonly entries: number
  readonly iterations: number
  /** Uniform in [0, 1), seeded. */
  readonly random: () => number
  /** Weight of each point's squared distance, [n, 1]. */
  readonly weights?: Tensor
  /** Stops when the sum of weighted squared distances falls by less than this share. Default 1e-4. */
  readonly tolerance?: number
  readonly signal?: AbortSignal
  /** Called after each iteration. */
  onIteration?(done: number): void
}

/**
 * Lloyd's algorithm on points [n, d] from a weighted random sample of them; centroids that lose all their points
 * move to points that are far from theirs. Returns [entries, d], row-major. Deterministic for a seed on
 * strict kernels.
 */
export async function kMeans(
  kernels: Kernels,
  points: Tensor,
  options: KMeansOptions,
): Promise<Float32Array> {
  const { iterations, random, weights, tolerance = 1e-4, signal } = options
  const { rows: n, columns: d } = points
  const entries = Math.min(options.entries, n)
  const values = await kernels.read(points)
  const importance = weights && (await kernels.read(weights))
  const centroids = new Float32Array(entries * d)
  const move = (centroid: number, point: number): void =>
    centroids.set(values.subarray(point * d, (point + 1) * d), centroid * d)
  samplePoints(n, entries, importance, random).forEach((point, i) => {
    move(i, point)
  })
  const table = kernels.upload(centroids, entries, d)
  const codes = kernels.tensor(n, 1, 'u16')
  const distances = kernels.tensor(n, 1)
  const sums = kernels.tensor(entries, d + 1)
  try {
    let before = Number.POSITIVE_INFINITY
    for (let iteration = 0; iteration < iterations; iteration++) {
      signal?.throwIfAborted()
      kernels.nearest(codes, points, table, distances)
      kernels.clusterSums(sums, points, codes, weights)
      const total = await kernels.read(sums)
      const far = await kernels.read(distances)
      if (importance) for (let i = 0; i < n; i++) far[i] *= importance[i]
      const lost = far.reduce((sum, x) => sum + x, 0)
      const empty: number[] = []
      for (let i = 0; i < entries; i++) {
        const weight = total[i * (d + 1) + d]
        if (weight > 0) {
          for (let e = 0; e < d; e++) centroids[i * d + e] = total[i * (d + 1) + e] / weight
        } else empty.push(i)
      }
      if (lost > 0 && empty.length > 0) {
        samplePoints(n, empty.length, far, random).forEach((point, i) => {
          move(empty[i], point)
        })
      }
      kernels.write(table, centroids)
      options.onIteration?.((iteration + 1) / iterations)
      if (lost === 0 || (empty.length === 0 && lost > before * (1 - tolerance))) break
      before = lost
    }
  } finally {
    kernels.free(table, codes, distances, sums)
  }
  return centroids
}

/**
 * `count` different points out of n with probabilities that follow their weights (Efraimidis & Spirakis, 2006:
 * the largest u^(1/w)); points without weight come last.
 */
function samplePoints(
  n: number,
  count: number,
  weights: Float32Array | undefined,
  random: () => number,
): number[] {
  const keys = Float64Array.from({ length: n }, (_, i) => {
    const weight = weights ? weights[i] : 1
    const u = random()
    return weight > 0 ? Math.log(u) / weight : Number.NEGATIVE_INFINITY
  })
  if (count >= n) return Array.from(keys.keys())
  const order = Uint32Array.from(keys.keys())
  order.sort((a, b) => keys[b] - keys[a] || a - b)
  return Array.from(order.subarray(0, count))
}

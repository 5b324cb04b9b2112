/** Tables of values for one block: the best division of its sorted weights, by dynamic programming. */

import type { TableFitOptions } from '@lowbit/core'

/** Ascending values; where the block has fewer different ones than `entries`, its largest is repeated. */
export function fitTable(
  weights: readonly number[],
  importance: readonly number[],
  entries: number,
  method: TableFitOptions['method'],
): number[] {
  if (method === 'uniform') {
    const low = weights.reduce((least, w) => Math.min(least, w), Number.POSITIVE_INFINITY)
    const high = weights.reduce((most, w) => Math.max(most, w), Number.NEGATIVE_INFINITY)
    const share = (i: number) => (entries > 1 ? i / (entries - 1) : 0.5)
    return Array.from({ length: entries }, (_, i) => low * (1 - share(i)) + high * share(i))
  }
  const some = importance.some((h) => h > 0)
  const sums = new Map<number, number>()
  for (const [i, w] of weights.entries()) {
    sums.set(w + 0, (sums.get(w + 0) ?? 0) + (some ? importance[i] : 1))
  }
  const points = [...sums].filter(([, h]) => h > 0).sort(([a], [b]) => a - b)
  const means = points.length <= entries ? points.map(([x]) => x) : clusterMeans(points, entries)
  return Array.from({ length: entries }, (_, i) => means[Math.min(i, means.length - 1)])
}

/** The means of the `count` runs of points (value, importance) whose weighted squared error is least. */
function clusterMeans(points: readonly (readonly [number, number])[], count: number): number[] {
  const n = points.length
  /** Σ h, Σ h·x and Σ h·x² of the first i points. */
  const [s0, s1, s2] = [[0], [0], [0]]
  for (const [i, [x, h]] of points.entries()) {
    s0.push(s0[i] + h)
    s1.push(s1[i] + h * x)
    s2.push(s2[i] + h * x * x)
  }
  const mean = (from: number, to: number) => (s1[to] - s1[from]) / (s0[to] - s0[from])
  const loss = (from: number, to: number) =>
    s2[to] - s2[from] - (s1[to] - s1[from]) * mean(from, to)
  let least = Array.from({ length: n + 1 }, (_, i) => (i === 0 ? 0 : loss(0, i)))
  const starts: number[][] = [new Array(n + 1).fill(0)]
  for (let k = 1; k < count; k++) {
    const next: number[] = new Array(n + 1).fill(Number.POSITIVE_INFINITY)
    const start: number[] = new Array(n + 1).fill(0)
    // The best start of the last run never falls as more points come: the middle one bounds those on its sides.
    const solve = (low: number, high: number, from: number, to: number): void => {
      if (low > high) return
      const i = (low + high) >> 1
      for (let j = from; j <= Math.min(to, i - 1); j++) {
        const total = least[j] + loss(j, i)
        if (total < next[i]) [next[i], start[i]] = [total, j]
      }
      solve(low, i - 1, from, start[i])
      solve(i + 1, high, start[i], to)
    }
    solve(k + 1, n, k, n - 1)
    starts.push(start)
    least = next
  }
  const means: number[] = []
  for (let k = count - 1, to = n; k >= 0; k--) {
    means.unshift(mean(starts[k][to], to))
    to = starts[k][to]
  }
  return means
}

/** Vectors and their nearest entries: searching, counting, Lloyd's algorithm. */

import { type Kernels, LowbitError, seededRandom, type Tensor } from '@lowbit/core'
import { checkShape, type Memory } from './memory.ts'

type Operations = Pick<Kernels, 'nearest' | 'clusterSums' | 'neighbours' | 'cluster'>

export function clusterOperations(memory: Memory): Operations {
  const { floats } = memory
  const integers = (tensor: Tensor): Uint16Array => {
    const values = memory.codes(tensor)
    if (values instanceof Uint16Array) return values
    throw new LowbitError('bad-type', 'codes of vectors are u16')
  }

  return {
    nearest(codes, x, table, distances) {
      checkShape('codes', codes, x.rows, 1)
      if (distances) checkShape('distances', distances, x.rows, 1)
      checkShape('the table', table, table.rows, x.columns)
      const d = x.columns
      if (d < 1 || d > 16 || table.rows < 1 || table.rows > 65536) {
        throw new LowbitError('bad-shape', `a table of ${table.rows} vectors of ${d}`)
      }
      const [values, points] = [floats(table), floats(x)]
      for (let i = 0; i < x.rows; i++) {
        const at = nearestOf(points.subarray(i * d, (i + 1) * d), values, table.rows, d)
        integers(codes)[i] = at
        if (distances) floats(distances)[i] = between(points, i, values, at, d)
      }
    },

    clusterSums(sums, x, codes, weights) {
      const { rows: n, columns: d } = x
      checkShape('sums', sums, sums.rows, d + 1)
      checkShape('codes', codes, n, 1)
      if (weights) checkShape('weights', weights, n, 1)
      const total = new Float64Array(sums.rows * (d + 1))
      for (let i = 0; i < n; i++) {
        const code = integers(codes)[i]
        if (code >= sums.rows) throw new LowbitError('bad-index', `code ${code} of ${sums.rows}`)
        const weight = weights ? floats(weights)[i] : 1
        for (let e = 0; e < d; e++) total[code * (d + 1) + e] += weight * floats(x)[i * d + e]
        total[code * (d + 1) + d] += weight
      }
      floats(sums).set(total)
    },

    neighbours(out, table) {
      const { rows: entries, columns: d } = table
      checkShape('out', out, entries, out.columns)
      if (out.columns < 1 || out.columns > entries) {
        throw new LowbitError('bad-shape', `${out.columns} neighbours of ${entries}`)
      }
      const values = floats(table)
      for (let i = 0; i < entries; i++) {
        const far = Array.from({ length: entries }, (_, j) =>
          i === j ? -1 : between(values, i, values, j, d),
        )
        const order = Array.from(far.keys()).sort((a, b) => far[a] - far[b] || a - b)
        integers(out).set(order.slice(0, out.columns), i * out.columns)
      }
    },

    cluster(tables, x, { groupRows, entries, weights, iterations, seeding, seed = 0 }) {
      const { rows: n, columns: d } = x
      if (!(groupRows >= 1 && entries >= 1 && entries <= 65536)) {
        throw new LowbitError('bad-shape', `${entries} entries for groups of ${groupRows}`)
      }
      checkShape('tables', tables, Math.ceil(n / groupRows) * entries, d)
      if (weights) checkShape('weights', weights, n, 1)
      const out = floats(tables)
      for (let group = 0; group * groupRows < n; group++) {
        const [from, to] = [group * groupRows, Math.min(n, (group + 1) * groupRows)]
        const points = floats(x).subarray(from * d, to * d)
        const factors = weights && floats(weights).subarray(from, to)
        const table = out.subarray(group * entries * d, (group + 1) * entries * d)
        const seeds =
          seeding === 'mahalanobis'
            ? spreadSeeds(points, d, entries)
            : plusSeeds(points, d, entries, factors, seededRandom(seed + group))
        seeds.forEach((at, i) => {
          table.set(points.subarray(at * d, (at + 1) * d), i * d)
        })
        lloyd(table, points, d, entries, factors, iterations)
      }
    },
  }
}

/** Lloyd's algorithm; entries without points stay where they are. */
function lloyd(
  table: Float32Array,
  points: Float32Array,
  d: number,
  entries: number,
  weights: Float32Array | undefined,
  iterations: number,
): void {
  const n = points.length / d
  for (let iteration = 0; iteration < iterations; iteration++) {
    const sums = new Float64Array(entries * (d + 1))
    for (let i = 0; i < n; i++) {
      const at = nearestOf(points.subarray(i * d, (i + 1) * d), table, entries, d)
      const weight = weights ? weights[i] : 1
      for (let e = 0; e < d; e++) sums[at * (d + 1) + e] += weight * points[i * d + e]
      sums[at * (d + 1) + d] += weight
    }
    for (let c = 0; c < entries; c++) {
      const weight = sums[c * (d + 1) + d]
      if (!(weight > 0)) continue
      for (let e = 0; e < d; e++) table[c * d + e] = sums[c * (d + 1) + e] / weight
    }
  }
}

/** Points evenly spaced in the order of their Mahalanobis distance from the mean. */
function spreadSeeds(points: Float32Array, d: number, entries: number): number[] {
  const n = points.length / d
  const mean = Array.from({ length: d }, (_, e) => {
    let sum = 0
    for (let i = 0; i < n; i++) sum += points[i * d + e]
    return sum / n
  })
  const covariance = new Float64Array(d * d)
  for (let i = 0; i < n; i++) {
    for (let a = 0; a < d; a++) {
      for (let b = 0; b < d; b++) {
        const [u, w] = [points[i * d + a] - mean[a], points[i * d + b] - mean[b]]
        covariance[a * d + b] += (u * w) / n
      }
    }
  }
  const trace = Array.from({ length: d }, (_, a) => covariance[a * d + a]).reduce(
    (x, y) => x + y,
    0,
  )
  // Cholesky, with a floor for directions in which all points agree.
  const l = new Float64Array(d * d)
  for (let a = 0; a < d; a++) {
    for (let b = 0; b <= a; b++) {
      let s = covariance[a * d + b]
      for (let m = 0; m < b; m++) s -= l[a * d + m] * l[b * d + m]
      l[a * d + b] = a === b ? Math.sqrt(Math.max(s, 1e-6 * trace + 1e-30)) : s / l[b * d + b]
    }
  }
  const keys = Array.from({ length: n }, (_, i) => {
    const v: number[] = []
    for (let a = 0; a < d; a++) {
      let s = points[i * d + a] - mean[a]
      for (let m = 0; m < a; m++) s -= l[a * d + m] * v[m]
      v.push(s / l[a * d + a])
    }
    return Math.fround(v.reduce((sum, x) => sum + x * x, 0))
  })
  const order = Array.from(keys.keys()).sort((a, b) => keys[a] - keys[b] || a - b)
  return Array.from(
    { length: entries },
    (_, c) => order[Math.min(n - 1, Math.floor(((2 * c + 1) * n) / (2 * entries)))],
  )
}

function plusSeeds(
  points: Float32Array,
  d: number,
  entries: number,
  weights: Float32Array | undefined,
  random: () => number,
): number[] {
  const n = points.length / d
  const seeds = [Math.floor(random() * n)]
  const far = new Float64Array(n).fill(Number.POSITIVE_INFINITY)
  while (seeds.length < entries) {
    const last = seeds[seeds.length - 1]
    let total = 0
    for (let i = 0; i < n; i++) {
      far[i] = Math.min(far[i], (weights ? weights[i] : 1) * between(points, i, points, last, d))
      total += far[i]
    }
    let left = random() * total
    let chosen = 0
    for (let i = 0; i < n && left >= 0; i++) {
      if (far[i] > 0) chosen = i
      left -= far[i]
    }
    seeds.push(chosen)
  }
  return seeds
}

function between(
  a: ArrayLike<number>,
  i: number,
  b: ArrayLike<number>,
  j: number,
  d: number,
): number {
  let sum = 0
  for (let e = 0; e < d; e++) sum += (a[i * d + e] - b[j * d + e]) ** 2
  return sum
}

/** The first entry of a table that x is nearest to. */
export function nearestOf(
  x: ArrayLike<number>,
  table: ArrayLike<number>,
  entries: number,
  d: number,
): number {
  let best = 0
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < entries; i++) {
    const distance = between(x, 0, table, i, d)
    if (distance < least) [least, best] = [distance, i]
  }
  return best
}

/** For tests: random data, and the operations as plain loops in f64. */

import { type CpuKernels, type CpuOptions, cpu } from './cpu.ts'

export type Random = () => number

/** Uniform in [0, 1) (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Roughly normal. */
export function normals(random: Random, count: number, deviation = 1): Float32Array<ArrayBuffer> {
  return Float32Array.from(
    { length: count },
    () => (random() + random() + random() + random() - 2) * 1.73 * deviation,
  )
}

export function permutation(random: Random, count: number): Uint32Array<ArrayBuffer> {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const kept = order[i]
    order[i] = order[j]
    order[j] = kept
  }
  return order
}

/** out[t, n] = Σ_k a[t, k] · b[n, k]. */
export function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  rows: number,
  columns: number,
  depth: number,
): Float64Array {
  const out = new Float64Array(rows * columns)
  for (let t = 0; t < rows; t++) {
    for (let n = 0; n < columns; n++) {
      let sum = 0
      for (let k = 0; k < depth; k++) sum += a[t * depth + k] * b[n * depth + k]
      out[t * columns + n] = sum
    }
  }
  return out
}

/** The largest difference, relative to the largest magnitude of what is expected. */
export function error(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let difference = 0
  let magnitude = 1e-30
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i] - expected[i])
    if (!(d <= difference)) difference = d
    magnitude = Math.max(magnitude, Math.abs(expected[i]))
  }
  return difference / magnitude
}

export const everyBuild: CpuOptions[] = [
  { threads: 1 },
  { threads: 1, strict: false },
  { threads: 2 },
  { threads: 2, strict: false },
]

const made = new Map<string, Promise<CpuKernels>>()

/** Runs on kernels that are made once for a test file; their threads end with it. */
export async function using<T>(
  options: CpuOptions,
  work: (kernels: CpuKernels) => Promise<T>,
): Promise<T> {
  const key = JSON.stringify(options)
  const kernels = made.get(key) ?? cpu(options)
  made.set(key, kernels)
  return work(await kernels)
}

/** What strict kernels compute with 1, 2 and 3 threads, for comparing bits. */
export function withThreads<T>(work: (kernels: CpuKernels) => Promise<T>): Promise<T[]> {
  return Promise.all([1, 2, 3].map((threads) => using({ threads }, work)))
}

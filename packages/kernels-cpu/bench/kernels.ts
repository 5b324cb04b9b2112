/**
 * Speed of the kernels: `node bench/kernels.ts [--threads 1] [--strict] [--wide] [name…]`. GFLOP/s count two
 * operations for each weight and row, whatever is really done; the best of several runs. One thread is measured
 * in CPU time, which other work on the machine lengthens less than the time on the wall; several in the latter.
 */

import { parseArgs } from 'node:util'
import {
  type Blocks,
  blockCount,
  type CacheGrid,
  codeColumns,
  ENTRIES,
  HALVES,
  normalFloatGrid,
  packCodes,
  type QuantizedMatrix,
  type ScalarGrid,
  scaleColumns,
  signedGrid,
  unsignedGrid,
} from '@lowbit/core'
import { type CpuKernels, cpu } from '../src/index.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: 'string' }, strict: { type: 'boolean' }, wide: { type: 'boolean' } },
})

const SECONDS = 0.4

/** Milliseconds. */
function now(): number {
  if (Number(values.threads ?? 1) > 1) return performance.now()
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** The best of the runs that fit into some time, in milliseconds. */
async function best(run: () => unknown): Promise<number> {
  await run()
  let least = Number.POSITIVE_INFINITY
  const end = performance.now() + SECONDS * 1000
  for (let i = 0; i < 3 || performance.now() < end; i++) {
    const start = now()
    await run()
    least = Math.min(least, now() - start)
  }
  return least
}

function random(count: number): Float32Array {
  return Float32Array.from({ length: count }, () => Math.random() - 0.5)
}

const filled = (kernels: CpuKernels, rows: number, columns: number) =>
  kernels.upload(random(rows * columns), rows, columns)

function quantized(
  grid: ScalarGrid,
  bits: number,
  n: number,
  group: number,
  zero: boolean,
): QuantizedMatrix {
  const blocks = { rows: 1, columns: group }
  const count = (n * n) / group
  return {
    rows: n,
    columns: n,
    stages: [
      {
        codes: packCodes(
          Uint8Array.from({ length: n * n }, () => Math.random() * 2 ** bits),
          bits,
        ),
        vector: { length: 1, along: 'in' },
        grid,
        scale: { blocks, values: { type: 'f32', values: random(count) } },
        ...(zero && {
          zero: { blocks, values: { type: 'u4', values: new Float32Array(count).fill(7) } },
        }),
      },
    ],
  }
}

type Bench = (kernels: CpuKernels) => Promise<string>

const gflops = (operations: number, ms: number) =>
  `${ms.toFixed(2).padStart(9)} ms ${(operations / ms / 1e6).toFixed(1).padStart(7)} GFLOP/s`

const benches: Record<string, Bench> = {}

for (const n of [512, 1024, 2048]) {
  benches[`GEMM f32 ${n}³`] = async (kernels) => {
    const [a, b, out] = [filled(kernels, n, n), filled(kernels, n, n), kernels.tensor(n, n)]
    const ms = await best(() => kernels.multiply(out, a, b))
    kernels.free(a, b, out)
    return gflops(2 * n ** 3, ms)
  }
}
for (const n of [576, 1536]) {
  benches[`Gram ${n}², 2048 tokens`] = async (kernels) => {
    const [x, out] = [filled(kernels, 2048, n), kernels.tensor(n, n)]
    const ms = await best(() => kernels.gram(out, x, 1))
    kernels.free(x, out)
    return gflops(2048 * n * n, ms)
  }
  benches[`factorInverse ${n}²`] = async (kernels) => {
    const [x, h, out] = [filled(kernels, 2 * n, n), kernels.tensor(n, n), kernels.tensor(n, n)]
    kernels.gram(h, x, 1)
    const ms = await best(() => kernels.factorInverse(out, h, 1))
    kernels.free(x, h, out)
    return gflops((2 / 3) * n ** 3, ms)
  }
  benches[`feedback int4 g128 ${n}²`] = async (kernels) => {
    const weight = filled(kernels, n, n)
    const factor = kernels.tensor(n, n)
    kernels.write(
      factor,
      random(n * n).map((v, i) => (i % (n + 1) === 0 ? 1 : i % n > i / n ? v / 50 : 0)),
    )
    const [scale, codes] = [kernels.tensor(n, Math.ceil(n / 128)), kernels.tensor(n, n, 'u8')]
    const rounding = { grid: signedGrid(4), blockRows: 1, blockColumns: 128 }
    kernels.fit(scale, undefined, weight, {
      ...{ ...rounding, asymmetric: false, scaleType: 'f16', search: { candidates: 1, step: 0 } },
    })
    const ms = await best(() =>
      kernels.feedback(codes, weight, factor, scale, undefined, { ...rounding, from: 0, to: n }),
    )
    kernels.free(weight, factor, scale, codes)
    return gflops(n ** 3, ms)
  }
}
benches['fit int4 g128, 40 candidates, 1536²'] = async (kernels) => {
  const n = 1536
  const [weight, scale] = [filled(kernels, n, n), kernels.tensor(n, 12)]
  const ms = await best(() =>
    kernels.fit(scale, undefined, weight, {
      ...{ grid: signedGrid(4), blockRows: 1, blockColumns: 128, asymmetric: false },
      ...{ scaleType: 'f16', search: { candidates: 40, step: 0.02 } },
    }),
  )
  kernels.free(weight, scale)
  return `${ms.toFixed(2).padStart(9)} ms`
}

const weights: Record<string, [ScalarGrid, number, boolean]> = {
  int2: [unsignedGrid(2), 2, true],
  int4: [signedGrid(4), 4, false],
  uint4: [unsignedGrid(4), 4, true],
  int8: [signedGrid(8), 8, false],
  nf4: [normalFloatGrid(4), 4, false],
}
const N = 4096
for (const [name, [grid, bits, zero]] of Object.entries(weights)) {
  for (const activations of ['f32', 'int8'] as const) {
    for (const rows of [1, 4, 512]) {
      benches[`${name} g128 × ${activations}, 4096², ${rows} rows`] = async (kernels) => {
        const weight = kernels.load(quantized(grid, bits, N, 128, zero), { activations })
        const [x, out] = [filled(kernels, rows, N), kernels.tensor(rows, N)]
        const ms = await best(() => kernels.matmul(out, x, weight))
        kernels.unload(weight)
        kernels.free(x, out)
        return `${gflops(2 * rows * N * N, ms)}   ${weight.variant}`
      }
    }
  }
}
/** One stage of random codes of vectors; blocks have a table each. */
function vectors(
  length: number,
  along: 'in' | 'out',
  entries: number,
  n: number,
  blocks?: Blocks,
): QuantizedMatrix {
  const tables = blocks ? blockCount(blocks, n, n) : 1
  const bits = Math.log2(entries)
  const grid = {
    ...{ entries, ...(blocks && { blocks }) },
    tables: { type: 'f32', values: random(tables * entries * length) },
  } as const
  const codes = Uint16Array.from(
    { length: n * Math.ceil(n / length) },
    () => Math.random() * entries,
  )
  return {
    ...{ rows: n, columns: n },
    stages: [
      {
        codes: packCodes(codes, bits),
        vector: { length, along },
        grid: length === 1 ? { kind: 'lookup', ...grid } : { kind: 'codebook', length, ...grid },
      },
    ],
  }
}
const codebooks: Record<string, () => QuantizedMatrix> = {
  'VPTQ 8 × 256': () => vectors(8, 'out', 256, N),
  'VPTQ 5 × 2048': () => vectors(5, 'out', 2048, N),
  'VPTQ 6 × 4096': () => vectors(6, 'out', 4096, N),
  'VPTQ 8 × 4096': () => vectors(8, 'out', 4096, N),
  'GPTVQ 4 × 256 for 256 rows': () => vectors(4, 'in', 256, N, { rows: 256, columns: 256 }),
  'GPTVQ 2 × 16 for 5 rows': () => vectors(2, 'in', 16, N, { rows: 5, columns: 256 }),
  'palette of 8 for 16 rows': () => vectors(1, 'in', 8, N, { rows: 16, columns: N }),
}
const withBytes = Object.keys(codebooks).filter((name) => name.startsWith('palette'))
for (const [name, make, activations] of [
  ...Object.entries(codebooks).map(([name, make]) => [name, make, 'f32'] as const),
  ...withBytes.map((name) => [`${name} × int8`, codebooks[name], 'int8'] as const),
]) {
  for (const rows of [1, 4, 512]) {
    benches[`${name}, 4096², ${rows} rows`] = async (kernels) => {
      const weight = kernels.load(make(), { activations })
      const [x, out] = [filled(kernels, rows, N), kernels.tensor(rows, N)]
      const ms = await best(() => kernels.matmul(out, x, weight))
      kernels.unload(weight)
      kernels.free(x, out)
      return `${gflops(2 * rows * N * N, ms)}   ${weight.variant}`
    }
  }
}
for (const [d, entries, n] of [
  [8, 256, 110_592],
  [8, 4096, 110_592],
  [6, 4096, 66_000],
  [5, 2048, 66_000],
]) {
  benches[`nearest of ${entries} × ${d}, ${n} vectors`] = async (kernels) => {
    // Sums of three: roughly normal.
    const [one, two] = [random(n * d), random(n * d)]
    const values = random(n * d).map((v, i) => v + one[i] + two[i])
    // As k-means leaves them: some vectors, each moved to the mean of those nearest to it.
    const [x, table] = [kernels.upload(values, n, d), kernels.tensor(entries, d)]
    kernels.write(table, values.slice(0, entries * d))
    const [codes, sums] = [kernels.tensor(n, 1, 'u16'), kernels.tensor(entries, d + 1)]
    for (let i = 0; i < 4; i++) {
      kernels.nearest(codes, x, table)
      kernels.clusterSums(sums, x, codes)
      const found = await kernels.read(sums)
      const means = Float32Array.from({ length: entries * d }, (_, j) => {
        const at = Math.floor(j / d) * (d + 1)
        return found[at + (j % d)] / (found[at + d] || 1)
      })
      kernels.write(table, means)
    }
    const ms = await best(() => kernels.nearest(codes, x, table))
    kernels.free(x, table, codes, sums)
    return gflops(2 * n * d * entries, ms)
  }
}
for (const type of ['f32', 'f16'] as const) {
  benches[`dense ${type}, 4096², 1 row`] = async (kernels) => {
    const data = type === 'f32' ? random(N * N) : new Uint16Array(N * N).fill(0x3800)
    const weight = kernels.load({ rows: N, columns: N, type, values: data })
    const [x, out] = [filled(kernels, 1, N), kernels.tensor(1, N)]
    const ms = await best(() => kernels.matmul(out, x, weight))
    kernels.unload(weight)
    kernels.free(x, out)
    return gflops(2 * N * N, ms)
  }
}
const attention = { heads: 9, keyValueHeads: 3, headSize: 64, scale: 0.125 }
for (const [rows, start] of [
  [1, 2047],
  [2048, 0],
]) {
  benches[`attention, 9 heads of 64, ${rows} rows, 2048 keys`] = async (kernels) => {
    const [q, out] = [filled(kernels, rows, 576), kernels.tensor(rows, 576)]
    const [k, v] = [filled(kernels, 2048, 192), filled(kernels, 2048, 192)]
    const ms = await best(() => kernels.attention(out, q, k, v, { ...attention, start }))
    kernels.free(q, out, k, v)
    return gflops(4 * 576 * (rows * start + (rows * (rows + 1)) / 2), ms)
  }
}
/** Keys and values of layers that do not fit into the caches of the processor together, as in a model. */
const LAYERS = 30
const BEHIND = 8192
const caches: Record<string, readonly [keys: CacheGrid, values: CacheGrid] | undefined> = {
  f32: undefined,
  f16: [HALVES, HALVES],
  int8: [tokenGrid(8, 64), tokenGrid(8, 64)],
  int4: [tokenGrid(4, 32), tokenGrid(4, 32)],
  int2: [tokenGrid(2, 32), tokenGrid(2, 32)],
  'kivi, 4 bits': [{ bits: 4, tokens: 32, channels: 1, symmetric: false }, tokenGrid(4, 32)],
  'cq, 2 bits': [coupledGrid(4), coupledGrid(4)],
  'cq, 1 bit': [coupledGrid(8), coupledGrid(8)],
}
function coupledGrid(coupled: 4 | 8): CacheGrid {
  return { ...HALVES, bits: 8, coupled }
}
function tokenGrid(bits: 2 | 4 | 8, channels: number): CacheGrid {
  return { bits, tokens: 1, channels, symmetric: false }
}
for (const [name, grids] of Object.entries(caches)) {
  benches[`cache ${name}: attention of a token, ${LAYERS} layers, ${BEHIND} tokens`] = async (
    kernels,
  ) => {
    const width = 192
    const [q, out] = [filled(kernels, 1, 576), kernels.tensor(1, 576)]
    const some = filled(kernels, 256, width)
    const fresh = kernels.rows(some, 0, 17)
    const before = kernels.bytes
    const layers = Array.from({ length: LAYERS }, () =>
      [0, 1].map((i) => {
        const grid = grids?.[i]
        const dense = grid ? undefined : kernels.tensor(BEHIND + 1, width)
        const codes = kernels.tensor(BEHIND, grid ? codeColumns(grid, width) : 0, 'u32')
        const scaled = grid ? [BEHIND / grid.tokens, scaleColumns(grid, width)] : [0, 0]
        const scales = kernels.tensor(scaled[0], scaled[1], 'u16')
        const coupled = grid?.coupled
        const codebooks = coupled && filled(kernels, (width / coupled) * ENTRIES, coupled)
        const past = { codes, scales, ...(codebooks && { codebooks }) }
        for (let row = 0; row < BEHIND; row += 256) {
          if (grid) kernels.encodeRows({ ...past, grid }, row, some)
          if (dense) kernels.copy(kernels.rows(dense, row, row + 256), some)
        }
        return { dense, ...past }
      }),
    )
    const bytes = kernels.bytes - before
    const ms = await best(() => {
      for (const [k, v] of layers) {
        if (grids) {
          const [keys, values] = [k, v].map((past, i) => ({ ...past, grid: grids[i] }))
          const shape = { ...attention, start: BEHIND + 16 }
          kernels.attendCoded(out, q, keys, values, BEHIND, fresh, fresh, shape)
        } else if (k.dense && v.dense) {
          kernels.attention(out, q, k.dense, v.dense, { ...attention, start: BEHIND })
        }
      }
    })
    for (const past of layers.flat()) {
      kernels.free(...Object.values(past).filter((tensor) => tensor !== undefined))
    }
    kernels.free(q, out, some)
    return `${gflops(4 * 576 * BEHIND * LAYERS, ms)}   ${(bytes / 1e6).toFixed(0)} MB`
  }
}
benches['attention backward, 9 heads of 64, 2048 rows'] = async (kernels) => {
  const [q, out, dq] = [0, 1, 2].map(() => filled(kernels, 2048, 576))
  const [k, v, dk, dv] = [0, 1, 2, 3].map(() => filled(kernels, 2048, 192))
  const gradients = { q: dq, k: dk, v: dv }
  const shape = { ...attention, start: 0 }
  const ms = await best(() => kernels.attentionGradient(gradients, out, q, k, v, shape))
  kernels.free(q, out, dq, k, v, dk, dv)
  // Five products, where forward has two.
  return gflops((10 * 576 * 2048 * 2049) / 2, ms)
}
benches['multiplyTransposed, 2048 × 1536 by 576'] = async (kernels) => {
  const [a, b, out] = [
    filled(kernels, 2048, 1536),
    filled(kernels, 1536, 576),
    filled(kernels, 2048, 576),
  ]
  const ms = await best(() => kernels.multiplyTransposed(out, a, b))
  kernels.free(a, b, out)
  return gflops(2 * 2048 * 1536 * 576, ms)
}

const strict = values.strict ?? false
const kernels = await cpu({
  ...{ strict, wide: values.wide, threads: values.threads ? Number(values.threads) : 1 },
})
console.log(`${kernels.variant}, Node ${process.versions.node}`)
for (const [name, bench] of Object.entries(benches)) {
  if (positionals.length > 0 && !positionals.some((part) => name.includes(part))) continue
  console.log(name.padEnd(40), await bench(kernels))
}
kernels.dispose()

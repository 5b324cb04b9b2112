/**
 * Products of a decoder's layers on the NVIDIA GPU of this machine, where it has one, against torch's (cuBLAS), where
 * there is a Python with it (`--python`, or LOWBIT_PYTHON):
 *
 *   npm run bench:cuda -- [--json] [--shapes 4096x4096,…] [--tokens 1,16,…] [--only 'int4 × f16,…']
 *
 * Times are those of the GPU: kernels are recorded into a graph. Copies of a weight come by in turn, more than caches
 * hold, so that each is read from memory as in a model.
 */

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { parseArgs } from 'node:util'
import {
  FLOAT_FORMATS,
  floatGrid,
  fromFloat32,
  type LoadOptions,
  type Matrix,
  normalFloatGrid,
  packCodes,
  perGroup,
  type ScalarGrid,
  signedGrid,
  toNumbers,
  unsignedGrid,
} from '../../packages/core/src/index.ts'
import { type CudaKernels, cuda } from '../../packages/kernels-cuda-bindings/src/index.ts'

/** Outputs × inputs. */
const SHAPES: Readonly<Record<string, string>> = {
  'SmolLM2 135M, o': '576x576',
  'SmolLM2 135M, up': '1536x576',
  'SmolLM2 1.7B, o': '2048x2048',
  'SmolLM2 1.7B, up': '8192x2048',
  'Llama 8B, o': '4096x4096',
  'Llama 8B, up': '14336x4096',
  'Llama 8B, down': '4096x14336',
}
const TOKENS = '1,4,8,16,32,64,512'

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    shapes: { type: 'string' },
    tokens: { type: 'string', default: TOKENS },
    only: { type: 'string' },
    python: { type: 'string', default: process.env.LOWBIT_PYTHON },
  },
})

/** Bytes that copies of a weight take at least, and what one measurement takes at least, in products. */
const APART = 256 * 2 ** 20
const MOST_COPIES = 64
const PRODUCTS = 64
const GROUP = 128

interface Row {
  readonly shape: string
  readonly tokens: number
  readonly who: string
  readonly microseconds: number
  readonly gigabytesPerSecond: number
  readonly teraflops: number
  /** torch's time for f16 ÷ this one. */
  readonly overTorch?: number
}

interface Contestant {
  readonly name: string
  readonly make: (outputs: number, inputs: number) => Matrix
  readonly activations: NonNullable<LoadOptions['activations']>
}

const int4 = (rows: number, columns: number) => coded(rows, columns, 4, unsignedGrid(4))
const int8 = (rows: number, columns: number) => coded(rows, columns, 8, signedGrid(8))
const nf4 = (rows: number, columns: number) => coded(rows, columns, 4, normalFloatGrid(4))
const e4m3 = (rows: number, columns: number) =>
  coded(rows, columns, 8, floatGrid(FLOAT_FORMATS.f8_e4m3))

const CONTESTANTS: readonly Contestant[] = [
  { name: 'int4 × f16', make: int4, activations: 'f16' },
  { name: 'int4 × int8', make: int4, activations: 'int8' },
  { name: 'int8 × f16', make: int8, activations: 'f16' },
  { name: 'int8 × int8', make: int8, activations: 'int8' },
  { name: 'E4M3 × fp8', make: e4m3, activations: 'fp8' },
  { name: 'NF4 × f16', make: nf4, activations: 'f16' },
  { name: 'vectors of 8 × f16', make: vectors, activations: 'f16' },
  { name: 'f16 × f16', make: dense, activations: 'f16' },
  { name: 'int4 × f32', make: int4, activations: 'f32' },
  { name: 'f16 × f32', make: dense, activations: 'f32' },
]

const found = await cuda().catch((error: Error) => error)
if (found instanceof Error) {
  console.log(`skipped: ${found.message}`)
  process.exit(0)
}

const shapes = (flags.shapes ?? Object.values(SHAPES).join(','))
  .split(',')
  .map((shape) => shape.split('x').map(Number) as [number, number])
const tokenCounts = flags.tokens.split(',').map(Number)
const only = flags.only?.split(',')
const chosen = CONTESTANTS.filter(({ name }) => only?.includes(name) ?? true)
const torch = measureTorch()
const memory = copySpeed(found)
const rows = shapes.flatMap(([outputs, inputs]) =>
  chosen.flatMap((contestant) => measure(found, contestant, outputs, inputs)),
)
const { device, driver } = found
found.dispose()
if (flags.json) {
  const peers = typeof torch === 'string' ? { skipped: torch } : { torch }
  console.log(JSON.stringify({ device, driver, copyGigabytesPerSecond: memory, rows, ...peers }))
} else {
  console.log(`${device}, driver for CUDA ${driver}; copies ${memory.toFixed(0)} GB/s`)
  if (typeof torch === 'string') console.log(`torch: skipped: ${torch}`)
  console.table(
    rows.map(({ microseconds, gigabytesPerSecond, teraflops, overTorch, ...row }) => ({
      ...row,
      µs: Number(microseconds.toPrecision(3)),
      'GB/s': Number(gigabytesPerSecond.toPrecision(3)),
      'TFLOP/s': Number(teraflops.toPrecision(3)),
      ...(overTorch && { '× torch f16': Number(overTorch.toPrecision(3)) }),
    })),
  )
}

function measure(
  kernels: CudaKernels,
  { name, make, activations }: Contestant,
  outputs: number,
  inputs: number,
): Row[] {
  const matrix = make(outputs, inputs)
  const first = kernels.load(matrix, { activations })
  const copies = Math.min(MOST_COPIES, Math.ceil(APART / first.bytes))
  const weights = Array.from({ length: copies }, (_, i) =>
    i === 0 ? first : kernels.load(matrix, { activations }),
  )
  const shape = `${outputs} × ${inputs}`
  const measured = tokenCounts.map((tokens): Row => {
    const x = kernels.upload(values(tokens * inputs), tokens, inputs)
    const out = kernels.tensor(tokens, outputs)
    const products = Math.max(PRODUCTS, copies)
    const seconds =
      kernels.measure(() => {
        for (let i = 0; i < products; i++) kernels.matmul(out, x, weights[i % copies])
      }) / products
    kernels.free(x, out)
    const other = typeof torch === 'string' ? undefined : torch[`${outputs}x${inputs}x${tokens}`]
    return {
      ...{ shape, tokens, who: name, microseconds: seconds * 1e6 },
      gigabytesPerSecond: first.bytes / seconds / 1e9,
      teraflops: (2 * tokens * outputs * inputs) / seconds / 1e12,
      ...(other && { overTorch: other / seconds }),
    }
  })
  for (const weight of weights) kernels.unload(weight)
  return measured
}

function values(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => ((i * 2654435761) % 2001) / 1000 - 1)
}

function dense(rows: number, columns: number): Matrix {
  return { rows, columns, type: 'f16', values: fromFloat32('f16', values(rows * columns)) }
}

function coded(rows: number, columns: number, bits: 4 | 8, grid: ScalarGrid): Matrix {
  const group = Math.min(GROUP, columns)
  const blocks = perGroup(group)
  const count = rows * Math.ceil(columns / group)
  // The last bit is left out: E4M3 has a code that is no number.
  const codes = Uint8Array.from(
    { length: rows * columns },
    (_, i) => ((i * 2654435761) >>> (33 - bits)) << 1,
  )
  return {
    ...{ rows, columns },
    stages: [
      {
        codes: packCodes(codes, bits),
        vector: { length: 1, along: 'in' },
        grid,
        scale: { blocks, values: toNumbers('f16', new Float32Array(count).fill(2 ** -6)) },
        ...(grid.kind === 'integer' &&
          bits === 4 && {
            zero: { blocks, values: toNumbers('u4', new Float32Array(count).fill(8)) },
          }),
      },
    ],
  }
}

/** VPTQ's, in 2 bits: 65,536 vectors of 8 outputs. */
function vectors(rows: number, columns: number): Matrix {
  const [length, entries] = [8, 65_536]
  const count = Math.ceil(rows / length) * columns
  const codes = Uint32Array.from({ length: count }, (_, i) => (i * 2654435761) >>> 16)
  return {
    ...{ rows, columns },
    stages: [
      {
        codes: packCodes(codes, 16),
        vector: { length, along: 'out' },
        grid: {
          ...{ kind: 'codebook', length, entries },
          tables: toNumbers('f16', values(entries * length)),
        },
      },
    ],
  }
}

/** Bytes read and written. */
function copySpeed(kernels: CudaKernels): number {
  const side = 8192
  const [from, to] = [0, 0].map(() => kernels.tensor(side, side))
  const seconds = kernels.measure(() => {
    for (let i = 0; i < 8; i++) kernels.copy(to, from)
  })
  kernels.free(from, to)
  return (8 * 2 * side * side * 4) / seconds / 1e9
}

/** Seconds of torch's f16 products, by "outputs x inputs x tokens"; or why there are none. */
function measureTorch(): Readonly<Record<string, number>> | string {
  if (!flags.python) return 'needs --python or LOWBIT_PYTHON'
  const script = path.join(import.meta.dirname, 'torch_products.py')
  const words = [script, shapes.map((shape) => shape.join('x')).join(','), flags.tokens]
  const { stdout, stderr, status, error } = spawnSync(flags.python, words, { encoding: 'utf8' })
  if (error) return error.message
  if (status !== 0) return stderr.trim().split('\n').at(-1) ?? 'the script failed'
  return JSON.parse(stdout) as Record<string, number>
}

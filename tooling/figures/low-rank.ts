/**
 * Whether codebooks of single weights are worth compressing (GPTVQ, 2402.15319, section 3.3): entries sorted, the
 * table of all codebooks [codebooks, entries] cut to a lower rank by SVD, its left factor moved to the least error
 * of the layer's output and rounded to 8 bits; against 8-bit tables for larger groups. Output errors on the demo:
 *   node tooling/figures/low-rank.ts
 */

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  bitsPerWeight,
  type CodebookGrid,
  decode,
  definePlugin,
  type LookupGrid,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  type Tensor,
  unpackCodes,
} from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { calibrationWindows, loadTokenizer } from '@lowbit/model'
import { parseRecipe, quantizeModel } from '@lowbit/pipeline'
import { gptvq } from '@lowbit/quantizer-gptvq'

/** Entries, weights of a group, its columns, and the rank that its codebooks are cut to. */
const ROWS: readonly (readonly [number, number, number, number?])[] = [
  [4, 768, 256],
  [4, 512, 256],
  [4, 256, 256],
  [4, 256, 256, 2],
  [4, 128, 128, 2],
  [8, 1024, 256],
  [8, 512, 256],
  [8, 256, 256],
  [8, 256, 256, 4],
  [8, 256, 256, 3],
  [8, 256, 256, 2],
]

const sums = ROWS.map(() => ({ bits: 0, error: 0, matrices: 0 }))

async function measure(input: QuantizeInput): Promise<QuantizedMatrix> {
  const { kernels, weight, hessian } = input
  const kept = kernels.tensor(weight.rows, weight.columns)
  kernels.copy(kept, weight)
  const power = await kernels.distance(kept, undefined, hessian)
  let matrix: QuantizedMatrix | undefined
  for (const [i, [centroids, groupSize, groupColumns, rank]] of ROWS.entries()) {
    kernels.copy(weight, kept)
    const options = { vectorLength: 1, centroids, groupSize, groupColumns }
    matrix = await gptvq(options).quantize(input)
    const plain = { bits: bitsPerWeight([matrix]), values: decode(matrix) }
    const { bits, values } = rank ? await lowRank(input, kept, matrix, rank) : plain
    const decoded = kernels.upload(values, weight.rows, weight.columns)
    sums[i].bits += bits
    sums[i].error += (await kernels.distance(kept, decoded, hessian)) / power
    sums[i].matrices++
    kernels.free(decoded)
  }
  kernels.free(kept)
  return matrix!
}

/** A matrix whose codebooks T [tables, entries] have become U·V of a rank. */
async function lowRank(
  { kernels, hessian }: QuantizeInput,
  weight: Tensor,
  matrix: QuantizedMatrix,
  rank: number,
): Promise<{ bits: number; values: Float32Array }> {
  const { rows, columns } = matrix
  const grid = matrix.stages[0].grid as LookupGrid | CodebookGrid
  const { entries } = grid
  const blocks = { rows, columns, ...grid.blocks }
  const { tables, codes } = sorted(matrix, grid, blocks)
  const count = tables.length / entries
  const basis = leading(tables, entries, rank)
  const expand = (left: Float64Array): Float32Array =>
    Float32Array.from({ length: count * entries }, (_, i) => {
      const [table, entry] = [Math.floor(i / entries), i % entries]
      return basis.reduce((sum, v, a) => sum + left[table * rank + a] * v[entry], 0)
    })
  /** The same the other way: T·Vᵀ. */
  const project = (of: ArrayLike<number>): Float64Array =>
    Float64Array.from({ length: count * rank }, (_, i) => {
      const v = basis[i % rank]
      return v.reduce((sum, x, entry) => sum + x * of[Math.floor(i / rank) * entries + entry], 0)
    })
  const stored = kernels.upload(codes, rows, columns)
  const [decoded, product] = [kernels.tensor(rows, columns), kernels.tensor(rows, columns)]
  const summed = kernels.tensor(count, entries)
  const places = { blockRows: blocks.rows, blockColumns: blocks.columns }
  const spread = (left: Float64Array): void => {
    const values = kernels.upload(expand(left), count, entries)
    kernels.decodeCodes(decoded, stored, values, places)
    kernels.free(values)
  }
  const image = async (): Promise<Float64Array> => {
    kernels.multiply(product, decoded, hessian!)
    kernels.sumByCode(summed, product, stored, places)
    return project(await kernels.read(summed))
  }
  // Conjugate gradients on tr((W − Q)·H·(W − Q)ᵀ), which is quadratic in U.
  let left = project(tables)
  spread(left)
  const minus = kernels.upload(new Float32Array(rows).fill(-1), rows, 1)
  kernels.scale(decoded, decoded, { rows: minus })
  kernels.add(decoded, weight)
  let residual = await image()
  let direction = residual
  for (let step = 0, now = dot(residual, residual); step < 40 && now > 0; step++) {
    spread(direction)
    const changed = await image()
    const curvature = dot(direction, changed)
    if (!(curvature > 0)) break
    left = left.map((x, i) => x + (now / curvature) * direction[i])
    residual = residual.map((x, i) => x - (now / curvature) * changed[i])
    const next = dot(residual, residual)
    direction = residual.map((x, i) => x + (next / now) * direction[i])
    now = next
  }
  // 8 bits with a factor for each column of U.
  for (let a = 0; a < rank; a++) {
    const column = left.filter((_, i) => i % rank === a)
    const factor = column.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / 127 || 1
    for (let i = a; i < left.length; i += rank) left[i] = Math.round(left[i] / factor) * factor
  }
  spread(left)
  const values = await kernels.read(decoded)
  kernels.free(stored, decoded, product, summed, minus)
  const tableBits = 8 * count * rank + 16 * rank * (entries + 1)
  return { bits: Math.log2(entries) + tableBits / (rows * columns), values }
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i], 0)

/** Tables with their factors, entries ascending, and the codes that go with them. */
function sorted(
  { rows, columns, stages }: QuantizedMatrix,
  { entries, tables: numbers, tableScale }: LookupGrid | CodebookGrid,
  blocks: { readonly rows: number; readonly columns: number },
) {
  const tables = new Float64Array(numbers.values.length)
  const places = new Uint8Array(tables.length)
  for (let first = 0; first < tables.length; first += entries) {
    const factor = tableScale?.values[first / entries] ?? 1
    const part = Array.from(numbers.values.subarray(first, first + entries), (x) => x * factor)
    const order = [...part.keys()].sort((a, b) => part[a] - part[b])
    for (const [place, code] of order.entries()) {
      tables[first + place] = part[code]
      places[first + code] = place
    }
  }
  const across = Math.ceil(columns / blocks.columns)
  const codes = Uint8Array.from(unpackCodes(stages[0].codes), (code, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns]
    const table = Math.floor(row / blocks.rows) * across + Math.floor(column / blocks.columns)
    return places[table * entries + code]
  })
  if (codes.length !== rows * columns) throw new Error('codes of single weights were expected')
  return { tables, codes }
}

/** The leading right singular vectors, by power iteration with those found taken out. */
function leading(tables: Float64Array, entries: number, rank: number): number[][] {
  const found: number[][] = []
  for (let a = 0; a < rank; a++) {
    let v = Array.from({ length: entries }, (_, i) => Math.cos((a + 1) * (i + 0.5)))
    for (let iteration = 0; iteration < 500; iteration++) {
      const next = new Array<number>(entries).fill(0)
      for (let first = 0; first < tables.length; first += entries) {
        const along = v.reduce((sum, x, i) => sum + x * tables[first + i], 0)
        for (let i = 0; i < entries; i++) next[i] += along * tables[first + i]
      }
      for (const other of found) {
        const share = next.reduce((sum, x, i) => sum + x * other[i], 0)
        for (let i = 0; i < entries; i++) next[i] -= share * other[i]
      }
      const size = Math.hypot(...next)
      if (!(size > 0)) break
      v = next.map((x) => x / size)
    }
    found.push(v)
  }
  return found
}

const checkpoint = await openFolder(nodeFolder(fileURLToPath(DEMO_MODEL.folder)))
const tokenizer = await loadTokenizer(checkpoint)
const text = await readFile(fileURLToPath(DEMO_MODEL.calibration), 'utf8')
const kernels = await cpu({ threads: 1, wide: true })
const out = await mkdtemp(path.join(tmpdir(), 'lowbit-low-rank-'))
const about = { name: 'gptvq', summary: 'single weights', source: '2402.15319' }
await quantizeModel({
  ...{ checkpoint, kernels, folder: nodeFolder(out) },
  recipe: parseRecipe({ rules: [{ method: 'gptvq' }], calibration: { target: 'layer' } }),
  quantizers: [
    definePlugin(
      { ...about, options: gptvq.options },
      (options): Quantizer => ({ ...gptvq(options), quantize: measure }),
    ),
  ],
  format: FORMATS.find(({ name }) => name === 'lowbit')!,
  calibration: calibrationWindows(tokenizer.encode(text), 8, 512),
})
console.log('| codebooks | bits | output error, % |\n|---|---|---|')
for (const [i, [entries, size, , rank]] of ROWS.entries()) {
  const { bits, error, matrices } = sums[i]
  const what = `${entries} values for ${size} weights, ${rank ? `rank ${rank}` : '8 bits'}`
  console.log(
    `| ${what} | ${(bits / matrices).toFixed(3)} | ${((100 * error) / matrices).toFixed(3)} |`,
  )
}
await rm(out, { recursive: true })
await checkpoint.close()
kernels.dispose()

/**
 * The tables of palettize's README. Perplexities (each row a whole run), the time that palettes take, or the memory
 * of a step of differentiable k-means with and without weights of equal value sharing their attention:
 *   node tooling/figures/palettes.ts quality [--model DIR --calibration FILE --evaluation FILE --context 2048] [--samples N] [--windows N] [--only TEXT]
 *   node tooling/figures/palettes.ts training [as quality]
 *   node tooling/figures/palettes.ts speed --model DIR [--only TEXT]
 *   node tooling/figures/palettes.ts memory --model DIR [--only MODULE]
 */

import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { seededRandom } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { blockNames, decoderConfig } from '@lowbit/model'
import { attend, backward, freeTrace, palettize } from '@lowbit/palettize'
import { measurer } from './measure.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: fileURLToPath(DEMO_MODEL.folder) },
    calibration: { type: 'string', default: fileURLToPath(DEMO_MODEL.calibration) },
    evaluation: { type: 'string', default: fileURLToPath(DEMO_MODEL.evaluation) },
    context: { type: 'string', default: '512' },
    samples: { type: 'string', default: '16' },
    windows: { type: 'string', default: '5' },
    threads: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})

type Options = NonNullable<Parameters<typeof palettize>[0]>

const grouped = { granularity: 'per-grouped-channel', groupSize: 16 } as const
const plain = { feedback: false } as const

const QUALITY: readonly (readonly [string, Options])[] = [
  ['6 bits', { bits: 6 }],
  ['4 bits, scales of rows', { bits: 4, perChannelScale: true }],
  ['4 bits', { bits: 4 }],
  ['– nearest values', { bits: 4, ...plain }],
  ['– nearest values, no importance', { bits: 4, importance: 'none' }],
  ['– nearest values, 0.1 % outliers', { bits: 4, ...plain, outliers: 0.001 }],
  ['– 0.1 % outliers', { bits: 4, outliers: 0.001 }],
  ['– palettes not refitted', { bits: 4, rounds: 0 }],
  ['3 bits', { bits: 3 }],
  ['3 bits, 16 rows a palette', { bits: 3, ...grouped }],
  ['– nearest values', { bits: 3, ...grouped, ...plain }],
  ['– nearest values, no importance', { bits: 3, ...grouped, importance: 'none' }],
  ['– nearest values, Fisher information', { bits: 3, ...grouped, mode: 'sensitive' }],
  ['– palettes not refitted', { bits: 3, ...grouped, rounds: 0 }],
  ['8 bits for 4 weights', { bits: 8, clusterDim: 4 }],
]

const SPEED: readonly (readonly [string, Options])[] = [
  ['4 bits', { bits: 4, importance: 'none' }],
  ['3 bits, 16 rows a palette', { bits: 3, ...grouped, importance: 'none' }],
  ['3 bits, 16 rows a palette, sensitive', { bits: 3, ...grouped, mode: 'sensitive' }],
  ['6 bits', { bits: 6, importance: 'none' }],
  ['8 bits', { bits: 8, importance: 'none' }],
]

/** Differentiable k-means beside the defaults. */
const TRAINING: readonly (readonly [string, Options])[] = [
  ['2 bits', { bits: 2 }],
  ['– dkm', { bits: 2, mode: 'dkm' }],
  ['– dkm, 300 steps', { bits: 2, mode: 'dkm', steps: 300 }],
  ['– dkm, weights as training left them', { bits: 2, mode: 'dkm', ...plain }],
  ['– gsm', { bits: 2, mode: 'gsm' }],
  ['– hard', { bits: 2, mode: 'hard' }],
  ['– nearest values', { bits: 2, ...plain }],
  ['3 bits', { bits: 3 }],
  ['– dkm', { bits: 3, mode: 'dkm' }],
  ['– dkm, weights as training left them', { bits: 3, mode: 'dkm', ...plain }],
]

if (positionals[0] === 'speed') await speed()
else if (positionals[0] === 'memory') await memory()
else await quality(positionals[0] === 'training' ? TRAINING : QUALITY)

async function quality(table: typeof QUALITY): Promise<void> {
  const figures = await measurer({
    model: values.model,
    calibration: values.calibration,
    evaluation: values.evaluation,
    context: Number(values.context),
    samples: Number(values.samples),
    windows: Number(values.windows),
    threads: Number(values.threads),
  })
  console.log(
    '| setting | bits | output error, % | perplexity | KL, nats | CPU s |\n|---|---|---|---|---|---|',
  )
  console.log(`| original | 16 | 0 | ${(await figures.original()).toFixed(3)} | 0 | |`)
  for (const [name, options] of table) {
    if (values.only && !name.includes(values.only)) continue
    const m = await figures.measure({ rules: [{ method: 'palettize', ...options }] })
    console.log(
      `| ${name} | ${m.bits.toFixed(3)} | ${(100 * m.error).toFixed(3)} | ${m.perplexity.toFixed(3)} | ${m.kl.toFixed(4)} | ${m.cpuSeconds.toFixed(1)} |`,
    )
  }
  await figures.close()
}

/** CPU seconds of the quantizer alone, over all linears of the blocks; what a sensitive one is given is random. */
async function speed(): Promise<void> {
  const checkpoint = await openFolder(nodeFolder(values.model))
  const kernels = await cpu({ threads: Number(values.threads), wide: true })
  const { architecture, layers } = decoderConfig(checkpoint.config)
  const modules = Array.from({ length: layers }, (_, layer) => [
    ...blockNames(architecture, layer).modules.values(),
  ]).flat()
  console.log('| setting | CPU s, all linears |\n|---|---|')
  const random = seededRandom(1)
  for (const [name, options] of SPEED) {
    if (values.only && !name.includes(values.only)) continue
    const quantizer = palettize(options)
    let seconds = 0
    for (const module of modules) {
      const source = kernels.load(await checkpoint.readMatrix(module))
      const weight = kernels.tensor(source.rows, source.columns)
      kernels.gather(weight, source)
      kernels.unload(source)
      const squares = new Float32Array(weight.rows * weight.columns).map(() => random() ** 4)
      const fisher = kernels.upload(squares, weight.rows, weight.columns)
      const before = process.cpuUsage()
      await quantizer.quantize({ name: module, weight, fisher, kernels, seed: 0 })
      const { user, system } = process.cpuUsage(before)
      seconds += (user + system) / 1e6
      kernels.free(weight, fisher)
    }
    console.log(`| ${name} | ${seconds.toFixed(2)} |`)
  }
  kernels.dispose()
  await checkpoint.close()
}

/** Bytes of one step's attention (three iterations and the output), and CPU seconds forward and backward. */
async function memory(): Promise<void> {
  const checkpoint = await openFolder(nodeFolder(values.model))
  const kernels = await cpu({ threads: Number(values.threads) })
  const only = values.only ?? 'layers.0.mlp.down_proj'
  const module = checkpoint.modules.find((name) => name.endsWith(only))
  if (!module) throw new Error(`no module ends with ${only}`)
  const loaded = kernels.load(await checkpoint.readMatrix(module))
  const size = loaded.rows * loaded.columns
  const weight = kernels.tensor(loaded.rows, loaded.columns)
  kernels.gather(weight, loaded)
  kernels.unload(loaded)
  const codes = kernels.tensor(loaded.rows, loaded.columns, 'u16')
  const room = () => kernels.tensor(Math.min(65536, size), 1)
  const [distinct, counts] = [room(), room()]
  const n = await kernels.distinct(distinct, counts, codes, weight)
  const all = kernels.upload(await kernels.read(weight), size, 1)
  const ones = kernels.upload(new Float32Array(size).fill(1), size, 1)
  const table = kernels.tensor(1, 8)
  const blocks = { blockRows: loaded.rows, blockColumns: loaded.columns, method: 'kmeans' } as const
  kernels.fitTables(table, weight, blocks)
  const start = await kernels.read(table)
  const options = { temperature: (start[4] - start[3]) ** 2, iterations: 3 }
  console.log(
    `${module}, ${size} weights, 8 values\n\n| rows of attention | MB | CPU s of a step |\n|---|---|---|`,
  )
  for (const points of [
    { kernels, values: all, counts: ones },
    { kernels, values: kernels.rows(distinct, 0, n), counts: kernels.rows(counts, 0, n) },
  ]) {
    const [bytes, before] = [kernels.bytes, process.cpuUsage()]
    const trace = await attend(points, start, options)
    const held = kernels.bytes - bytes
    const gradients = await backward(points, trace, points.counts, options)
    const { user, system } = process.cpuUsage(before)
    console.log(
      `| ${points.values.rows} | ${(held / 1e6).toFixed(1)} | ${((user + system) / 1e6).toFixed(3)} |`,
    )
    freeTrace(kernels, trace)
    kernels.free(gradients.slope, gradients.shared)
  }
  kernels.dispose()
  await checkpoint.close()
}

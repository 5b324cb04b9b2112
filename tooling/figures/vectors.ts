/**
 * What each choice of VPTQ and GPTVQ gives, as Markdown tables; each row a whole run:
 *   node tooling/figures/vectors.ts vptq | gptvq [--model DIR --calibration FILE --evaluation FILE --context 2048] [--samples N] [--windows N] [--only TEXT …]
 */

import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { DEMO_MODEL } from '@lowbit/demo-model'
import type { RecipeInput } from '@lowbit/pipeline'
import { measurer } from './measure.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: fileURLToPath(DEMO_MODEL.folder) },
    calibration: { type: 'string', default: fileURLToPath(DEMO_MODEL.calibration) },
    evaluation: { type: 'string', default: fileURLToPath(DEMO_MODEL.evaluation) },
    context: { type: 'string', default: '512' },
    samples: { type: 'string', default: '16' },
    windows: { type: 'string', default: '32' },
    threads: { type: 'string', default: '1' },
    only: { type: 'string', multiple: true },
  },
})

const rule = (method: string, options: object = {}, calibration: object = {}): RecipeInput => ({
  rules: [{ method, ...options }],
  calibration,
})

/** Rows that begin with a dash change one thing of the row of defaults above them. */
const shape = { vectorLength: 6, centroids: 4096 }
const vptq = (options: object = {}, calibration: object = {}) =>
  rule('vptq', { ...shape, ...options }, calibration)
const own = { vectorLength: 8, centroids: 256, tables: 'matrix', tableType: 'f16' }

const TABLES: Record<string, readonly (readonly [string, RecipeInput])[]> = {
  vptq: [
    ['GPTQ, 2 bits, groups of 64', rule('gptq', { bits: 2, groupSize: 64 })],
    ['PQ, 256 vectors of 4', rule('pq')],
    ['VPTQ, 4096 vectors of 6, one table for all', vptq()],
    ['– no coordinate descent, scales not refitted', vptq({ sweeps: 0, refits: 0 })],
    ['– scales not refitted', vptq({ refits: 0 })],
    ['– inputs not rotated', vptq({ rotation: 'none' })],
    ['– no scales of rows and columns', vptq({ norm: 'none' })],
    ['– scales as published (least and range of columns)', vptq({ norm: 'range' })],
    ['– natural order', vptq({ order: 'none' })],
    ['– 1 % outlier columns', vptq({ outliers: 0.01 })],
    ['– and 64 residual centroids', vptq({ residualCentroids: 64 })],
    ['– aimed at the layer alone', vptq({}, { target: 'layer' })],
    [
      '256 + 256 vectors of 8, tables in f16 a matrix',
      rule('vptq', { ...own, residualCentroids: 256 }),
    ],
    ['– its tables not updated', rule('vptq', { ...own, residualCentroids: 256, updates: 0 })],
    [
      'the same as published: range, no rotation, descent or refitting, damping 0.01',
      rule(
        'vptq',
        {
          ...{ ...own, residualCentroids: 256, norm: 'range', rotation: 'none' },
          ...{ sweeps: 0, refits: 0, updates: 0, damping: 0.01 },
        },
        { target: 'layer' },
      ),
    ],
    ['2 bits', rule('vptq', { bits: 2 })],
    ['2.25 bits', rule('vptq', { bits: 2.25 })],
    ['2.5 bits', rule('vptq', { bits: 2.5 })],
    ['3 bits', rule('vptq', { bits: 3 })],
  ],
  gptvq: [2.125, 2.25, 3.125].flatMap((bitsPerValue) => [
    [
      `GPTQ, ${Math.floor(bitsPerValue)} bits, groups of 128`,
      rule('gptq', { bits: Math.floor(bitsPerValue) }),
    ],
    ...[1, 2, 4].map(
      (vectorLength) =>
        [
          `GPTVQ, ${bitsPerValue} bits, vectors of ${vectorLength}`,
          rule('gptvq', { bitsPerValue, vectorLength }),
        ] as const,
    ),
    [`– codebooks not updated`, rule('gptvq', { bitsPerValue, updates: 0 })],
    [`– k-means++`, rule('gptvq', { bitsPerValue, seeding: 'kmeans++' })],
    [`– two rounds`, rule('gptvq', { bitsPerValue, rounds: 2 })],
  ]),
}

const rows = TABLES[positionals[0]]
if (!rows) throw new Error(`say which table: ${Object.keys(TABLES).join(' or ')}`)
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
for (const [name, recipe] of rows) {
  if (values.only && !values.only.some((text) => name.includes(text))) continue
  const m = await figures.measure(recipe)
  console.log(
    `| ${name} | ${m.bits.toFixed(3)} | ${(100 * m.error).toFixed(3)} | ${m.perplexity.toFixed(3)} | ${m.kl.toFixed(4)} | ${m.cpuSeconds.toFixed(1)} |`,
  )
}
await figures.close()

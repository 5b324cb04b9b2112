/**
 * What each choice of GPTQ gives, as a Markdown table. On the bundled demo, or on a folder:
 *   node tooling/figures/main.ts [--model DIR --calibration FILE --evaluation FILE --context 2048] [--samples N] [--windows N]
 */

import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { DEMO_MODEL } from '@lowbit/demo-model'
import type { RecipeInput } from '@lowbit/pipeline'
import { measurer } from './measure.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(DEMO_MODEL.folder) },
    calibration: { type: 'string', default: fileURLToPath(DEMO_MODEL.calibration) },
    evaluation: { type: 'string', default: fileURLToPath(DEMO_MODEL.evaluation) },
    context: { type: 'string', default: '512' },
    samples: { type: 'string', default: '32' },
    windows: { type: 'string', default: '64' },
    threads: { type: 'string', default: '2' },
    bits: { type: 'string', default: '3' },
    only: { type: 'string' },
  },
})

const bits = Number(values.bits)
const gptq = (options: object = {}, calibration: object = {}): RecipeInput => ({
  rules: [{ method: 'gptq', bits, ...options }],
  calibration,
})

/** Each row changes one thing of the row of defaults. */
const rows: [string, RecipeInput][] = [
  ['round to nearest, range as it is', { rules: [{ method: 'rtn', bits, search: 1 }] }],
  ['round to nearest, 40 clipping factors (default)', { rules: [{ method: 'rtn', bits }] }],
  ['GPTQ, defaults', gptq()],
  ['– without coordinate descent', gptq({ sweeps: 0 })],
  ['– natural order', gptq({ order: 'none' })],
  ['– group-aware order, dynamic groups', gptq({ order: 'group-aware', groups: 'dynamic' })],
  ['– no search', gptq({ search: 1 })],
  ['– search not weighted', gptq({ searchWeight: 'none' })],
  ['– aimed at its own layer', gptq({}, { target: 'layer' })],
  ['– not true-sequential', gptq({}, { trueSequential: false })],
  ['– symmetric', gptq({ symmetric: true })],
  ['– damping 0.01', gptq({ damping: 0.01 })],
  ['– damping 0.1', gptq({ damping: 0.1 })],
  [
    'as published: natural order, dynamic groups, no search, no sweeps, damping 0.01, own layer',
    gptq(
      { order: 'none', groups: 'dynamic', search: 1, sweeps: 0, damping: 0.01 },
      { trueSequential: false, target: 'layer' },
    ),
  ],
]

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
  if (values.only && !name.includes(values.only)) continue
  const m = await figures.measure(recipe)
  console.log(
    `| ${name} | ${m.bits.toFixed(3)} | ${(100 * m.error).toFixed(3)} | ${m.perplexity.toFixed(3)} | ${m.kl.toFixed(4)} | ${m.cpuSeconds.toFixed(1)} |`,
  )
}
await figures.close()

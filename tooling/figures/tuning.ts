/**
 * What end-to-end tuning makes of a quantized folder, as a Markdown table; each row tunes it anew:
 *   node tooling/figures/tuning.ts QUANTIZED [--model DIR --calibration FILE --evaluation FILE --context 2048] [--samples N] [--windows N]
 *     [--set steps=64,rate=0.01 …]
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Checkpoint, isQuantized } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import {
  calibrationWindows,
  loadDecoder,
  loadTokenizer,
  openDecoder,
  perplexity,
} from '@lowbit/model'
import { endToEnd, type Tuned } from '@lowbit/pipeline'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: fileURLToPath(DEMO_MODEL.folder) },
    calibration: { type: 'string', default: fileURLToPath(DEMO_MODEL.calibration) },
    evaluation: { type: 'string', default: fileURLToPath(DEMO_MODEL.evaluation) },
    context: { type: 'string', default: '512' },
    samples: { type: 'string', default: '16' },
    windows: { type: 'string', default: '16' },
    set: { type: 'string', multiple: true, default: [''] },
  },
})

if (!positionals[0]) throw new Error('say which quantized folder')
const context = Number(values.context)
const source = await openFolder(nodeFolder(values.model))
const quantized = await openFolder(nodeFolder(positionals[0]))
const tokenizer = await loadTokenizer(source)
const text = tokenizer.encode(await readFile(values.evaluation, 'utf8'))
const windows = calibrationWindows(
  tokenizer.encode(await readFile(values.calibration, 'utf8')),
  Number(values.samples),
  context,
)
const running = await cpu({ threads: 1, strict: false, wide: true })
const original = await loadDecoder(source, running)

/** The quantized model with what has moved in place of what it had. */
function tunedCheckpoint({ scales, vectors }: Tuned): Checkpoint {
  return {
    ...quantized,
    async readMatrix(module) {
      const matrix = await quantized.readMatrix(module)
      return isQuantized(matrix) ? { ...matrix, ...scales.get(module) } : matrix
    },
    readVector: async (name) => vectors.get(name) ?? (await quantized.readVector(name)),
  }
}

async function row(name: string, checkpoint: Checkpoint, seconds: string): Promise<void> {
  const decoder = await loadDecoder(checkpoint, running)
  const options = { context, windows: Number(values.windows), reference: original }
  const { perplexity: value, kl = 0 } = await perplexity(decoder, text, options)
  decoder.dispose()
  console.log(`| ${name} | ${value.toFixed(3)} | ${kl.toFixed(4)} | ${seconds} |`)
}

console.log('| tuning | perplexity | KL, nats | CPU s |\n|---|---|---|---|')
await row('none', quantized, '')
for (const set of values.set) {
  const options = set.split(',').filter(Boolean)
  const tuner = endToEnd(
    Object.fromEntries(options.map((one) => [one.split('=')[0], Number(one.split('=')[1])])),
  )
  if (tuner.options.tableRate) throw new Error('tables: quantize with a recipe that tunes them')
  const kernels = await cpu({ threads: 1, wide: true })
  const before = process.cpuUsage()
  const tuned = await tuner.tune({
    opened: openDecoder(source, kernels),
    readBlock: async () => ({ ...quantized, close: async () => {} }),
    windows,
  })
  const { user, system } = process.cpuUsage(before)
  kernels.dispose()
  const { steps, rate, length } = tuner.options
  await row(
    `${steps} windows of ${length}, rate ${rate}`,
    tunedCheckpoint(tuned),
    ((user + system) / 1e6).toFixed(0),
  )
}
running.dispose()
await quantized.close()
await source.close()

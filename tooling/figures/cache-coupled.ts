/**
 * What coupled channels lose at 2 and at 1 bit, beside KIVI at 2 bits, and how long they take to fit:
 *
 *     node tooling/figures/cache-coupled.ts [--model FOLDER --text FILE] [--calibration FILE] [--bits 2,1] [--samples 4] [--length 1024] [--context 2048] [--skip 0] [--fisher]
 *
 * Without --calibration the end of the text is learnt from, or the demo's calibration text.
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheScheme } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { cq, kivi } from '@lowbit/kvcache'
import {
  calibrationWindows,
  fitCache,
  loadDecoder,
  loadTokenizer,
  openDecoder,
  perplexity,
} from '@lowbit/model'
import { cacheSamples, type LayerSample, type Read } from './cache-samples.ts'
import { referenceOf } from './reference.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    calibration: { type: 'string' },
    bits: { type: 'string', default: '2,1' },
    samples: { type: 'string', default: '4' },
    length: { type: 'string', default: '1024' },
    context: { type: 'string', default: '2048' },
    skip: { type: 'string', default: '0' },
    fisher: { type: 'boolean', default: false },
  },
})

const kernels = await cpu({ threads: 1, strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const tokenizer = await loadTokenizer(checkpoint)
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const reference = referenceOf(decoder)
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const context = Math.min(Number(flags.context), decoder.config.context)
const skip = context * Number(flags.skip)
const tokens = tokenizer.encode(text.slice(0, (skip + context) * 8)).slice(skip, skip + context)
const [count, length] = [Number(flags.samples), Math.min(Number(flags.length), context)]
const learnt =
  flags.calibration ?? (flags.text ? flags.text : fileURLToPath(DEMO_MODEL.calibration))
const calibration = tokenizer
  .encode((await readFile(learnt, 'utf8')).slice(-(count + 1) * length * 6))
  .slice(-count * length)
const windows = calibrationWindows(calibration, count, length)

const known: LayerSample[] = []
console.log('| cache | perplexity | change | KL, nats | fitted in, s |\n|---|---|---|---|---|')
await row('kivi 2', kivi())
for (const bits of flags.bits.split(',').map(Number)) {
  const started = performance.now()
  const fitted = await fitCache(decoder, cq({ bits }), windows)
  await row(`cq ${bits}`, fitted, (performance.now() - started) / 1000)
  if (flags.fisher) await row(`cq ${bits}, by Fisher information`, await weighted(cq({ bits })))
}
decoder.dispose()
kernels.dispose()

/** Fitted to the same windows, each vector as much as the loss says. */
async function weighted(scheme: CacheScheme): Promise<CacheScheme> {
  if (known.length === 0) {
    const opened = openDecoder(checkpoint, kernels)
    const read: Read = async (x) => (await kernels.read(x)).slice()
    for (const ids of windows) known.push(...(await cacheSamples(opened, kernels, ids, read)))
  }
  return scheme.fit!(kernels, decoder.cacheShape, async (at) => {
    const mine = known.filter(({ layer }) => layer === at)
    return { keys: mine.map(({ keys }) => keys), values: mine.map(({ values }) => values) }
  })
}

async function row(name: string, cache: CacheScheme, seconds?: number): Promise<void> {
  const {
    perplexity: own,
    referencePerplexity = own,
    kl = 0,
  } = await perplexity(decoder, tokens, { context, windows: 1, reference, cache })
  const change = `${((own / referencePerplexity - 1) * 100).toFixed(2)} %`
  const taken = seconds === undefined ? '' : seconds.toFixed(1)
  console.log(`| ${name} | ${own.toFixed(3)} | ${change} | ${kl.toFixed(5)} | ${taken} |`)
}

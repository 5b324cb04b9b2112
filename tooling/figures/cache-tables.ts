/**
 * Tables of keys and values fitted to a model, weighted by Fisher information (KVQuant) and not, as JSON for a recipe,
 * and what caches with them lose beside those of even steps:
 *
 *     node tooling/figures/cache-tables.ts [--model FOLDER --text FILE] [--calibration FILE] [--bits 2,3] [--samples 4] [--context 2048] [--skip 0]
 *
 * A sample is 512 tokens, and its loss the sum of its next-token cross-entropies. Every fourth block of 32 tokens is
 * taken.
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheSample, Tensor } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { fitCacheTable, kivi } from '@lowbit/kvcache'
import { loadDecoder, loadTokenizer, openDecoder, perplexity } from '@lowbit/model'
import { cacheSamples } from './cache-samples.ts'
import { referenceOf } from './reference.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    calibration: { type: 'string' },
    bits: { type: 'string', default: '2,3' },
    samples: { type: 'string', default: '4' },
    context: { type: 'string', default: '2048' },
    skip: { type: 'string', default: '0' },
  },
})

const SAMPLE = 512
const GROUP = 32
/** Of each four blocks of tokens one is taken. */
const EVERY = 4

const kernels = await cpu({ threads: 1, strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const tokenizer = await loadTokenizer(checkpoint)
const opened = openDecoder(checkpoint, kernels)
const { config } = opened
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const fitted =
  flags.calibration ?? (flags.text ? flags.text : fileURLToPath(DEMO_MODEL.calibration))
const count = Number(flags.samples)
const calibration = tokenizer
  .encode((await readFile(fitted, 'utf8')).slice(-(count + 1) * SAMPLE * 6))
  .slice(-count * SAMPLE)
const width = config.keyValueHeads * config.headSize

const samples: { keys: CacheSample[]; values: CacheSample[] } = { keys: [], values: [] }
for (let i = 0; i < count; i++) {
  const ids = calibration.slice(i * SAMPLE, (i + 1) * SAMPLE)
  for (const { keys, values } of await cacheSamples(opened, kernels, ids, turned)) {
    samples.keys.push(keys)
    samples.values.push(values)
  }
}

const context = Math.min(Number(flags.context), config.context)
const skip = context * Number(flags.skip)
const tokens = tokenizer.encode(text.slice(0, (skip + context) * 8)).slice(skip, skip + context)
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const reference = referenceOf(decoder)
console.log('| cache | perplexity | change | KL, nats |\n|---|---|---|---|')
const found: Record<string, unknown> = {}
for (const bits of flags.bits.split(',').map(Number) as (2 | 3 | 4)[]) {
  const fit = async (weighted: boolean) => {
    const plain = (all: CacheSample[]) =>
      weighted ? all : all.map(({ numbers }) => ({ numbers, width }))
    const [keys, values] = await Promise.all([
      fitCacheTable(kernels, plain(samples.keys), { bits, tokens: GROUP, channels: 1 }),
      fitCacheTable(kernels, plain(samples.values), { bits, tokens: 1, channels: GROUP }),
    ])
    return { keys: rounded(keys), values: rounded(values) }
  }
  const [alike, fisher] = [await fit(false), await fit(true)]
  found[`${bits} bits`] = fisher
  await row(`kivi ${bits}`, { bits })
  await row(`kivi ${bits}, fitted tables`, { bits, tables: alike })
  await row(`kivi ${bits}, fitted by Fisher information`, { bits, tables: fisher })
  await row(`kivi ${bits}, keys fitted by Fisher information`, {
    bits,
    tables: { keys: fisher.keys },
  })
}
console.log(JSON.stringify(found))
kernels.dispose()

async function row(name: string, options: Parameters<typeof kivi>[0]): Promise<void> {
  const cache = kivi(options)
  const {
    perplexity: own,
    referencePerplexity = own,
    kl = 0,
  } = await perplexity(decoder, tokens, { context, windows: 1, reference, cache })
  const change = ((own / referencePerplexity - 1) * 100).toFixed(2)
  console.log(`| ${name} | ${own.toFixed(3)} | ${change} % | ${kl.toFixed(5)} |`)
}

function rounded(table: Float32Array): number[] {
  return [...table].map((value) => Number(value.toFixed(4)))
}

/** Heads are turned before they are coded, and their gradients with them. */
async function turned(x: Tensor): Promise<Float32Array> {
  const copy = kernels.tensor(x.rows, width)
  kernels.copy(copy, x)
  kernels.rotate(copy, {
    block: config.headSize,
    signs: new Uint8Array(Math.ceil(width / 8)),
  })
  const all = await kernels.read(copy)
  kernels.free(copy)
  const parts: number[] = []
  for (let at = 0; at < all.length; at += EVERY * GROUP * width) {
    parts.push(...all.subarray(at, at + GROUP * width))
  }
  return Float32Array.from(parts)
}

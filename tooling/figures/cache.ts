/**
 * What caches in few bits cost and give, each token scored from the cache of those before it:
 *
 *     node tooling/figures/cache.ts [--model FOLDER --text FILE] [--context 2048] [--windows 1] [--only kivi,int4]
 *     node tooling/figures/cache.ts --speed [--model FOLDER --text FILE] [--context 8192]
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheScheme } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { fp8, int2, int3, int4, int8, kivi, nf4 } from '@lowbit/kvcache'
import { type Decoder, fullCache, loadDecoder, loadTokenizer, perplexity } from '@lowbit/model'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    context: { type: 'string' },
    windows: { type: 'string', default: '1' },
    only: { type: 'string' },
    speed: { type: 'boolean', default: false },
  },
})

const ROWS: readonly (readonly [name: string, make: () => CacheScheme])[] = [
  ['full, f32', fullCache],
  ['int8', () => int8()],
  ['fp8', () => fp8()],
  ['int4', () => int4()],
  ['int4, not rotated', () => int4({ rotation: 'none' })],
  ['nf4', () => nf4()],
  ['kivi, 4 bits', () => kivi({ bits: 4 })],
  ['int3', () => int3()],
  ['kivi, 3 bits', () => kivi({ bits: 3 })],
  ['int2', () => int2()],
  ['int2, window of 128', () => int2({ window: 128 })],
  ['kivi, 2 bits', () => kivi()],
  ['kivi, 2 bits, rotated', () => kivi({ rotation: 'hadamard' })],
]

/** Tokens that are timed. */
const NEW = 24
/** The engine compiles a kernel anew once it has run for a while; before that it is half as fast. */
const WARM_UP = 300

const kernels = await cpu({ threads: 1, strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const tokenizer = await loadTokenizer(checkpoint)
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const context = Math.min(Number(flags.context ?? 2048), decoder.config.context)
const windows = Number(flags.windows)
const tokens = tokenizer.encode(text.slice(0, context * windows * 8)).slice(0, context * windows)
const only = flags.only?.split(',')
const rows = ROWS.filter(([name]) => !only || only.some((part) => name.startsWith(part)))

if (flags.speed) await speeds()
else await losses()
kernels.dispose()

async function losses(): Promise<void> {
  console.log('| cache | bytes a token | perplexity | change | KL, nats |\n|---|---|---|---|---|')
  for (const [name, make] of rows) {
    const {
      perplexity: own,
      referencePerplexity = own,
      kl = 0,
    } = await perplexity(decoder, tokens, {
      context,
      windows,
      reference: decoder,
      cache: make(),
    })
    const change = `${(100 * (own / referencePerplexity - 1)).toFixed(2)} %`
    console.log(
      `| ${name} | ${bytesAToken(make()).toFixed(0)} | ${own.toFixed(3)} | ${change} | ${kl.toFixed(4)} |`,
    )
  }
}

/** What 1,024 more tokens take, all layers together. */
function bytesAToken(scheme: CacheScheme): number {
  const { layers, keyValueHeads, headSize } = decoder.config
  const [more, fewer] = [2048, 1024].map((capacity) => {
    const cache = scheme.create(kernels, { layers, keyValueHeads, headSize, capacity })
    const { bytes } = cache
    cache.dispose()
    return bytes
  })
  return (more - fewer) / 1024
}

/** Tokens per second behind a cache that is full of all before them. */
async function speeds(): Promise<void> {
  console.log(`| cache | MB at ${context} tokens | tokens/s |\n|---|---|---|`)
  for (const [name, make] of rows) {
    await seconds(make, WARM_UP, WARM_UP + 256)
    const { taken, bytes } = await seconds(make, NEW, context)
    console.log(`| ${name} | ${(bytes / 1e6).toFixed(1)} | ${(NEW / taken).toFixed(1)} |`)
  }
}

async function seconds(
  make: () => CacheScheme,
  count: number,
  upTo: number,
): Promise<{ taken: number; bytes: number }> {
  const cache = decoder.cache(upTo, make())
  for (let from = 0; from < upTo - count; from += 256) {
    const some = tokens.slice(from, Math.min(from + 256, upTo - count))
    kernels.free(decoder.forward(some, cache))
  }
  const started = performance.now()
  for (const token of tokens.slice(upTo - count, upTo)) await step(decoder, cache, token)
  const taken = (performance.now() - started) / 1000
  const { bytes } = cache
  cache.dispose()
  return { taken, bytes }
}

async function step(
  model: Decoder,
  cache: ReturnType<Decoder['cache']>,
  token: number,
): Promise<void> {
  const hidden = model.forward([token], cache)
  const logits = model.logits(hidden)
  await kernels.read(kernels.rows(logits, 0, 1))
  kernels.free(hidden, logits)
}

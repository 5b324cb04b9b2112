/**
 * What caches in few bits cost and give, each token scored from the cache of those before it:
 *
 *     node tooling/figures/cache.ts [--model FOLDER --text FILE] [--context 2048] [--windows 1] [--skip 0] [--only 'kivi 2,int4']
 *     node tooling/figures/cache.ts --needle [--model FOLDER --text FILE] [--context 2048] [--needles 1] [--kept needles.jsonl]
 *     node tooling/figures/cache.ts --speed [--model FOLDER --text FILE] [--context 8192] [--threads 1]
 */

import { existsSync } from 'node:fs'
import { appendFile, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheScheme } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { cq, f16, fp8, int2, int3, int4, int8, kivi, nf4 } from '@lowbit/kvcache'
import {
  calibrationWindows,
  type Decoder,
  fitCache,
  fullCache,
  loadDecoder,
  loadTokenizer,
  perplexity,
} from '@lowbit/model'
import { fillCache } from '../bench/src/fill-cache.ts'
import { referenceOf } from './reference.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    context: { type: 'string' },
    windows: { type: 'string', default: '1' },
    skip: { type: 'string', default: '0' },
    only: { type: 'string' },
    needle: { type: 'boolean', default: false },
    needles: { type: 'string', default: '1' },
    kept: { type: 'string' },
    speed: { type: 'boolean', default: false },
    threads: { type: 'string', default: '1' },
  },
})

const ROWS: readonly (readonly [name: string, make: () => CacheScheme])[] = [
  ['full', fullCache],
  ['f16', () => f16()],
  ['int8', () => int8()],
  ['fp8', () => fp8()],
  ['kivi 4', () => kivi({ bits: 4 })],
  ['kivi 4 not rotated', () => kivi({ bits: 4, rotation: 'none' })],
  ['int4', () => int4()],
  ['int4 not rotated', () => int4({ rotation: 'none' })],
  ['int4 no window', () => int4({ window: 0 })],
  ['int4 before RoPE', () => int4({ positions: 'before' })],
  ['int4 16 sinks', () => int4({ sinks: 16 })],
  ['int4 groups of 16', () => int4({ group: 16 })],
  ['int4 window of 256', () => int4({ window: 256 })],
  ['int4 range 0.95', () => int4({ range: 0.95 })],
  ['int4 groups of 16 before RoPE', () => int4({ group: 16, positions: 'before' })],
  [
    'int4 groups of 64 with outliers before RoPE',
    () => int4({ group: 64, outliers: 0.01, positions: 'before' }),
  ],
  ['nf4', () => nf4()],
  ['kivi 3', () => kivi({ bits: 3 })],
  ['kivi 3 not rotated', () => kivi({ bits: 3, rotation: 'none' })],
  ['int3', () => int3()],
  ['kivi 2', () => kivi()],
  ['kivi 2 not rotated', () => kivi({ rotation: 'none' })],
  ['kivi 2 whole range', () => kivi({ range: 1 })],
  ['int2', () => int2()],
  ['cq 2', () => cq()],
  ['cq 1', () => cq({ bits: 1 })],
  ['int8 newest 512', () => int8({ slide: 512 })],
  ['int4 outliers', () => int4({ outliers: 0.01 })],
  ['int4 not rotated outliers', () => int4({ rotation: 'none', outliers: 0.01 })],
  ['int3 outliers', () => int3({ outliers: 0.01 })],
  ['int3 not rotated', () => int3({ rotation: 'none' })],
  ['int3 not rotated outliers', () => int3({ rotation: 'none', outliers: 0.01 })],
  ['kivi 3 outliers', () => kivi({ bits: 3, outliers: 0.01 })],
  ['kivi 2 outliers', () => kivi({ outliers: 0.01 })],
  ['kivi 2 whole range outliers', () => kivi({ range: 1, outliers: 0.01 })],
  ['kivi 2 whole range 3 % outliers', () => kivi({ range: 1, outliers: 0.03 })],
  ['kivi 2 not rotated whole range', () => kivi({ rotation: 'none', range: 1 })],
  [
    'kivi 2 not rotated whole range outliers',
    () => kivi({ rotation: 'none', range: 1, outliers: 0.01 }),
  ],
]

/** Where a needle lies in the text, and what it is about. */
const DEPTHS = [0, 0.25, 0.5, 0.75, 1]
const HOUSES = ['blue', 'green', 'old', 'small', 'white']

/** Tokens that are timed. */
const NEW = 24
/** The engine compiles a kernel anew once it has run for a while; before that it is half as fast. */
const WARM_UP = 300

const kernels = await cpu({ threads: Number(flags.threads), strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const reference = referenceOf(decoder)
const tokenizer = await loadTokenizer(checkpoint)
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const context = Math.min(Number(flags.context ?? 2048), decoder.config.context)
const windows = Number(flags.windows)
/** Windows that are left out at the beginning. */
const skip = context * Number(flags.skip)
const tokens = tokenizer
  .encode(text.slice(0, (skip + context * windows) * 8))
  .slice(skip, skip + context * windows)
const only = flags.only?.split(',')
const rows = ROWS.filter(([name]) => !only || only.includes(name))

if (flags.speed) await speeds()
else if (flags.needle) await needles()
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
      reference,
      cache: await fitted(make()),
    })
    const change = `${(100 * (own / referencePerplexity - 1)).toFixed(2)} %`
    console.log(
      `| ${name} | ${bytesAToken(make()).toFixed(0)} | ${own.toFixed(3)} | ${change} | ${kl.toFixed(4)} |`,
    )
  }
}

/** What a token takes once it has left the window, all layers together. */
function bytesAToken({ size }: CacheScheme): number {
  const [more, fewer] = [4096, 2048].map((length) => size(decoder.cacheShape, length).bytes)
  return (more - fewer) / 2048
}

interface Found {
  readonly loss: number
  readonly said: boolean
}

/**
 * A fact among other text, and a question for it at the end: how likely its answer is, and whether it is said. Each
 * answer is added to the file of `--kept` as it comes, and what lies there is not asked again.
 */
async function needles(): Promise<void> {
  const kept = new Map(await keptAnswers())
  const titles = DEPTHS.map((depth) => `${depth * 100} %`)
  console.log(
    `| cache, ${context} tokens | ${titles.join(' | ')} | said | nats |\n|---|${'---|'.repeat(titles.length + 2)}`,
  )
  for (const [name, make] of rows) {
    let scheme: CacheScheme | undefined
    const found: Found[][] = []
    for (const depth of DEPTHS) {
      const here: Found[] = []
      for (let n = 0; n < Number(flags.needles); n++) {
        const key = [flags.model ?? 'demo', name, context, depth, n].join(', ')
        let one = kept.get(key)
        if (!one) {
          scheme ??= await fitted(make())
          one = await needle(scheme, depth, n)
          if (flags.kept) await appendFile(flags.kept, `${JSON.stringify([key, one])}\n`)
        }
        here.push(one)
      }
      found.push(here)
    }
    const mean = (some: readonly Found[]): string =>
      (some.reduce((sum, { loss }) => sum + loss, 0) / some.length).toFixed(3)
    const all = found.flat()
    const said = all.filter((one) => one.said).length
    const cells = found.map(mean).join(' | ')
    console.log(`| ${name} | ${cells} | ${said} of ${all.length} | ${mean(all)} |`)
  }
}

async function keptAnswers(): Promise<[key: string, found: Found][]> {
  if (!flags.kept || !existsSync(flags.kept)) return []
  // A line that a killed run began has no end and is left out.
  const lines = (await readFile(flags.kept, 'utf8')).split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line))
}

/** The scheme, fitted where it learns. */
async function fitted(scheme: CacheScheme): Promise<CacheScheme> {
  return scheme.fit ? fitCache(decoder, scheme, calibration()) : scheme
}

/** What schemes are fitted to: the end of the text, far behind what is scored. */
function calibration(): number[][] {
  const [count, length] = [4, Math.min(1024, decoder.config.context)]
  const end = tokenizer.encode(text.slice(-(count + 1) * length * 6)).slice(-count * length)
  return calibrationWindows(end, count, length)
}

/** Nats of the answer, and whether each of its tokens is the likeliest. */
async function needle(scheme: CacheScheme, depth: number, n: number): Promise<Found> {
  const house = HOUSES[n % HOUSES.length]
  const number = 1000 + (((n + 1) * 3917 + depth * 1364) % 9000)
  const fact = tokenizer.encode(` The secret number of the ${house} house is ${number}.`)
  const asked = tokenizer.encode(
    `\n\nQuestion: What is the secret number of the ${house} house?\nAnswer: The secret number of the ${house} house is`,
  )
  const answer = tokenizer.encode(` ${number}.`)
  const room = context - fact.length - asked.length - answer.length
  const at = Math.floor(depth * room)
  const hay = tokens.slice(0, room)
  const all = [...hay.slice(0, at), ...fact, ...hay.slice(at), ...asked, ...answer]
  const cache = decoder.cache(all.length, scheme)
  let loss = 0
  let said = true
  for (let from = 0; from < all.length; ) {
    const some = all.slice(from, from + Math.min(cache.steady, 128))
    const hidden = decoder.forward(some, cache)
    // The row of a token predicts the next one.
    const first = Math.max(0, all.length - answer.length - 1 - from)
    const last = Math.min(some.length, all.length - 1 - from)
    if (first < last) {
      const logits = decoder.logits(kernels.rows(hidden, first, last))
      const values = await kernels.read(logits)
      const out = kernels.tensor(last - first, 1)
      kernels.crossEntropy(
        out,
        logits,
        Uint32Array.from(all.slice(from + first + 1, from + last + 1)),
      )
      for (const nats of await kernels.read(out)) loss += nats
      for (let row = 0; row < last - first; row++) {
        const line = values.subarray(row * logits.columns, (row + 1) * logits.columns)
        const target = all[from + first + 1 + row]
        if (line.some((value) => value > line[target])) said = false
      }
      kernels.free(logits, out)
    }
    kernels.free(hidden)
    from += some.length
  }
  cache.dispose()
  return { loss: loss / answer.length, said }
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
  fillCache(decoder, cache, upTo - count)
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

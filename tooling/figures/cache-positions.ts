/**
 * Whether keys lose less when they are coded before RoPE than behind it (KVQuant, Hooper et al., NeurIPS 2024, section
 * 3.2):
 *
 *     node tooling/figures/cache-positions.ts [--model FOLDER --text FILE] [--calibration FILE] [--context 1024] [--skip 0]
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheScheme } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { cq, int4, kivi } from '@lowbit/kvcache'
import { calibrationWindows, fitCache, loadDecoder, loadTokenizer, perplexity } from '@lowbit/model'
import { referenceOf } from './reference.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    calibration: { type: 'string' },
    context: { type: 'string', default: '1024' },
    skip: { type: 'string', default: '0' },
  },
})

type Positions = 'behind' | 'before'
const ROWS: readonly (readonly [name: string, make: (positions: Positions) => CacheScheme])[] = [
  ['kivi 2', (positions) => kivi({ positions })],
  ['kivi 2, not rotated', (positions) => kivi({ rotation: 'none', positions })],
  ['kivi 3', (positions) => kivi({ bits: 3, positions })],
  ['kivi 3, not rotated', (positions) => kivi({ bits: 3, rotation: 'none', positions })],
  ['int4', (positions) => int4({ positions })],
  ['cq 2', (positions) => cq({ positions })],
  ['cq 1', (positions) => cq({ bits: 1, positions })],
]
const [WINDOWS, LENGTH] = [4, 1024]

const kernels = await cpu({ threads: 1, strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const tokenizer = await loadTokenizer(checkpoint)
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const reference = referenceOf(decoder)
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const context = Math.min(Number(flags.context), decoder.config.context)
const skip = context * Number(flags.skip)
const tokens = tokenizer.encode(text.slice(0, (skip + context) * 8)).slice(skip, skip + context)
const learnt =
  flags.calibration ?? (flags.text ? flags.text : fileURLToPath(DEMO_MODEL.calibration))
const length = Math.min(LENGTH, context)
const calibration = tokenizer
  .encode((await readFile(learnt, 'utf8')).slice(-(WINDOWS + 1) * length * 6))
  .slice(-WINDOWS * length)
const windows = calibrationWindows(calibration, WINDOWS, length)

console.log('| cache | behind RoPE | before RoPE |\n|---|---|---|')
for (const [name, make] of ROWS) {
  const cells: string[] = []
  for (const positions of ['behind', 'before'] as const) {
    const cache = await fitCache(decoder, make(positions), windows)
    const {
      perplexity: own,
      referencePerplexity = own,
      kl = 0,
    } = await perplexity(decoder, tokens, { context, windows: 1, reference, cache })
    cells.push(`${((own / referencePerplexity - 1) * 100).toFixed(2)} %, ${kl.toFixed(4)} nats`)
  }
  console.log(`| ${name} | ${cells.join(' | ')} |`)
}
decoder.dispose()
kernels.dispose()

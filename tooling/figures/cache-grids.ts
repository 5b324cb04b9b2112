/**
 * What other ways of coding keys and values would lose: squared errors of one block's numbers (32 tokens of a channel
 * for keys, 32 channels of a token for values), as shares of their variance within the block.
 *
 *     node tooling/figures/cache-grids.ts [--model FOLDER --text FILE] [--context 1024]
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CacheScheme, Tensor } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { fullCache, loadDecoder, loadTokenizer } from '@lowbit/model'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    context: { type: 'string', default: '1024' },
  },
})

/** Numbers that share a scale. */
const GROUP = 32
/** Factors of the range that a search of the scale tries. */
const FACTORS = Array.from({ length: 40 }, (_, i) => 1 - i / 80)
/** Bins of the histogram that tables are fitted to. */
const BINS = 2048

type Block = Float64Array

/** Evenly spaced levels over a range; gives the squared error. */
function even(block: Block, low: number, high: number, levels: number): number {
  const step = (high - low) / (levels - 1)
  let error = 0
  for (const x of block) {
    const code = Math.min(levels - 1, Math.max(0, Math.round((x - low) / step)))
    error += (x - low - step * (step > 0 ? code : 0)) ** 2
  }
  return error
}

/** Least and largest exactly met: what int2 … int8 and kivi do. */
const whole = (block: Block, levels: number): number =>
  even(block, Math.min(...block), Math.max(...block), levels)

/** The range narrowed around its middle until the block's squared error is least. */
function searched(block: Block, levels: number): number {
  const [low, high] = [Math.min(...block), Math.max(...block)]
  const [middle, half] = [(low + high) / 2, (high - low) / 2]
  return Math.min(...FACTORS.map((f) => even(block, middle - f * half, middle + f * half, levels)))
}

/** The levels of a table for numbers between −1 and 1, times the block's half range, from its middle. */
function tabled(block: Block, table: readonly number[], asymmetric: boolean): number {
  const [low, high] = [Math.min(...block), Math.max(...block)]
  const middle = asymmetric ? (low + high) / 2 : 0
  const half = asymmetric ? (high - low) / 2 : Math.max(-low, high)
  let error = 0
  for (const x of block) {
    error += Math.min(...table.map((level) => (x - middle - half * level) ** 2))
  }
  return error
}

/** Lloyd's levels of all blocks' normalized numbers, the ends at −1 and 1, where the ranges' ends are. */
function fittedTable(blocks: readonly Block[], levels: number, asymmetric: boolean): number[] {
  const bins = new Float64Array(BINS)
  for (const block of blocks) {
    const [low, high] = [Math.min(...block), Math.max(...block)]
    const middle = asymmetric ? (low + high) / 2 : 0
    const half = asymmetric ? (high - low) / 2 : Math.max(-low, high)
    // A squared error counts by the block's own scale.
    for (const x of block) {
      const place = ((x - middle) / half + 1) / 2
      bins[Math.min(BINS - 1, Math.floor(place * BINS))] += half ** 2
    }
  }
  let table = Array.from({ length: levels }, (_, i) => (2 * i) / (levels - 1) - 1)
  for (let turn = 0; turn < 50; turn++) {
    const [sums, weights] = [new Float64Array(levels), new Float64Array(levels)]
    for (const [bin, weight] of bins.entries()) {
      const x = (2 * (bin + 0.5)) / BINS - 1
      let best = 0
      for (let i = 1; i < levels; i++)
        if (Math.abs(x - table[i]) < Math.abs(x - table[best])) best = i
      sums[best] += weight * x
      weights[best] += weight
    }
    table = table.map((level, i) =>
      i === 0 || i === levels - 1 || weights[i] === 0 ? level : sums[i] / weights[i],
    )
  }
  return table
}

/** The hundredth of a block's numbers (one at least in so many) that is farthest from its middle stays dense. */
function sparse(blocks: readonly Block[], levels: number): number {
  const share = 0.01 * GROUP
  let error = 0
  let due = 0
  for (const block of blocks) {
    due += share
    const drop = Math.floor(due)
    due -= drop
    const sorted = Float64Array.from(block).sort()
    const middle = (sorted[0] + sorted[sorted.length - 1]) / 2
    const kept = [...sorted].sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle))
    error += whole(Float64Array.from(kept.slice(0, block.length - drop)), levels)
  }
  return error
}

const kernels = await cpu({ threads: 1, strict: false, wide: true })
const checkpoint = await openFolder(nodeFolder(flags.model ?? fileURLToPath(DEMO_MODEL.folder)))
const decoder = await loadDecoder(checkpoint, kernels, { activations: 'f32' })
const tokenizer = await loadTokenizer(checkpoint)
const text = await readFile(flags.text ?? fileURLToPath(DEMO_MODEL.evaluation), 'utf8')
const context = Math.floor(Math.min(Number(flags.context), decoder.config.context) / GROUP) * GROUP
const tokens = tokenizer.encode(text.slice(0, context * 8)).slice(0, context)
const { keyValueHeads, headSize } = decoder.config
const width = keyValueHeads * headSize

for (const rotated of [false, true]) {
  const keys: Block[] = []
  const values: Block[] = []
  const seen: Promise<void>[] = []
  const scheme: CacheScheme = {
    ...fullCache(),
    create(on, shape) {
      const cache = fullCache().create(on, shape)
      return {
        ...cache,
        get length() {
          return cache.length
        },
        append(layer, k, v) {
          cache.append(layer, k, v)
          seen.push(take(k, keys, 'channel'), take(v, values, 'token'))
        },
      }
    },
  }
  const take = async (x: Tensor, into: Block[], per: 'channel' | 'token') => {
    const copy = kernels.tensor(x.rows, x.columns)
    kernels.copy(copy, x)
    if (rotated)
      kernels.rotate(copy, { block: headSize, signs: new Uint8Array(Math.ceil(width / 8)) })
    const found = await kernels.read(copy)
    kernels.free(copy)
    // Every third block is enough.
    for (let token = 0; token < x.rows; token += per === 'channel' ? GROUP * 3 : 3) {
      for (let channel = 0; channel < width; channel += per === 'channel' ? 1 : GROUP) {
        into.push(
          Float64Array.from({ length: GROUP }, (_, i) =>
            per === 'channel'
              ? found[(token + i) * width + channel]
              : found[token * width + channel + i],
          ),
        )
      }
    }
  }
  const cache = decoder.cache(context, scheme)
  kernels.free(decoder.forward(tokens, cache))
  await Promise.all(seen)
  cache.dispose()
  console.log(`\n${rotated ? 'rotated' : 'not rotated'}:\n`)
  console.log(
    '| | as it is | scale searched | table, symmetric | table, from the middle | 1 % dense |\n|---|---|---|---|---|---|',
  )
  for (const bits of [4, 3, 2]) {
    const levels = 2 ** bits
    for (const [name, blocks] of [
      ['keys', keys],
      ['values', values],
    ] as const) {
      let power = 0
      for (const block of blocks) {
        const mean = block.reduce((a, b) => a + b) / GROUP
        for (const x of block) power += (x - mean) ** 2
      }
      const sum = (loss: (block: Block) => number) =>
        blocks.reduce((all, block) => all + loss(block), 0)
      const [one, two] = [false, true].map((asymmetric) => {
        const table = fittedTable(blocks, levels, asymmetric)
        return sum((block) => tabled(block, table, asymmetric))
      })
      const losses = [
        sum((block) => whole(block, levels)),
        sum((block) => searched(block, levels)),
        ...[one, two, sparse(blocks, levels)],
      ]
      console.log(
        `| ${name}, ${bits} bits | ${losses.map((loss) => (loss / power).toFixed(5)).join(' | ')} |`,
      )
    }
  }
}
kernels.dispose()

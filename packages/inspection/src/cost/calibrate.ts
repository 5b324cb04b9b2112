/**
 * What kernels achieve with a model's kinds of weights, its cache and its sizes: some seconds of measuring, in which no
 * model is run and none need be loaded. Each figure is the median of a few batches: other programs take their turns.
 */

import {
  bitsPerWeight,
  type Cache,
  type CacheSamples,
  type CacheShape,
  isQuantized,
  type Kernels,
  type LoadOptions,
  type Matrix,
  measureMatrix,
  seededRandom,
  type Tensor,
} from '@lowbit/core'
import { cacheShapeOf, type DecoderConfig } from '@lowbit/model'
import { describeMatrix } from '../describe-matrix.ts'
import type { Achieved, AchievedAttention, AchievedProducts } from './achieved.ts'
import { CHUNK } from './roofline.ts'
import type { ModelOnPaper } from './work.ts'

/** Engines compile kernels anew once they have run for a while, drivers when they first run. */
const WARM_SECONDS = 0.25
/** A batch is waited for once: long enough that waiting does not count. */
const BATCH_SECONDS = 0.03
const BATCHES = 5
/** Copies of a weight: more than caches hold, where the model is more. */
const COPIED_BYTES = 96e6
/** Weights of a sample at most; of dense ones the first rows are taken. */
const SAMPLE_WEIGHTS = 2 ** 22
/** Positions behind a token. */
const NEAR = 192
const FAR = 1024

async function secondsOf(call: () => void, settle: () => Promise<unknown>): Promise<number> {
  const batch = async (calls: number): Promise<number> => {
    const started = performance.now()
    for (let i = 0; i < calls; i++) call()
    await settle()
    return (performance.now() - started) / 1000
  }
  await batch(1)
  let calls = 1
  for (let warm = 0; warm < WARM_SECONDS; ) {
    const taken = await batch(calls)
    warm += taken
    if (taken < BATCH_SECONDS) calls *= 2
  }
  const found: number[] = []
  for (let i = 0; i < BATCHES; i++) found.push((await batch(calls)) / calls)
  return median(found)
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]

const randomTensor = (kernels: Kernels, rows: number, columns: number): Tensor => {
  const random = seededRandom(rows + columns)
  return kernels.upload(
    Float32Array.from({ length: rows * columns }, () => random() - 0.5),
    rows,
    columns,
  )
}

/** A matrix in the words that tell kinds apart. */
export const kindOf = (matrix: Matrix): string =>
  isQuantized(matrix) && matrix.sparse
    ? `${describeMatrix({ ...matrix, sparse: undefined })}, sparse weights`
    : describeMatrix(matrix)

/** Collects the samples of `ModelOnPaper`: of each kind the smallest and the largest, those of blocks where there are any. */
export function sampleKinds(): {
  readonly samples: ReadonlyMap<string, readonly Matrix[]>
  /** `inBlock`: whether there are many of its shape. */
  add(matrix: Matrix, inBlock: boolean): string
} {
  const samples = new Map<string, Matrix[]>()
  const ofBlocks = new Set<string>()
  const sizeOf = ({ rows, columns }: Matrix): number => rows * columns
  return {
    samples,
    add(matrix, inBlock) {
      const kind = kindOf(matrix)
      const known = samples.get(kind)
      if (!known || (inBlock && !ofBlocks.has(kind))) samples.set(kind, [matrix])
      else if (inBlock) {
        const sorted = [...known, matrix].sort((a, b) => sizeOf(a) - sizeOf(b))
        const [least, most] = [sorted[0], sorted[sorted.length - 1]]
        samples.set(kind, sizeOf(least) < sizeOf(most) ? [least, most] : [least])
      }
      if (inBlock) ofBlocks.add(kind)
      return kind
    },
  }
}

/** At most so many weights. */
function firstRows(matrix: Matrix): Matrix {
  const { rows, columns } = matrix
  const kept = Math.max(1, Math.floor(SAMPLE_WEIGHTS / columns))
  if (isQuantized(matrix) || kept >= rows) return matrix
  return { ...matrix, rows: kept, values: matrix.values.subarray(0, kept * columns) }
}

const bytesOf = (matrix: Matrix): number =>
  (isQuantized(matrix)
    ? measureMatrix(matrix).total
    : bitsPerWeight([matrix]) * matrix.rows * matrix.columns) / 8

/** Products with each kind of the model's weights. */
export async function calibrateProducts(
  kernels: Kernels,
  { samples, matrices }: ModelOnPaper,
  activations: LoadOptions['activations'],
): Promise<Achieved['products']> {
  const found = new Map<string, AchievedProducts>()
  for (const [kind, whole] of samples) {
    const all = matrices.reduce((sum, one) => sum + (one.kind === kind ? one.bytes : 0), 0)
    const times: { bytes: number; one: number; some: number; many: number }[] = []
    let perRow = 0
    for (const matrix of whole.map(firstRows)) {
      const { rows, columns } = matrix
      const bytes = bytesOf(matrix)
      const copies = Math.max(1, Math.floor(Math.min(all, COPIED_BYTES) / bytes))
      const weights = Array.from({ length: copies }, () => kernels.load(matrix, { activations }))
      const seconds = async (count: number): Promise<number> => {
        const [x, out] = [randomTensor(kernels, count, columns), kernels.tensor(count, rows)]
        let next = 0
        const taken = await secondsOf(
          () => kernels.matmul(out, x, weights[next++ % copies]),
          () => kernels.read(kernels.rows(out, 0, 1)),
        )
        kernels.free(x, out)
        return taken
      }
      const [one, some, many] = [await seconds(1), await seconds(CHUNK >> 2), await seconds(CHUNK)]
      for (const weight of weights) kernels.unload(weight)
      times.push({ bytes, one, some, many })
      perRow = rows * columns
    }
    const { constant, slope } = lineThrough(times.map(({ bytes, one }) => [bytes, one]))
    const [large] = times.slice(-1)
    const byRows = lineThrough([
      [CHUNK >> 2, large.some],
      [CHUNK, large.many],
    ])
    found.set(kind, {
      ...{ seconds: constant, secondsPerByte: slope },
      secondsPerByteExpanded: Math.max(0, byRows.constant - constant) / large.bytes,
      secondsPerMac: byRows.slope / perRow,
    })
  }
  return found
}

/** Through two points, or one and the origin; neither constant nor slope is below zero. */
function lineThrough(points: readonly (readonly [x: number, y: number])[]): {
  readonly constant: number
  readonly slope: number
} {
  const [[x0, y0], [x1, y1]] = [points[0], points[points.length - 1]]
  const slope = x1 > x0 ? (y1 - y0) / (x1 - x0) : y1 / x1
  const constant = y1 - slope * x1
  if (slope < 0) return { constant: y1, slope: 0 }
  return constant < 0 ? { constant: 0, slope: y1 / x1 } : { constant, slope }
}

/** Everything but products with weights. */
export async function calibratePasses(
  kernels: Kernels,
  paper: ModelOnPaper,
): Promise<Omit<Achieved, 'products'>> {
  const { config } = paper
  const chunk = Math.min(CHUNK, config.context >> 1)
  return {
    attention: await calibrateAttention(kernels, paper, chunk),
    others: {
      seconds: await secondsOfOthers(kernels, config, 1),
      secondsPerRow: (await secondsOfOthers(kernels, config, chunk)) / chunk,
    },
    secondsPerPass: await secondsOfReading(kernels, config.vocabulary),
  }
}

/** Waiting for a pass: its logits are read. */
async function secondsOfReading(kernels: Kernels, vocabulary: number): Promise<number> {
  const [logits, one] = [kernels.tensor(1, vocabulary), kernels.tensor(1, vocabulary)]
  const found: number[] = []
  for (let i = 0; i < 4 * BATCHES; i++) {
    const started = performance.now()
    kernels.add(logits, one)
    await kernels.read(logits)
    found.push((performance.now() - started) / 1000)
  }
  kernels.free(logits, one)
  return median(found)
}

/** What a block does between products and attention, all layers together. */
async function secondsOfOthers(
  kernels: Kernels,
  config: DecoderConfig,
  rows: number,
): Promise<number> {
  const { hidden, intermediate, heads, keyValueHeads, headSize, layers, architecture } = config
  const ones = (columns: number) => kernels.upload(new Float32Array(columns).fill(1), 1, columns)
  const gain = ones(hidden)
  const angles = randomTensor(kernels, rows, headSize / 2)
  const x = randomTensor(kernels, rows, hidden)
  const taken = await secondsOf(
    () => {
      const own: Tensor[] = []
      const tensor = (columns: number): Tensor => {
        const made = kernels.tensor(rows, columns)
        own.push(made)
        return made
      }
      for (const out of [tensor(hidden), tensor(hidden)]) {
        if (architecture.norm === 'rms') kernels.rmsNorm(out, x, gain, config.epsilon)
        else kernels.layerNorm(out, x, gain, gain, config.epsilon)
      }
      const [q, k, _v, _sums] = [heads, keyValueHeads, keyValueHeads, heads].map((count) =>
        tensor(count * headSize),
      )
      for (const turned of [q, k]) kernels.rope(turned, angles, angles, headSize, 0)
      const [gate, up] = [tensor(intermediate), tensor(intermediate)]
      kernels.activate(gate, gate, up, config.activation)
      kernels.free(...own)
    },
    () => kernels.read(kernels.rows(x, 0, 1)),
  )
  kernels.free(gain, angles, x)
  return taken * layers
}

/** All layers of a cache as the model has it: one token near the beginning and far behind it, then many. */
async function calibrateAttention(
  kernels: Kernels,
  paper: ModelOnPaper,
  chunk: number,
): Promise<AchievedAttention> {
  const { config } = paper
  const { heads, keyValueHeads, headSize, layers } = config
  const shape = cacheShapeOf(config)
  const scheme = (await paper.cache.fit?.(kernels, shape, randomSamples(shape))) ?? paper.cache
  const far = Math.min(FAR, config.context - chunk)
  const near = Math.min(NEAR, far >> 1)
  const cache = scheme.create(kernels, { ...shape, capacity: far + chunk })
  const attention = { heads, keyValueHeads, headSize, scale: 1 / Math.sqrt(headSize) }
  /** Behind what is in the cache; what is appended is never kept. */
  const seconds = async (rows: number): Promise<number> => {
    const widths = [keyValueHeads, keyValueHeads, heads].map((count) => count * headSize)
    const [k, v, q] = widths.map((width) => randomTensor(kernels, rows, width))
    const out = kernels.tensor(rows, heads * headSize)
    const taken = await secondsOf(
      () => {
        for (let layer = 0; layer < layers; layer++) {
          cache.append(layer, k, v)
          cache.attend(layer, out, q, attention)
        }
      },
      () => kernels.read(kernels.rows(out, 0, 1)),
    )
    kernels.free(k, v, q, out)
    return taken
  }
  const firstChunk = await seconds(chunk)
  fill(kernels, cache, near, config)
  const nearOne = await seconds(1)
  fill(kernels, cache, far, config)
  const farOne = await seconds(1)
  const farChunk = await seconds(chunk)
  cache.dispose()
  const one = lineThrough([
    [near, nearOne],
    [far, farOne],
  ])
  const ownPairs = (chunk * (chunk + 1)) / 2
  const many = lineThrough([
    [ownPairs, firstChunk],
    [ownPairs + chunk * far, farChunk],
  ])
  return {
    ...{ seconds: one.constant, secondsPerPosition: one.slope },
    ...{ secondsPerRow: many.constant / chunk, secondsPerPair: many.slope },
  }
}

/** Keys and values of no text, up to `length` of them: what they are does not change how long they take. */
function fill(kernels: Kernels, cache: Cache, length: number, config: DecoderConfig): void {
  const width = config.keyValueHeads * config.headSize
  while (cache.length < length) {
    const some = randomTensor(kernels, Math.min(256, length - cache.length), width)
    for (let layer = 0; layer < config.layers; layer++) cache.append(layer, some, some)
    cache.advance(some.rows)
    kernels.free(some)
  }
}

/** For schemes that must be fitted before they can be created. */
function randomSamples({ keyValueHeads, headSize }: Omit<CacheShape, 'capacity'>): CacheSamples {
  const width = keyValueHeads * headSize
  const random = seededRandom(9)
  const numbers = Float32Array.from({ length: 512 * width }, () => random() - 0.5)
  return async () => ({ keys: [{ numbers, width }], values: [{ numbers, width }] })
}

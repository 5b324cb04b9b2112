/** A checkpoint on paper: what it would take as it is, or as a recipe would make it. */

import {
  bitsPerWeight,
  type CacheScheme,
  isQuantized,
  type Kernels,
  LowbitError,
  measureMatrix,
  type QuantizedMatrix,
  type Quantizer,
} from '@lowbit/core'
import {
  kindOf,
  linearsOfBlocks,
  type ModelOnPaper,
  type StoredMatrix,
  sampleKinds,
} from '@lowbit/inspection'
import { decoderConfig, fullCache } from '@lowbit/model'
import { assignQuantizers, quantizeSample, type Recipe } from '@lowbit/pipeline'
import type { OpenedModel } from '../model-source/open-model.ts'
import { QUANTIZERS } from '../plugins.ts'
import type { Session } from '../session.ts'

/** Reads every matrix, since bits are counted; tables that several share count once. */
export async function modelOnPaper(
  { checkpoint }: OpenedModel,
  cache: CacheScheme | undefined,
  session: Session,
): Promise<ModelOnPaper> {
  const progress = session.progress('reading')
  const matrices: StoredMatrix[] = []
  const counted = new Set<string>()
  const { samples, add } = sampleKinds()
  const inBlocks = new Set(linearsOfBlocks(checkpoint))
  try {
    for (const [i, module] of checkpoint.modules.entries()) {
      session.signal.throwIfAborted()
      const matrix = await checkpoint.readMatrix(module)
      const { rows, columns } = matrix
      const coded = isQuantized(matrix)
      const bits = coded
        ? measureMatrix(matrix, counted).total
        : bitsPerWeight([matrix]) * rows * columns
      const kind = add(matrix, inBlocks.has(module))
      matrices.push({ module, rows, columns, bytes: bits / 8, coded, kind })
      progress.update((i + 1) / checkpoint.modules.length, module)
    }
    let vectorBytes = 0
    for (const name of checkpoint.vectors) {
      vectorBytes += 4 * (await checkpoint.readVector(name)).values.length
    }
    const config = decoderConfig(checkpoint.config)
    return { config, matrices, vectorBytes, cache: cache ?? fullCache(), samples }
  } finally {
    progress.end()
  }
}

/** The same with the bits that a recipe's methods would give: codes and scales of a sample, a table for each matrix. */
export async function asRecipeSays(
  model: ModelOnPaper,
  recipe: Recipe,
  { checkpoint }: OpenedModel,
  kernels: Kernels,
  sampled?: { readonly rows: number; readonly columns: number },
): Promise<ModelOnPaper> {
  const blocks = new Set(linearsOfBlocks(checkpoint))
  const assigned = assignQuantizers(recipe, QUANTIZERS, checkpoint.modules, blocks)
  const samples = new Map<string, Promise<Sample>>()
  const matrices = model.matrices.map(async (one) => {
    const quantizer = assigned.get(one.module)
    if (!quantizer) return one
    const key = JSON.stringify([quantizer.name, quantizer.options])
    const sample = samples.get(key) ?? sampleOf(quantizer, kernels, sampled)
    samples.set(key, sample)
    const { bits, tableBits, kind } = await sample
    return { ...one, coded: true, kind, bytes: (bits * one.rows * one.columns + tableBits) / 8 }
  })
  const found = await Promise.all(matrices)
  return { ...model, matrices: found, samples: await samplesOf(found, model, samples.values()) }
}

/** Of the kinds that are left: the model's own, and what the recipe's methods made. */
async function samplesOf(
  matrices: readonly StoredMatrix[],
  { samples }: ModelOnPaper,
  made: Iterable<Promise<Sample>>,
): Promise<ModelOnPaper['samples']> {
  const all = new Map(samples)
  for (const { kind, matrix } of await Promise.all(made)) if (matrix) all.set(kind, [matrix])
  const left = new Set(matrices.map(({ kind }) => kind))
  return new Map([...all].filter(([kind]) => left.has(kind)))
}

interface Sample {
  readonly kind: string
  readonly matrix?: QuantizedMatrix
  readonly bits: number
  readonly tableBits: number
}

async function sampleOf(
  quantizer: Quantizer,
  kernels: Kernels,
  sampled: Parameters<typeof quantizeSample>[2],
): Promise<Sample> {
  const matrix = await quantizeSample(() => quantizer, kernels, sampled)
  if (matrix) {
    const { total, tables } = measureMatrix(matrix)
    const bits = (total - tables) / (matrix.rows * matrix.columns)
    return { bits, tableBits: tables, kind: kindOf(matrix), matrix }
  }
  const { bits } = quantizer.options
  if (typeof bits === 'number') return { bits, tableBits: 0, kind: quantizer.name }
  throw new LowbitError(
    'bad-option',
    `how many bits ${quantizer.name} takes is not known before it has seen the model; quantize it, then ask for the cost of the result`,
    { option: 'recipe' },
  )
}

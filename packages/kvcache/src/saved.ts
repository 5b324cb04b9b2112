/** A cache as bytes. */

import {
  type Cache,
  type CacheLayout,
  type CacheScheme,
  type CacheShape,
  type Kernels,
  LowbitError,
  TENSOR_ARRAYS,
  type Tensor,
  type TensorValues,
} from '@lowbit/core'
import type { Safetensors } from '@lowbit/safetensors'
import * as z from 'zod'
import {
  entryOf,
  type Facts,
  type FileKind,
  openChecked,
  type Refuse,
  readPart,
  refusing,
  sortedJson,
  writeChecked,
} from './checked-file.ts'

const KIND: FileKind = { format: 'lowbit-cache', version: '1', title: 'saved cache' }

/** What a cache was filled by and how. */
export interface CacheOrigin {
  readonly kernels: Kernels
  /** `identity()` of the decoder. */
  readonly model: string
  readonly scheme: CacheScheme
  /** `cacheShape` of the decoder. */
  readonly shape: Omit<CacheShape, 'capacity'>
}

export interface LoadOrigin extends CacheOrigin {
  /** Tokens that the cache must hold at most from now on. */
  readonly capacity: number
}

export interface LoadedCache {
  readonly cache: Cache
  readonly tokens: number[]
}

const DTYPES = { f32: 'F32', u32: 'U32', u16: 'U16', u8: 'U8' } as const
const TOKENS = 'tokens'

/** The bytes of a cache and of the tokens in it. */
export async function saveCache(
  cache: Cache,
  tokens: readonly number[],
  origin: CacheOrigin,
): Promise<Uint8Array> {
  if (tokens.length !== cache.length) {
    throw new LowbitError(
      'bad-option',
      `a cache of ${cache.length} tokens is not one of the ${tokens.length} that are given`,
      { option: 'tokens' },
    )
  }
  const entries = [entryOf(TOKENS, 'U32', [tokens.length], Uint32Array.from(tokens))]
  for (const [name, tensor] of cache.parts()) {
    const values = await valuesOf(origin.kernels, tensor)
    entries.push(entryOf(name, DTYPES[tensor.type], [tensor.rows, tensor.columns], values))
  }
  return writeChecked(KIND, { ...factsOf(origin), layout: JSON.stringify(cache.layout()) }, entries)
}

/** The cache that was saved; refused where it is damaged, or is not one of this model and scheme. */
export async function loadCache(
  bytes: Uint8Array,
  origin: LoadOrigin,
  file = 'the saved cache',
): Promise<LoadedCache> {
  const refuse = refusing(file)
  const { saved, facts } = await openChecked(KIND, bytes, file)
  checkOrigin(facts, factsOf(origin), refuse)
  const layout = layoutOf(saved, refuse)
  const { kernels, scheme, shape, capacity } = origin
  if (layout.length > capacity) {
    refuse(`holds ${layout.length} tokens; there is room for ${capacity}`)
  }
  const tokens = [...new Uint32Array((await readPart(saved, TOKENS)).buffer)]
  if (tokens.length !== layout.length) refuse('has not as many tokens as it says')
  const cache = scheme.create(kernels, { ...shape, capacity })
  try {
    cache.prepare(layout)
    for (const [name, tensor] of cache.parts()) {
      const { dtype, shape: found } = saved.tensors.get(name) ?? refuse(`has no ${name}`)
      const wanted = [tensor.rows, tensor.columns]
      if (dtype !== DTYPES[tensor.type] || found.join() !== wanted.join()) {
        refuse(`${name} is ${dtype} ${found.join(' × ')}, not ${wanted.join(' × ')}`)
      }
      const { buffer } = await readPart(saved, name)
      if (tensor.rows * tensor.columns > 0)
        kernels.write(tensor, new TENSOR_ARRAYS[tensor.type](buffer) as TensorValues)
    }
  } catch (error) {
    cache.dispose()
    throw error
  }
  return { cache, tokens }
}

/** Model, then scheme, so that the message names what is really wrong. */
function checkOrigin(facts: Facts, wanted: Facts, refuse: Refuse): void {
  if (facts.model !== wanted.model || facts.shape !== wanted.shape) {
    refuse('is the cache of another model')
  }
  if (facts.scheme !== wanted.scheme || facts.options !== wanted.options) {
    const say = ({ scheme, options }: Facts) => `${scheme} ${options}`
    refuse(`is a cache of ${say(facts)}, not of ${say(wanted)}`)
  }
}

function layoutOf(saved: Safetensors, refuse: Refuse): CacheLayout {
  try {
    const parsed = z
      .record(z.string(), z.int().min(0))
      .parse(JSON.parse(saved.metadata.get('layout') ?? ''))
    return { ...parsed, length: z.int().parse(parsed.length) }
  } catch (cause) {
    return refuse('does not say how its tokens are kept', cause)
  }
}

function factsOf({ model, scheme, shape }: CacheOrigin): Record<string, string> {
  const { layers, keyValueHeads, headSize } = shape
  return {
    ...{ model, scheme: scheme.name, options: sortedJson(scheme.options) },
    shape: JSON.stringify({ layers, keyValueHeads, headSize }),
  }
}

async function valuesOf(kernels: Kernels, tensor: Tensor): Promise<TensorValues> {
  if (tensor.rows * tensor.columns === 0) return new TENSOR_ARRAYS[tensor.type]()
  if (tensor.type === 'f32') return kernels.read(tensor)
  return tensor.type === 'u32' ? kernels.readWords(tensor) : kernels.readCodes(tensor)
}

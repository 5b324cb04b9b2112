/** A cache as bytes: a safetensors file whose header says what it belongs to, with a checksum over all of it. */

import {
  type Cache,
  type CacheLayout,
  type CacheScheme,
  type CacheShape,
  digest,
  type Kernels,
  LowbitError,
  TENSOR_ARRAYS,
  type Tensor,
  type TensorValues,
} from '@lowbit/core'
import {
  openSafetensors,
  type Safetensors,
  type TensorEntry,
  writeSafetensors,
} from '@lowbit/safetensors'
import * as z from 'zod'

const FORMAT = 'lowbit-cache'
const VERSION = '1'

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
  const facts = { ...factsOf(origin), layout: JSON.stringify(cache.layout()) }
  const sums = await Promise.all(
    entries.map(async (entry) => [titleOf(entry), await digest(entry.bytes)] as const),
  )
  const metadata = { ...facts, checksum: await checksum(facts, new Map(sums)) }
  const parts: Uint8Array[] = []
  for await (const part of writeSafetensors(entries, { metadata })) parts.push(part)
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** The cache that was saved; refused where it is damaged, or is not one of this model and scheme. */
export async function loadCache(
  bytes: Uint8Array,
  origin: LoadOrigin,
  file = 'the saved cache',
): Promise<LoadedCache> {
  const refuse = (why: string, cause?: unknown): never => {
    throw new LowbitError('bad-cache', `${file}: ${why}`, { file, cause })
  }
  let saved: Safetensors
  try {
    saved = await openSafetensors(bytes, { name: file })
  } catch (cause) {
    return refuse(`is damaged or no saved cache: ${(cause as Error).message}`, cause)
  }
  await checkOrigin(saved, origin, refuse)
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

type Refuse = (why: string, cause?: unknown) => never

/** Version, checksum, model, scheme: in this order, so that the message names what is really wrong. */
async function checkOrigin(saved: Safetensors, origin: CacheOrigin, refuse: Refuse): Promise<void> {
  const found = Object.fromEntries(saved.metadata)
  if (found.format !== FORMAT) refuse('is no saved cache')
  if (found.version !== VERSION) {
    refuse(`is a cache of version ${found.version}; this lowbit reads version ${VERSION}`)
  }
  const { checksum: said, ...facts } = found
  const sums = new Map<string, string>()
  for (const tensor of saved.tensors.values()) {
    sums.set(titleOf(tensor), await digest(await saved.read(tensor.name)))
  }
  if ((await checksum(facts, sums)) !== said)
    refuse('is damaged: its checksum is not that of its bytes')
  const wanted = factsOf(origin)
  if (facts.model !== wanted.model || facts.shape !== wanted.shape) {
    refuse('is the cache of another model')
  }
  if (facts.scheme !== wanted.scheme || facts.options !== wanted.options) {
    const say = ({ scheme, options }: Record<string, string>) => `${scheme} ${options}`
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
  const options = Object.entries(scheme.options).sort(([a], [b]) => (a < b ? -1 : 1))
  return {
    ...{ format: FORMAT, version: VERSION, model, scheme: scheme.name },
    options: JSON.stringify(Object.fromEntries(options)),
    shape: JSON.stringify({ layers, keyValueHeads, headSize }),
  }
}

const titleOf = ({ name, dtype, shape }: Pick<TensorEntry, 'name' | 'dtype' | 'shape'>): string =>
  `${name} ${dtype} ${shape.join('×')}`

/** Of the header's facts and of each tensor's own digest, in the order of names. */
function checksum(
  facts: Readonly<Record<string, string>>,
  sums: ReadonlyMap<string, string>,
): Promise<string> {
  const sorted = (pairs: Iterable<readonly [string, string]>) =>
    [...pairs].sort(([a], [b]) => (a < b ? -1 : 1))
  const all = [sorted(Object.entries(facts)), sorted(sums)]
  return digest(new TextEncoder().encode(JSON.stringify(all)))
}

interface Entry extends TensorEntry {
  readonly bytes: Uint8Array
}

function entryOf(
  name: string,
  dtype: TensorEntry['dtype'],
  shape: readonly number[],
  { buffer, byteOffset, byteLength }: ArrayBufferView,
): Entry {
  const bytes = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
  return { name, dtype, shape, bytes, data: async () => bytes }
}

async function valuesOf(kernels: Kernels, tensor: Tensor): Promise<TensorValues> {
  if (tensor.rows * tensor.columns === 0) return new TENSOR_ARRAYS[tensor.type]()
  if (tensor.type === 'f32') return kernels.read(tensor)
  return tensor.type === 'u32' ? kernels.readWords(tensor) : kernels.readCodes(tensor)
}

/** In memory of its own, which begins where any typed array may. */
const readPart = async (saved: Safetensors, name: string): Promise<Uint8Array<ArrayBuffer>> =>
  Uint8Array.from(await saved.read(name))

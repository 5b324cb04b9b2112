/** Keys and values of a prompt, in a file. */

import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import type { CacheScheme } from '@lowbit/core'
import { type LoadedCache, loadCache, saveCache } from '@lowbit/kvcache'
import { type Decoder, fullCache, type Memory } from '@lowbit/model'

export interface CacheFile {
  readonly name: string
  readonly bytes: Uint8Array
}

export const readCacheFile = async (name: string): Promise<CacheFile> => ({
  name,
  bytes: await readFile(name),
})

async function originOf(decoder: Decoder, scheme: CacheScheme | undefined) {
  const { kernels, cacheShape: shape } = decoder
  return { kernels, shape, model: await decoder.identity(), scheme: scheme ?? fullCache() }
}

export async function restoreCache(
  { name, bytes }: CacheFile,
  decoder: Decoder,
  scheme: CacheScheme | undefined,
): Promise<LoadedCache> {
  const origin = await originOf(decoder, scheme)
  return loadCache(bytes, { ...origin, capacity: decoder.config.context }, name)
}

export async function writeCacheFile(
  name: string,
  { cache, tokens }: Memory,
  decoder: Decoder,
  scheme: CacheScheme | undefined,
): Promise<void> {
  await writeWhole(name, await saveCache(cache, tokens, await originOf(decoder, scheme)))
}

/** Under another name until it is whole. */
export async function writeWhole(name: string, bytes: Uint8Array): Promise<void> {
  const partial = `${name}.partial`
  try {
    await writeFile(partial, bytes)
    await rename(partial, name)
  } catch (error) {
    await rm(partial, { force: true })
    throw error
  }
}

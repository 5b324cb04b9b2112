/** Caches that learn from a text what a model's keys and values are like. */

import { readFile } from 'node:fs/promises'
import { type CacheScheme, LowbitError } from '@lowbit/core'
import { loadCodebooks, saveCodebooks } from '@lowbit/kvcache'
import { type Decoder, fitCacheToText, loadTokenizer, type Tokenizer } from '@lowbit/model'
import type { CacheFlags } from '../flags/cache.ts'
import type { Session } from '../session.ts'
import type { OpenedModel } from './open-model.ts'
import { writeWhole } from './saved-cache.ts'
import { demoText, readText } from './texts.ts'

interface Running {
  readonly model: OpenedModel
  readonly decoder: Decoder
  /** Read from the model where it is not at hand. */
  readonly tokenizer?: Tokenizer
}

/** The scheme as it can be used; most learn nothing. */
export async function fittedCache(
  scheme: CacheScheme | undefined,
  { model, decoder, tokenizer: given }: Running,
  { cacheCalibration: file, cacheCodebooks: kept }: CacheFlags,
  session: Session,
): Promise<CacheScheme | undefined> {
  if (!scheme?.fit) {
    for (const [option, given] of Object.entries({ calibration: file, codebooks: kept })) {
      if (given) session.warn(`--cache-${option} is of no use here: the cache learns nothing`)
    }
    return scheme
  }
  if (kept === undefined)
    return fitToText(scheme, { model, decoder, tokenizer: given }, file, session)
  const origin = { model: await decoder.identity(), shape: decoder.cacheShape }
  const bytes = await readFile(kept).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (bytes) return loadCodebooks(bytes, { ...origin, scheme }, kept)
  const fitted = await fitToText(scheme, { model, decoder, tokenizer: given }, file, session)
  await writeWhole(kept, await saveCodebooks({ ...origin, scheme: fitted }))
  return fitted
}

async function fitToText(
  scheme: CacheScheme,
  { model, decoder, tokenizer: given }: Running,
  file: string | undefined,
  session: Session,
): Promise<CacheScheme> {
  const option = 'cache-calibration'
  const text = file ? await readText(file, option) : await demoText(model, 'calibration')
  if (text === undefined) {
    throw new LowbitError(
      'bad-option',
      `cache ${scheme.name} is fitted to the model on a text: give one with --${option} FILE (plain text like what the model will read; a few thousand tokens of it are used)`,
      { option },
    )
  }
  const tokenizer = given ?? (await loadTokenizer(model.checkpoint))
  const progress = session.progress(`fitting ${scheme.name}`)
  return fitCacheToText(decoder, tokenizer, scheme, text, {
    signal: session.signal,
    onProgress: (done, total) => progress.update(done / total, `step ${done} of ${total}`),
  }).finally(progress.end)
}

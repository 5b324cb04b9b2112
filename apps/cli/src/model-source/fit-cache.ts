/** Caches that learn from a text what a model's keys and values are like. */

import { type CacheScheme, LowbitError } from '@lowbit/core'
import {
  calibrationWindows,
  type Decoder,
  firstTokens,
  fitCache,
  loadTokenizer,
  type Tokenizer,
} from '@lowbit/model'
import type { CacheFlags } from '../flags/cache.ts'
import type { Session } from '../session.ts'
import type { OpenedModel } from './open-model.ts'
import { demoText, readText } from './texts.ts'

/** More tokens gain little (tooling/figures/cache-coupled.ts); longer windows cover more positions. */
const WINDOWS = 4
const LENGTH = 1024

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
  { cacheCalibration: file }: CacheFlags,
  session: Session,
): Promise<CacheScheme | undefined> {
  const option = 'cache-calibration'
  if (!scheme?.fit) {
    if (file) session.warn(`--${option} is of no use here: the cache learns nothing`)
    return scheme
  }
  const text = file ? await readText(file, option) : await demoText(model, 'calibration')
  if (text === undefined) {
    throw new LowbitError(
      'bad-option',
      `cache ${scheme.name} is fitted to the model on a text: give one with --${option} FILE (plain text like what the model will read; ${WINDOWS * LENGTH} tokens of it are used)`,
      { option },
    )
  }
  const length = Math.min(LENGTH, decoder.config.context)
  const tokenizer = given ?? (await loadTokenizer(model.checkpoint))
  const tokens = firstTokens(tokenizer, text, WINDOWS * length)
  const progress = session.progress(`fitting ${scheme.name}`)
  return fitCache(decoder, scheme, calibrationWindows(tokens, WINDOWS, length), {
    signal: session.signal,
    onProgress: (done, total) => progress.update(done / total, `step ${done} of ${total}`),
  }).finally(progress.end)
}

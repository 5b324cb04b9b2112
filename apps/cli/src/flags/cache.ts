/** `--cache NAME` and the options of all schemes behind `--cache-`; the scheme itself refuses those it lacks. */

import {
  type CacheScheme,
  describeOptions,
  LowbitError,
  type OptionDescription,
} from '@lowbit/core'
import { readWholeReport } from '@lowbit/inspection'
import { type Command, Option } from 'commander'
import type { OpenedModel } from '../model-source/open-model.ts'
import { CACHE_SCHEMES } from '../plugins.ts'
import { readRecipe } from '../quantization/recipe-file.ts'
import { kebab } from './from-schema.ts'
import { parseNumber, wholeNumber } from './values.ts'

export interface CacheFlags {
  readonly cache?: string
  readonly recipe?: string
  readonly cacheStep?: number
  readonly cacheCalibration?: string
  readonly cacheCodebooks?: string
}

const FULL = 'full'

/** Every option of every scheme once, with the defaults by scheme. */
function allOptions(): Map<string, OptionDescription & { defaults: string }> {
  const found = new Map<string, { option: OptionDescription; usual: Map<string, string[]> }>()
  for (const plugin of CACHE_SCHEMES) {
    for (const option of describeOptions(plugin.options)) {
      const entry = found.get(option.key) ?? { option, usual: new Map<string, string[]>() }
      found.set(option.key, entry)
      const value = String(option.default ?? 'by the bits')
      entry.usual.set(value, [...(entry.usual.get(value) ?? []), plugin.name])
    }
  }
  return new Map(
    [...found].map(([key, { option, usual }]) => {
      const values = [...usual].map(([value, names]) =>
        usual.size === 1 ? value : `${value} for ${names.join(', ')}`,
      )
      return [key, { ...option, defaults: values.join('; ') }]
    }),
  )
}

export function addCacheFlags(command: Command): void {
  command.optionsGroup('Keys and values of the running model:')
  command.addOption(
    new Option(
      '--cache <name>',
      'how they are kept (default: as the recipe of the model says, or full)',
    ).choices([FULL, ...CACHE_SCHEMES.map(({ name }) => name)]),
  )
  command.option('--recipe <file>', 'take the cache: section of this recipe')
  command.option(
    '--cache-calibration <file>',
    'plain text that cq is fitted to (default: what the demo was made with, for it and its kin)',
  )
  command.option(
    '--cache-codebooks <file>',
    'what cq was fitted to: read where the file is there, written where it is not',
  )
  for (const [key, { summary, defaults, choices, type }] of allOptions()) {
    const option = new Option(
      `--cache-${kebab(key)} <${type === 'string' ? 'name' : 'n'}>`,
      `${summary} (default: ${defaults})`,
    )
    if (choices) option.choices([...choices])
    else if (type !== 'string') option.argParser(parseNumber())
    command.addOption(option)
  }
}

export function addCacheStepFlag(command: Command): void {
  command.option(
    '--cache-step <n>',
    'tokens run at a time while scoring (default: as many as give what one at a time gives)',
    wholeNumber(1, 100_000),
  )
}

/** What the command line asks for; undefined where it leaves that to the model. */
export type CacheChoice = { readonly scheme: CacheScheme | undefined } | undefined

export async function readCache(
  command: Command,
  { cache, recipe }: CacheFlags,
): Promise<CacheChoice> {
  const given: Record<string, unknown> = {}
  for (const key of allOptions().keys()) {
    const flag = `cache${key[0].toUpperCase()}${key.slice(1)}`
    if (command.getOptionValueSource(flag) === 'cli') given[key] = command.getOptionValue(flag)
  }
  const [first] = Object.keys(given)
  if (cache !== undefined && cache !== FULL) {
    return { scheme: CACHE_SCHEMES.find(({ name }) => name === cache)!(given as never) }
  }
  if (first) {
    throw new LowbitError(
      'bad-option',
      `--cache-${kebab(first)} belongs to a --cache other than full`,
      { option: `cache-${kebab(first)}` },
    )
  }
  if (cache === FULL) return { scheme: undefined }
  if (recipe === undefined) return undefined
  const { makeCache } = await import('@lowbit/pipeline')
  return { scheme: makeCache(await readRecipe(recipe), CACHE_SCHEMES) }
}

/** The cache that was asked for, or the one that the model was quantized for; undefined: the full one. */
export async function cacheFor(
  choice: CacheChoice,
  { folder }: OpenedModel,
): Promise<CacheScheme | undefined> {
  if (choice) return choice.scheme
  const report = await readWholeReport(folder)
  if (!report?.cache) return undefined
  const { makeCache } = await import('@lowbit/pipeline')
  return makeCache(report, CACHE_SCHEMES)
}

/** Recipe + plugins + a model's modules → which quantizer each module gets. */

import {
  type AnyPlugin,
  type CacheScheme,
  LowbitError,
  type Quantizer,
  type QuantizerPlugin,
} from '@lowbit/core'
import picomatch from 'picomatch'
import type { ModelTuner, ModelTunerPlugin } from '../tune/end-to-end.ts'
import type { Recipe } from './recipe.ts'

/** Module names are globbed as paths: dots separate levels, `*` stays within one. */
const asPath = (name: string): string => name.replaceAll('.', '/')

export type Assignment = ReadonlyMap<string, Quantizer>

/**
 * The quantizer of each module; modules that no rule matches, or whose rule says `none`, are left out.
 * `blockModules` are what a rule without `match` means.
 */
export function assignQuantizers(
  recipe: Recipe,
  plugins: readonly QuantizerPlugin[],
  modules: readonly string[],
  blockModules: ReadonlySet<string>,
): Assignment {
  const rules = recipe.rules.map((rule) => {
    const { match, method, ...options } = rule
    return {
      match,
      matches: match ? picomatch([match].flat().map(asPath)) : undefined,
      quantizer: method === 'none' ? undefined : makeQuantizer(plugins, method, options),
      hits: 0,
    }
  })
  const assigned = new Map<string, Quantizer>()
  for (const module of modules) {
    const rule = rules.find(({ matches }) =>
      matches ? matches(asPath(module)) : blockModules.has(module),
    )
    if (!rule) continue
    rule.hits++
    if (rule.quantizer) assigned.set(module, rule.quantizer)
  }
  const idle = rules.find(({ match, hits }) => match && hits === 0)
  if (idle) {
    throw new LowbitError(
      'bad-recipe',
      `no module is left for the rule ${JSON.stringify(idle.match)}; modules are named like ${modules[0]}`,
      { option: 'match' },
    )
  }
  return assigned
}

export function makeQuantizer(
  plugins: readonly QuantizerPlugin[],
  method: string,
  options: Readonly<Record<string, unknown>>,
): Quantizer {
  const plugin = plugins.find(({ name }) => name === method)
  if (!plugin) {
    throw new LowbitError(
      'unknown-method',
      `there is no method ${JSON.stringify(method)}; there are ${plugins.map(({ name }) => name).join(', ')}`,
      { option: 'method' },
    )
  }
  return plugin(options as never)
}

/** The first quantizer of a recipe that measures the model on a text. Makes all of them, which refuses bad options. */
export function asksForText(
  { rules }: Recipe,
  plugins: readonly QuantizerPlugin[],
): Quantizer | undefined {
  const quantizers = rules.flatMap(({ match: _, method, ...options }) =>
    method === 'none' ? [] : [makeQuantizer(plugins, method, options)],
  )
  return quantizers.find(({ needs }) => needs.hessian || needs.fisher)
}

/** The tuner of a recipe, if it has one. */
export function makeTuner(
  { tune }: Recipe,
  plugins: readonly ModelTunerPlugin[],
): ModelTuner | undefined {
  if (!tune) return undefined
  const { method, ...options } = tune
  const plugin = plugins.find(({ name }) => name === method)
  if (!plugin) {
    const names = plugins.map(({ name }) => name).join(', ')
    throw new LowbitError(
      'unknown-method',
      `there is no tuner ${JSON.stringify(method)}; there are ${names}`,
      { option: 'tune' },
    )
  }
  return plugin(options as never)
}

/** The cache that a recipe names; undefined for the full one, and where it names none. */
export function makeCache(
  { cache }: Pick<Recipe, 'cache'>,
  schemes: readonly AnyPlugin<CacheScheme>[],
): CacheScheme | undefined {
  if (!cache) return undefined
  const { scheme, ...options } = cache
  const plugin = schemes.find(({ name }) => name === scheme)
  if (plugin) return plugin(options as never)
  const [first] = Object.keys(options)
  if (scheme === 'full' && !first) return undefined
  if (scheme === 'full') {
    throw new LowbitError('bad-option', `the full cache has no option ${first}`, { option: first })
  }
  const names = ['full', ...schemes.map(({ name }) => name)].join(', ')
  throw new LowbitError(
    'unknown-method',
    `there is no cache ${JSON.stringify(scheme)}; there are ${names}`,
    { option: 'cache' },
  )
}

/** The plugins as data: what a form shows of them. */

import { describeOptions } from '@lowbit/core'
import { linearsOfBlocks } from '@lowbit/inspection'
import { asksForText, assignQuantizers, makeCache, parseYamlRecipe } from '@lowbit/pipeline'
import { CACHE_SCHEMES, FORMATS, QUANTIZERS } from '../plugins.ts'
import type { Assigned, MethodInfo, ModelFacts } from './protocol.ts'

export const listMethods = (): MethodInfo[] =>
  QUANTIZERS.map(({ name, summary, source, options }) => ({
    ...{ name, summary, fields: describeOptions(options) },
    ...(source && { source }),
  }))

export const listCaches = (): MethodInfo[] =>
  CACHE_SCHEMES.map((make) => ({
    ...{ name: make.name, summary: make.summary, fields: describeOptions(make.options) },
    learns: make({} as never).fit !== undefined,
  }))

export const listFormats = (): string[] => FORMATS.map(({ name }) => name)

/** What a recipe does to each of a model's modules; throws where it can't be. */
export function assign(
  { config, allModules }: Pick<ModelFacts, 'config' | 'allModules'>,
  recipe: string,
): Assigned {
  const blocks = new Set(linearsOfBlocks({ config }))
  const parsed = parseYamlRecipe(recipe)
  makeCache(parsed, CACHE_SCHEMES)
  const assigned = assignQuantizers(parsed, QUANTIZERS, allModules, blocks)
  const modules = Object.fromEntries(
    [...assigned].map(([module, { name, label, options }]) => {
      const bits = nominalBits(name, options)
      return [module, { method: name, label, ...(bits !== undefined && { bits }) }]
    }),
  )
  return { modules, needsText: asksForText(parsed, QUANTIZERS) !== undefined }
}

/** Bits of the codes of one weight, as far as the options say them: what the map is coloured by before a run. */
function nominalBits(
  method: string,
  options: Readonly<Record<string, unknown>>,
): number | undefined {
  const { bits, bitsPerValue, centroids, vectorLength, clusterDim, grid } = options
  if (typeof centroids === 'number' && typeof vectorLength === 'number') {
    return Math.log2(centroids) / vectorLength
  }
  if (typeof bitsPerValue === 'number') return bitsPerValue
  if (method === 'palettize' && typeof clusterDim === 'number') {
    return (typeof bits === 'number' ? bits : 4) / clusterDim
  }
  if (typeof grid === 'string' && /fp8|mxfp8/.test(grid)) return 8
  return typeof bits === 'number' ? bits : undefined
}

/** Flags and recipe files → one checked recipe, before anything is opened. */

import path from 'node:path'
import { LowbitError, type QuantizerPlugin } from '@lowbit/core'
import { parseRecipe, type Recipe } from '@lowbit/pipeline'
import type { Command } from 'commander'
import { givenOptions, kebab } from '../flags/from-schema.ts'
import { refuseAllocation } from './allocation.ts'
import { readRecipe } from './recipe-file.ts'

export interface QuantizeFlags {
  readonly method?: string
  readonly match?: string[]
  readonly recipe?: string
  readonly calibration?: string
  readonly samples?: number
  readonly length?: number
  readonly format?: string
  readonly seed?: number
  readonly tune?: boolean
  readonly tuneSteps?: number
  readonly targetBits?: number
}

export interface QuantizeRequest {
  readonly recipe: Recipe
  /** File of the calibration text, if one was named. */
  readonly text?: string
  /** Whether the length of windows was asked for: then it is not cut to the model's context. */
  readonly lengthGiven: boolean
  /** The counted mean that the bits of matrices are chosen for. */
  readonly targetBits?: number
}

export async function readRequest(
  command: Command,
  flags: QuantizeFlags,
  plugin: QuantizerPlugin,
): Promise<QuantizeRequest> {
  const options = givenOptions(command, plugin.options)
  if (flags.recipe !== undefined) return fromRecipe(flags, flags.recipe, Object.keys(options))
  const { match, calibration: text, targetBits } = flags
  if (targetBits !== undefined) refuseAllocation(plugin, options)
  const recipe = parseRecipe({
    rules: [{ ...(match && { match }), method: plugin.name, ...options }],
    calibration: defined({ samples: flags.samples, length: flags.length }),
    ...defined({ format: flags.format, seed: flags.seed }),
    ...tuneSection(flags),
  })
  return { recipe, text, lengthGiven: flags.length !== undefined, targetBits }
}

/** What is said beside a recipe goes before what it says; methods are the recipe's business alone. */
async function fromRecipe(
  flags: QuantizeFlags,
  file: string,
  options: readonly string[],
): Promise<QuantizeRequest> {
  const clashing = [
    ...(flags.method === undefined ? [] : ['method']),
    ...(flags.match === undefined ? [] : ['match']),
    ...(flags.targetBits === undefined ? [] : ['target-bits']),
    ...options.map(kebab),
  ]
  if (clashing.length > 0) {
    const names = clashing.map((name) => `--${name}`).join(', ')
    throw new LowbitError(
      'bad-option',
      `${names} contradicts --recipe: the recipe's rules say which method is used and how`,
      { option: clashing[0] },
    )
  }
  const read = await readRecipe(file)
  const recipe: Recipe = {
    ...read,
    ...defined({ format: flags.format, seed: flags.seed }),
    calibration: {
      ...read.calibration,
      ...defined({ samples: flags.samples, length: flags.length }),
    },
  }
  const own = read.calibration.text
  const text = flags.calibration ?? (own && path.resolve(path.dirname(file), own))
  return { recipe, text, lengthGiven: flags.length !== undefined }
}

function defined<T extends object>(values: T): Partial<T> {
  const given = Object.entries(values).filter(([, value]) => value !== undefined)
  return Object.fromEntries(given) as Partial<T>
}

/** --tune and --tune-steps as a recipe has them. */
function tuneSection({ tune, tuneSteps }: QuantizeFlags): { tune?: { steps?: number } } {
  if (!tune && tuneSteps === undefined) return {}
  return { tune: defined({ steps: tuneSteps }) }
}

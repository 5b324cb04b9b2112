/**
 * A plugin's zod schema → flags. `groupSize: z.int().min(1).describe('…')` becomes `--group-size <n>`,
 * a boolean `--x` and `--no-x`, an enum lists its values. The schema itself checks the values later, so that
 * flags, recipes and library calls fail with the same words.
 */

import { describeOptions, type OptionDescription, type OptionsSchema } from '@lowbit/core'
import { type Command, Option } from 'commander'
import { parseNumber } from './values.ts'

export interface FlagDescription extends OptionDescription {
  /** `--group-size`. */
  readonly flag: string
}

/** The flags of a schema. Options of other types than numbers, words and yes or no belong into a recipe. */
export const describeFlags = (schema: OptionsSchema): FlagDescription[] =>
  describeOptions(schema).map((option) => ({ ...option, flag: `--${kebab(option.key)}` }))

export const kebab = (key: string): string =>
  key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** "4, 1–8", as help texts and tables write it. */
export function allowedValues(flag: FlagDescription): string {
  if (flag.choices) return flag.choices.join(' | ')
  if (flag.type === 'boolean') return 'yes | no'
  const { least, most } = flag
  if (least !== undefined && most !== undefined) return `${least} … ${most}`
  return least === undefined ? flag.type : `≥ ${least}`
}

/** Adds a schema's flags under a heading of their own. Defaults are shown, not set: the schema fills them in. */
export function addSchemaFlags(command: Command, heading: string, schema: OptionsSchema): void {
  const taken = new Set(command.options.map((option) => option.long))
  command.optionsGroup(heading)
  for (const flag of describeFlags(schema)) {
    if (taken.has(flag.flag)) continue
    for (const option of optionsFor(flag)) command.addOption(option)
  }
}

function optionsFor(flag: FlagDescription): Option[] {
  const shown = flag.default === undefined ? '' : ` (default: ${String(flag.default)})`
  if (flag.type === 'boolean') {
    const negated = flag.flag.replace('--', '--no-')
    const on = new Option(flag.flag, `${flag.summary}; ${negated} is the opposite${shown}`)
    const off = new Option(negated).hideHelp()
    // Without a default of their own, commander would set the option when only --no-x is known.
    return [on.default(undefined), off.default(undefined)]
  }
  if (flag.choices) {
    const text = `${flag.summary} (${flag.choices.join(', ')})${shown}`
    return [new Option(`${flag.flag} <name>`, text)]
  }
  if (flag.type === 'string') return [new Option(`${flag.flag} <name>`, flag.summary + shown)]
  const range = flag.most === undefined ? '' : `, ${allowedValues(flag)}`
  const option = new Option(`${flag.flag} <n>`, flag.summary + range + shown)
  return [option.argParser(parseNumber())]
}

/** The options that were given on the command line, by their keys in the schema. */
export function givenOptions(command: Command, schema: OptionsSchema): Record<string, unknown> {
  const given: Record<string, unknown> = {}
  for (const { key } of describeFlags(schema)) {
    if (command.getOptionValueSource(key) === 'cli') given[key] = command.getOptionValue(key)
  }
  return given
}

/**
 * A plugin is a factory that returns a plain object, with its options' schema beside it:
 * `gptq({ bits: 4 })`, `gptq.options`. Flags, forms, checks and docs are generated from the schema.
 */

import type * as z from 'zod'
import { LowbitError } from '../errors.ts'

/** An object schema; every key needs a `.describe()` for help texts, defaults are the best known setting. */
export type OptionsSchema = z.ZodObject

export interface PluginInfo<Schema extends OptionsSchema> {
  /** As it is written in recipes and after `--method`: lower case, dashes. */
  readonly name: string
  /** One line for lists. */
  readonly summary: string
  /** Where the method comes from: paper, section. */
  readonly source?: string
  readonly options: Schema
}

export interface Plugin<Schema extends OptionsSchema, Made> extends PluginInfo<Schema> {
  (options?: z.input<Schema>): Made
}

/** A plugin of any options, as registries hold them; call it with options that its schema will check. */
export interface AnyPlugin<Made> extends PluginInfo<OptionsSchema> {
  (options?: never): Made
}

/** Makes the factory of a plugin: options are checked and completed by the schema before `create` sees them. */
export function definePlugin<Schema extends OptionsSchema, Made>(
  info: PluginInfo<Schema>,
  create: (options: z.output<Schema>) => Made,
): Plugin<Schema, Made> {
  const factory = (options?: z.input<Schema>): Made =>
    create(parseOptions(info.name, info.options, options ?? {}))
  Object.defineProperty(factory, 'name', { value: info.name })
  return Object.assign(factory, {
    summary: info.summary,
    source: info.source,
    options: info.options,
  }) as Plugin<Schema, Made>
}

/** Checks options; the error names the option, what was given and what is allowed. */
export function parseOptions<Schema extends OptionsSchema>(
  name: string,
  schema: Schema,
  options: unknown,
): z.output<Schema> {
  const result = schema.strict().safeParse(options)
  if (result.success) return result.data as z.output<Schema>
  const [issue] = result.error.issues
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schema.shape).join(', ')
    throw new LowbitError(
      'bad-option',
      `${name} has no option ${issue.keys.join(', ')}; it has: ${known}`,
      { option: issue.keys[0] },
    )
  }
  const option = issue.path.join('.')
  throw new LowbitError('bad-option', `${name}: ${option ? `${option}: ` : ''}${issue.message}`, {
    option: option || undefined,
  })
}

/** A plugin's schema → what flags, forms and tables show of each option. */

import * as z from 'zod'
import type { OptionsSchema } from './define.ts'

export interface OptionDescription {
  /** The option's key in the schema. */
  readonly key: string
  readonly type: 'number' | 'integer' | 'boolean' | 'string'
  readonly choices?: readonly string[]
  readonly default?: unknown
  readonly least?: number
  readonly most?: number
  readonly summary: string
}

interface Property {
  readonly type?: string | readonly string[]
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly minimum?: number
  readonly maximum?: number
  readonly description?: string
}

/** Through zod's own JSON Schema. Options of other types, such as functions, belong into library calls or recipes. */
export function describeOptions(schema: OptionsSchema): OptionDescription[] {
  const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  const properties = (json.properties ?? {}) as Record<string, Property>
  return Object.entries(properties).flatMap(([key, property]) => {
    const { minimum, maximum, description = '' } = property
    // A value that may be written in several ways (1% or 0.01) is the schema's to read.
    const type = Array.isArray(property.type) ? 'string' : property.type
    if (type !== 'number' && type !== 'integer' && type !== 'boolean' && type !== 'string') {
      return []
    }
    return [
      {
        ...{ key, type },
        ...(property.enum && { choices: property.enum.map(String) }),
        ...(property.default !== undefined && { default: property.default }),
        ...(minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER && { least: minimum }),
        ...(maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER && { most: maximum }),
        summary: description,
      },
    ]
  })
}

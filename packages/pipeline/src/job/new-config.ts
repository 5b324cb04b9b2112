import type { Format } from '@lowbit/core'
import type { Described } from '@lowbit/formats'

/** config.json with what the layout has to say in place of what the source's layout said. */
export function newConfig(
  config: Readonly<Record<string, unknown>>,
  format: Format,
  described: Described,
): Record<string, unknown> {
  const { quantization_config: _, ...plain } = config
  const modules = new Map(Object.entries(described))
  return modules.size === 0 ? plain : { ...plain, ...format.config(modules) }
}

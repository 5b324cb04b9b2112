/** The module that somebody means by the end of its name. */

import { LowbitError } from '@lowbit/core'

/** How many names a message lists. */
const SHOWN = 4

/** The module of that name, or the only one that ends in it: "layers.0.mlp.up_proj". */
export function findModule(modules: readonly string[], name: string): string {
  if (modules.includes(name)) return name
  const found = modules.filter((module) => module.endsWith(`.${name}`))
  if (found.length === 1) return found[0]
  if (found.length > 1) {
    throw new LowbitError(
      'bad-option',
      `--plot ${name} can be any of ${found.length} modules: ${some(found)}; write more of the name`,
      { option: 'plot' },
    )
  }
  const near = modules.filter((module) => module.includes(name))
  throw new LowbitError(
    'bad-option',
    `--plot ${name}: the model has no such module; it has ${some(near.length > 0 ? near : modules)} (or plot errors, or bits)`,
    { option: 'plot' },
  )
}

const some = (names: readonly string[]): string =>
  names.slice(0, SHOWN).join(', ') + (names.length > SHOWN ? ', …' : '')

import type { Architecture } from '@lowbit/core'
import { LowbitError } from '@lowbit/core'
import { llama } from './llama.ts'

/** Every family that can be run. A new one is a data file and a line here. */
export const ARCHITECTURES: readonly Architecture[] = [llama]

export function findArchitecture(config: Readonly<Record<string, unknown>>): Architecture {
  const type = config.model_type
  const found = ARCHITECTURES.find(({ modelTypes }) => modelTypes.includes(String(type)))
  if (found) return found
  const known = ARCHITECTURES.flatMap(({ modelTypes }) => modelTypes).join(', ')
  throw new LowbitError(
    'unknown-architecture',
    `model_type ${JSON.stringify(type)} is not one that lowbit runs; it runs: ${known}`,
    { file: 'config.json' },
  )
}

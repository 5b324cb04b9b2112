/** The names of a block's modules in the checkpoint. */

import type { Architecture } from '@lowbit/core'
import type { Role } from './block.ts'

export const ROLES: readonly Role[] = [
  'query',
  'key',
  'value',
  'attentionOutput',
  'gate',
  'up',
  'down',
]

export interface BlockNames {
  readonly attentionNorm: string
  readonly mlpNorm: string
  readonly modules: ReadonlyMap<Role, string>
}

export function blockNames({ modules: { block } }: Architecture, layer: number): BlockNames {
  const at = (name: string): string => name.replace('{i}', String(layer))
  const modules = new Map<Role, string>()
  for (const role of ROLES) {
    const name = block[role]
    if (name) modules.set(role, at(name))
  }
  return { attentionNorm: at(block.attentionNorm), mlpNorm: at(block.mlpNorm), modules }
}

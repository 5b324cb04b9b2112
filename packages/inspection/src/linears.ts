/** Where the linears of a model's blocks are. */

import type { Checkpoint } from '@lowbit/core'
import { blockNames, decoderConfig, type Role, roleShape } from '@lowbit/model'

/** As tables and pictures name them. */
export const ROLE_NAMES: Readonly<Record<Role, string>> = {
  query: 'q',
  key: 'k',
  value: 'v',
  attentionOutput: 'o',
  gate: 'gate',
  up: 'up',
  down: 'down',
}

export interface Place {
  readonly module: string
  readonly layer: number
  readonly role: string
  readonly rows: number
  readonly columns: number
}

/** The linears of all blocks, in the order in which the model runs them. */
export function placesOf({ config: stored }: Pick<Checkpoint, 'config'>): Place[] {
  const config = decoderConfig(stored)
  return Array.from({ length: config.layers }, (_, layer) =>
    [...blockNames(config.architecture, layer).modules].map(([role, module]) => {
      const [rows, columns] = roleShape(config, role)
      return { module, layer, role: ROLE_NAMES[role], rows, columns }
    }),
  ).flat()
}

/** Their modules: what bits per weight are counted over. */
export const linearsOfBlocks = (checkpoint: Pick<Checkpoint, 'config'>): string[] =>
  placesOf(checkpoint).map(({ module }) => module)

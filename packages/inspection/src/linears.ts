import type { Checkpoint } from '@lowbit/core'
import { blockNames, decoderConfig } from '@lowbit/model'

/** The linears of all blocks, in the order in which the model runs them: what bits per weight are counted over. */
export function linearsOfBlocks({ config }: Pick<Checkpoint, 'config'>): string[] {
  const { architecture, layers } = decoderConfig(config)
  return Array.from({ length: layers }, (_, layer) => [
    ...blockNames(architecture, layer).modules.values(),
  ]).flat()
}

/** What the matrices of a quantizer share is made before the first of them. */

import { type Quantizer, seedFor } from '@lowbit/core'
import { blockNames, type Opened, roleShape } from '@lowbit/model'
import type { Assignment } from '../recipe/resolve.ts'
import { breathe } from './breathe.ts'
import type { QuantizeJob } from './job.ts'

/** The assignment with every quantizer prepared that asks for it; the others are as they were. */
export async function prepareQuantizers(
  { checkpoint, kernels, recipe, signal, onEvent }: QuantizeJob,
  opened: Opened,
  assigned: Assignment,
): Promise<Assignment> {
  const modules = new Map<Quantizer, string[]>()
  for (const [module, quantizer] of assigned) {
    modules.set(quantizer, [...(modules.get(quantizer) ?? []), module])
  }
  const prepared = new Map<Quantizer, Quantizer>()
  for (const [quantizer, names] of modules) {
    const name = `${quantizer.name.replaceAll('-', '_')}${prepared.size}`
    if (!quantizer.prepare) {
      prepared.set(quantizer, quantizer)
      continue
    }
    const shapes = await Promise.all(names.map((module) => shapeOf(opened, module)))
    const weights = names.map((module, i) => ({
      ...{ name: module, rows: shapes[i][0], columns: shapes[i][1] },
      async read() {
        signal?.throwIfAborted()
        const weight = kernels.load(await checkpoint.readMatrix(module))
        const dense = kernels.tensor(weight.rows, weight.columns)
        kernels.gather(dense, weight)
        kernels.unload(weight)
        await breathe()
        return dense
      },
    }))
    prepared.set(
      quantizer,
      await quantizer.prepare({
        ...{ name, weights, kernels, seed: seedFor(recipe.seed, name), signal },
        onProgress: (done) =>
          onEvent?.({
            ...{ kind: 'step', part: 'tables', what: `fitting ${quantizer.name}’s tables` },
            done: 0.02 * done,
          }),
      }),
    )
  }
  return new Map([...assigned].map(([module, quantizer]) => [module, prepared.get(quantizer)!]))
}

/** Rows and columns; those of a block's linears follow from config.json. */
async function shapeOf(
  { checkpoint, config }: Opened,
  module: string,
): Promise<readonly [rows: number, columns: number]> {
  for (let layer = 0; layer < config.layers; layer++) {
    for (const [role, name] of blockNames(config.architecture, layer).modules) {
      if (name === module) return roleShape(config, role)
    }
  }
  const { rows, columns } = await checkpoint.readMatrix(module)
  return [rows, columns]
}

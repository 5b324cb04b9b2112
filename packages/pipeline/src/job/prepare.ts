/** What the matrices of a quantizer share is made before the first of them. */

import { type Quantizer, seedFor } from '@lowbit/core'
import type { Assignment } from '../recipe/resolve.ts'
import { breathe } from './breathe.ts'
import type { QuantizeJob } from './job.ts'

/** The assignment with every quantizer prepared that asks for it; the others are as they were. */
export async function prepareQuantizers(
  { checkpoint, kernels, recipe, signal, onEvent }: QuantizeJob,
  assigned: Assignment,
): Promise<Assignment> {
  const modules = new Map<Quantizer, string[]>()
  for (const [module, quantizer] of assigned) {
    modules.set(quantizer, [...(modules.get(quantizer) ?? []), module])
  }
  const prepared = new Map<Quantizer, Quantizer>()
  for (const [quantizer, names] of modules) {
    const name = `${quantizer.name.replaceAll('-', '_')}${prepared.size}`
    const weights = names.map((module) => ({
      name: module,
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
      (await quantizer.prepare?.({
        ...{ name, weights, kernels, seed: seedFor(recipe.seed, name), signal },
        onProgress: (done) =>
          onEvent?.({
            ...{ kind: 'step', part: 'tables', what: `fitting ${quantizer.name}’s tables` },
            done: 0.02 * done,
          }),
      })) ?? quantizer,
    )
  }
  return new Map([...assigned].map(([module, quantizer]) => [module, prepared.get(quantizer)!]))
}

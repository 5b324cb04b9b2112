/** A real matrix against published errors of exact k-means (kmeans1d on all its values). */

import path from 'node:path'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { expect, it } from 'vitest'
import { palettize } from './palettize.ts'

const folder = process.env.LOWBIT_SMOLLM2
const reason = folder ? '' : ' (skipped: LOWBIT_SMOLLM2 does not name a folder with SmolLM2-135M)'

it.skipIf(!folder).each([
  [2, 4966.58],
  [3, 1654.31],
  [4, 516.3],
  [8, 2.06],
])(`layers.15.mlp.down_proj at %d bits loses %d · 10⁻⁶${reason}`, async (bits, expected) => {
  const kernels = await cpu({ threads: 1 })
  const checkpoint = await openFolder(nodeFolder(path.join(folder!, 'hf')))
  try {
    const original = await checkpoint.readMatrix('model.layers.15.mlp.down_proj')
    const { rows, columns } = original
    const dense = (matrix: typeof original) => {
      const loaded = kernels.load(matrix)
      const out = kernels.tensor(rows, columns)
      kernels.gather(out, loaded)
      return out
    }
    const weight = dense(original)
    const quantizer = palettize({ bits: bits as 2, importance: 'none', tableType: 'f32' })
    const matrix = await quantizer.quantize({ name: 'w', weight, kernels, seed: 0 })
    const lost = await kernels.distance(dense(original), dense(matrix))
    expect((1e6 * lost) / (rows * columns)).toBeCloseTo(expected, expected > 100 ? 1 : 2)
  } finally {
    kernels.dispose()
    await checkpoint.close()
  }
})

/** Tensor cores of an emulated GPU, where g++ is. */

import { FLOAT_FORMATS, floatGrid, perGroup, seededRandom } from '@lowbit/core'
import { scalarMatrix } from '@lowbit/testing'
import { afterEach, describe, expect, it } from 'vitest'
import { describeDecoded } from '../gpu-tests/decoded.ts'
import { describeTiles } from '../gpu-tests/tiles.ts'
import { buildEmulation, noEmulation } from '../tooling/emulate.ts'
import { cuda } from './index.ts'

const reason = noEmulation()

if (reason) describe.skip(`tensor cores, emulated (skipped: ${reason})`, () => it('keeps to x'))
else {
  const library = buildEmulation()
  describeTiles(library)
  describeDecoded(library)

  afterEach(() => {
    delete process.env.LOWBIT_EMULATED_CAPABILITY
  })

  it('GPUs without bf16 or FP8 on tensor cores take f16 instead', async () => {
    const e4m3 = scalarMatrix(
      floatGrid(FLOAT_FORMATS.f8_e4m3),
      ...([8, 64, perGroup(32), seededRandom(3)] as const),
    )
    const dense = { rows: 1, columns: 64, type: 'bf16', values: new Uint16Array(64) } as const
    for (const [capability, ofE4M3, ofDense] of [
      [75, 'f16', 'f16'],
      [86, 'f16', 'bf16'],
      [89, 'fp8', 'bf16'],
    ] as const) {
      process.env.LOWBIT_EMULATED_CAPABILITY = String(capability)
      const kernels = await cuda({ library })
      const coded = kernels.load(e4m3, { activations: 'fp8' })
      expect(coded.variant).toContain(`, ${ofE4M3} `)
      expect(kernels.load(dense, { activations: 'bf16' }).variant).toContain(`, ${ofDense} `)
      kernels.dispose()
    }
  })
}

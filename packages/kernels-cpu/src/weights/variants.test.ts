import { type QuantizedMatrix, seededRandom } from '@lowbit/core'
import { codebookStage, structuredSamples, thinSamples } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { using } from '../plain-loops.ts'

describe('variants', () => {
  it('none of the structured samples is kept dense', async () => {
    await using({ threads: 1 }, async (kernels) => {
      for (const { name, matrix } of [...structuredSamples(), ...thinSamples()]) {
        const weight = kernels.load(matrix)
        expect(weight.variant, name).not.toMatch(/dense/)
        kernels.unload(weight)
      }
    })
  })

  it('shared tables are in memory once, until the last weight goes', async () => {
    await using({ threads: 1 }, async (kernels) => {
      const held = kernels.bytes
      const options = { length: 8, along: 'out', entries: 4096, shared: 'main' } as const
      const stage = codebookStage(16, 32, seededRandom(1), options)
      const matrix: QuantizedMatrix = { rows: 16, columns: 32, stages: [stage] }
      const first = kernels.load(matrix)
      const one = kernels.bytes - held
      // As a reader makes it: the same numbers, made anew.
      const grid = structuredClone(stage.grid)
      const second = kernels.load({ ...matrix, stages: [{ ...stage, grid }] })
      expect(one).toBeGreaterThan(4096 * 8 * 4)
      expect(kernels.bytes - held - one).toBeLessThan(2048)
      kernels.unload(first)
      expect(kernels.bytes - held).toBeGreaterThan(4096 * 8 * 4)
      kernels.unload(second)
      expect(kernels.bytes).toBe(held)
    })
  })

  it('codes that mean nothing, and too few of them, are LowbitErrors, and leave nothing behind', async () => {
    await using({ threads: 1 }, async (kernels) => {
      const held = kernels.bytes
      const stage = codebookStage(16, 32, seededRandom(1), { length: 4, along: 'in', entries: 40 })
      const load = (part: object) => () =>
        kernels.load({ rows: 16, columns: 32, stages: [{ ...stage, ...part }] })
      const grid = { ...stage.grid, entries: 20 }
      expect(load({ grid })).toThrow(/code \d+ means nothing in a grid of 20/)
      const codes = { ...stage.codes, data: stage.codes.data.subarray(1) }
      expect(load({ codes })).toThrow(/128 codes of 6 bits are needed/)
      expect(kernels.bytes).toBe(held)
    })
  })
})

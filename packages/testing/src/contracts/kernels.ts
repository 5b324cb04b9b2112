/** The contract of `Kernels`: any set of them, held against core's decode and the reference kernels. */

import type { Kernels } from '@lowbit/core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type BenchOf, type OpenBench, openBench } from './kernels/bench.ts'
import { decoderContract } from './kernels/decoder.ts'
import { fittingContract } from './kernels/fitting.ts'
import { gradientContract } from './kernels/gradients.ts'
import { linearAlgebraContract } from './kernels/linear-algebra.ts'
import { matmulContract } from './kernels/matmul.ts'
import { memoryContract } from './kernels/memory.ts'
import { roundingContract } from './kernels/rounding.ts'
import { samplingContract } from './kernels/sampling.ts'
import { tablesContract } from './kernels/tables.ts'
import { trainingContract } from './kernels/training.ts'
import { vectorContract } from './kernels/vectors.ts'

const GROUPS = {
  memory: memoryContract,
  matmul: matmulContract,
  'linear-algebra': linearAlgebraContract,
  fitting: fittingContract,
  rounding: roundingContract,
  tables: tablesContract,
  vectors: vectorContract,
  decoder: decoderContract,
  gradients: gradientContract,
  training: trainingContract,
  sampling: samplingContract,
} satisfies Record<string, (open: BenchOf) => void>

/** A group of tests, by its name in GROUPS: `memory`, `matmul`, `rounding`, … */
export type KernelGroup = keyof typeof GROUPS

export interface KernelContractOptions {
  /** Groups that these kernels do not do yet, and why: shown with the skipped tests. */
  readonly skip?: Readonly<Record<string, string>>
}

/** Declares the tests of a set of kernels; `make` is called once for them all. */
export function describeKernels(
  name: string,
  make: () => Promise<Kernels> | Kernels,
  options: KernelContractOptions = {},
): void {
  const skip = options.skip ?? {}
  const unknown = Object.keys(skip).find((group) => !(group in GROUPS))
  if (unknown) {
    throw new Error(`there is no group ${unknown} to skip; there are ${Object.keys(GROUPS)}`)
  }
  describe(`kernels ${name}`, () => {
    let bench: OpenBench | undefined
    let start = 0
    beforeAll(async () => {
      bench = openBench(await make())
    })
    // Before each test, so that one that leaks or breaks off does not fail those after it.
    beforeEach(() => {
      start = open().kernels.bytes
    })
    afterEach(() => {
      bench?.clear()
      if (bench) expect(bench.kernels.bytes, 'bytes held after the test').toBe(start)
    })
    afterAll(() => bench?.kernels.dispose())

    const open: BenchOf = () => {
      if (!bench) throw new Error('the kernels are made when the tests run')
      return bench
    }
    for (const [group, contract] of Object.entries(GROUPS)) {
      if (group in skip) describe.skip(`${group} (${skip[group]})`, () => contract(open))
      else describe(group, () => contract(open))
    }

    it('says what it is', () => {
      const { kernels } = open()
      expect(kernels.name).toMatch(/^[a-z][a-z0-9-]*$/)
      expect(kernels.variant).not.toBe('')
      expect(kernels.strict).toBeTypeOf('boolean')
    })

    it('dispose ends it, and other kernels live on', async () => {
      const other = await make()
      const tensor = other.upload(Float32Array.of(1), 1, 1)
      expect([...(await other.read(tensor))]).toEqual([1])
      other.dispose()
      const { kernels, up } = open()
      expect([...(await kernels.read(up([2], 1, 1)))]).toEqual([2])
    })
  })
}

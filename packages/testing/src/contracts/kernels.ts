/** The contract of `Kernels` as tests: any set of them, held against core's decode and the reference kernels. */

import { afterAll, describe, it } from 'vitest'
import {
  type KernelCheck,
  type KernelContractOptions,
  kernelChecks,
  type MakeKernels,
} from './kernels/checks.ts'

export type { KernelContractOptions, KernelGroup } from './kernels/checks.ts'

/** Declares the tests of a set of kernels; `make` is called once for them all. */
export function describeKernels(
  name: string,
  make: MakeKernels,
  options: KernelContractOptions = {},
): void {
  const { checks, close } = kernelChecks(make, options)
  describe(`kernels ${name}`, () => {
    afterAll(close)
    for (const [group, members] of Map.groupBy(checks, (check: KernelCheck) => check.group)) {
      const skipped = members[0].skipped
      const title = skipped === undefined ? group : `${group} (${skipped})`
      describe.skipIf(skipped !== undefined)(title, () => {
        for (const check of members) it(check.name, () => check.run())
      })
    }
  })
}

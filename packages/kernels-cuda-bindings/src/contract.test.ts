/** The contract of kernels on an emulated GPU: the binding and the kernels as they are, where g++ is. */

import { describeKernels } from '@lowbit/testing'
import { describe, it } from 'vitest'
import { buildEmulation, noEmulation } from '../tooling/emulate.ts'
import { cuda } from './index.ts'

const reason = noEmulation()

if (reason) {
  describe.skip(`kernels cuda, emulated (skipped: ${reason})`, () => it('keeps the contract'))
} else {
  const library = buildEmulation()
  describeKernels('cuda, emulated', () => cuda({ library }))
}

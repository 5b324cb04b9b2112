/** Tensor cores of an emulated GPU, where g++ is. */

import { describe, it } from 'vitest'
import { describeTiles } from '../gpu-tests/tiles.ts'
import { buildEmulation, noEmulation } from '../tooling/emulate.ts'

const reason = noEmulation()

if (reason) describe.skip(`tensor cores, emulated (skipped: ${reason})`, () => it('keeps to x'))
else describeTiles(buildEmulation())

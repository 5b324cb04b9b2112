/** Graphs on an emulated GPU, where g++ is. */

import { describe, it } from 'vitest'
import { describeGraphs } from '../gpu-tests/graphs.ts'
import { buildEmulation, noEmulation } from '../tooling/emulate.ts'

const reason = noEmulation()

if (reason) describe.skip(`graphs, emulated (skipped: ${reason})`, () => it('gives the same'))
else describeGraphs(buildEmulation())

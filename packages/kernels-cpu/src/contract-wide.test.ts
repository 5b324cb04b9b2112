import { setFlagsFromString } from 'node:v8'
import { seededRandom } from '@lowbit/core'
import { describeKernels } from '@lowbit/testing'
import { expect, it } from 'vitest'
import { cpu } from './cpu.ts'
import { askForWideVectors } from './wide.ts'

// The baseline compiler never fuses vectors, and small cases never leave it.
setFlagsFromString('--no-liftoff')
const wide = askForWideVectors()

describeKernels(`cpu, strict, wide: ${wide}, 2 threads`, () => cpu({ threads: 2, wide: true }))
describeKernels(`cpu, relaxed, wide: ${wide}, 1 thread`, () =>
  cpu({ threads: 1, strict: false, wide: true }),
)

it.for([true, false])('gives the same bits as vectors of 128 bits, strict: %s', async (strict) => {
  const random = seededRandom(7)
  const [m, n, k] = [37, 83, 301]
  const values = (count: number) => Float32Array.from({ length: count }, () => random() - 0.5)
  const [a, b] = [values(m * k), values(n * k)]
  const results: Float32Array[] = []
  for (const wide of [false, true]) {
    const kernels = await cpu({ threads: 1, strict, wide })
    const out = kernels.tensor(m, n)
    kernels.multiply(out, kernels.upload(a, m, k), kernels.upload(b, n, k))
    results.push(await kernels.read(out))
    kernels.dispose()
  }
  expect(results[1]).toEqual(results[0])
})

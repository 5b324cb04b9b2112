/** Does this browser compute right on this machine, and how fast. */

import { openKernels } from './kernels.ts'
import type { Checkup, DeviceName } from './protocol.ts'

export async function checkUp(
  device: DeviceName,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<Checkup> {
  // Hundreds of checks that most people never need.
  const { measureSpeed, runKernelChecks } = await import('@lowbit/testing/checks')
  const results = await runKernelChecks(() => openKernels(device, device === 'cpu'), {
    signal,
    onProgress(done, total, { group, name }) {
      onProgress(`${group}: ${name}`, done / total)
    },
  })
  onProgress('measuring speed', 1)
  const kernels = await openKernels(device, false)
  const { gflops, int4Gflops, memoryBytesPerSecond } = await measureSpeed(kernels)
  const { variant } = kernels
  kernels.dispose()
  return {
    ...{ device, variant, passed: results.filter(({ ok }) => ok).length },
    failed: results
      .filter(({ ok }) => !ok)
      .map(({ group, name, error = '' }) => ({ name: `${group}: ${name}`, error })),
    gigaflops: gflops,
    int4Gigaflops: int4Gflops,
    gigabytesPerSecond: memoryBytesPerSecond / 1e9,
  }
}

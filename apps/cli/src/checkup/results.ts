/** Does this machine compute right? Small matrices against decode, the demo against recorded logits. */

import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type Kernels, LowbitError, seededRandom } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { loadDecoder } from '@lowbit/model'
import { openSafetensorsFile } from '@lowbit/safetensors/node'
import { runKernelChecks } from '@lowbit/testing/checks'
import { largestDifference } from '../inspection/compatibility.ts'
import { DEMO, openModel } from '../model-source/open-model.ts'
import { QUANTIZERS } from '../plugins.ts'
import type { Session } from '../session.ts'
import type { Progress } from '../terminal/progress.ts'

export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly detail: string
}

const MATRICES = [
  { method: 'rtn', options: { bits: 4 } },
  { method: 'rtn', options: { bits: 3, symmetric: true } },
  { method: 'rtn', options: { grid: 'nf4', doubleQuantization: true } },
  { method: 'rtn', options: { grid: 'mxfp4' } },
]

const ROWS = 64
const COLUMNS = 384

/** Products with quantized matrices against the meaning of those matrices. */
export async function checkMatrices(kernels: Kernels): Promise<Check[]> {
  const checks: Check[] = []
  for (const { method, options } of MATRICES) {
    const plugin = QUANTIZERS.find(({ name }) => name === method)
    if (!plugin) continue
    const random = seededRandom(7)
    const values = Float32Array.from({ length: ROWS * COLUMNS }, () => random() + random() - 1)
    const weight = kernels.upload(values, ROWS, COLUMNS)
    const quantizer = plugin(options as never)
    const matrix = await quantizer.quantize({ name: 'sample', weight, kernels, seed: 0 })
    kernels.free(weight)
    const difference = await largestDifference(kernels, matrix)
    checks.push({
      name: `product with ${quantizer.label}`,
      ok: difference < 1e-3,
      detail: `differs from decode by ${difference.toExponential(1)} at most`,
    })
  }
  return checks
}

/** The whole contract of kernels: every operation against what it means, some 700 checks. */
export async function checkContract(
  make: () => Promise<Kernels>,
  signal: AbortSignal,
  progress: Progress,
): Promise<Check[]> {
  const results = await runKernelChecks(make, {
    signal,
    onProgress: (done, total, { group, name }) =>
      progress.update(done / total, `${group}: ${name} (${done + 1} of ${total})`),
  })
  return results.map(({ group, name, ok, error }) => ({
    ...{ name: `${group}: ${name}`, ok, detail: error ?? 'as its definition' },
  }))
}

/** The demo's logits against those of transformers, and their digest for comparing two machines. */
export async function checkDemo(kernels: Kernels, session: Session): Promise<Check> {
  const file = fileURLToPath(DEMO_MODEL.referenceLogits)
  const reference = await openSafetensorsFile(file)
  const ids = viewOf(await reference.read('input_ids'), BigInt64Array)
  const expected = viewOf(await reference.read('logits'), Float32Array)
  await reference.close()
  const model = await openModel(DEMO, session)
  const decoder = await loadDecoder(model.checkpoint, kernels)
  await model.checkpoint.close()
  const cache = decoder.cache(ids.length)
  const hidden = decoder.forward(Array.from(ids, Number), cache)
  const logits = decoder.logits(hidden)
  const got = await kernels.read(logits)
  kernels.free(hidden, logits)
  cache.dispose()
  decoder.dispose()
  if (got.length !== expected.length) {
    throw new LowbitError('bad-file', 'the recorded logits do not fit the demo', { file })
  }
  let most = 0
  for (let i = 0; i < got.length; i++) {
    const difference = Math.abs(got[i] - expected[i])
    most = Math.max(most, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
  }
  const digest = createHash('sha256').update(got).digest('hex').slice(0, 12)
  return {
    name: "the demo's logits",
    ok: most <= 1e-3,
    detail: `differ from transformers' by ${most.toExponential(1)} at most, digest ${digest}`,
  }
}

function viewOf<T>(bytes: Uint8Array, View: new (buffer: ArrayBuffer) => T): T {
  return new View(bytes.slice().buffer as ArrayBuffer)
}

/** Which job a working folder belongs to, and how far an earlier run of it came. */

import { digest, isQuantized, LowbitError } from '@lowbit/core'
import { type Folder, readJson } from '@lowbit/formats'
import { blockNames, type Opened } from '@lowbit/model'
import type { Assignment } from '../recipe/resolve.ts'
import type { ModelTuner } from '../tune/end-to-end.ts'
import type { QuantizeJob } from './job.ts'
import { fingerprint, type Journal, readJournal } from './journal.ts'
import type { QuantizeReport } from './report.ts'

export const REPORT = 'quantization-report.json'

export async function jobFingerprint(
  job: QuantizeJob,
  opened: Opened,
  quantizers: Assignment,
  windows: readonly (readonly number[])[],
  tuner: ModelTuner | undefined,
): Promise<string> {
  return fingerprint({
    quantizers: [...quantizers].map(([module, { name, options }]) => [module, name, options]),
    windows,
    format: job.format.name,
    seed: job.recipe.seed,
    trueSequential: job.recipe.calibration.trueSequential,
    target: job.recipe.calibration.target,
    tune: tuner && [tuner.name, tuner.options],
    config: job.checkpoint.config,
    modules: job.checkpoint.modules,
    source: await sourcePrint(opened),
    strict: job.kernels.strict ? 'any machine' : job.kernels.variant,
  })
}

/** Tells models of one shape apart, wherever they lie: their vectors, their first and their last block. */
async function sourcePrint({ checkpoint, config }: Opened): Promise<string[]> {
  const prints: string[] = []
  for (const name of checkpoint.vectors) {
    prints.push(await digest((await checkpoint.readRaw(name)).bytes))
  }
  for (const layer of new Set([0, config.layers - 1])) {
    for (const module of blockNames(config.architecture, layer).modules.values()) {
      const matrix = await checkpoint.readMatrix(module)
      const arrays = isQuantized(matrix)
        ? matrix.stages.map(({ codes }) => codes.data)
        : [matrix.values]
      for (const { buffer, byteOffset, byteLength } of arrays) {
        prints.push(await digest(new Uint8Array(buffer, byteOffset, byteLength)))
      }
    }
  }
  return prints
}

/** The report of the same job when an earlier run had finished it and only the final name is missing. */
export async function finishedReport(
  job: QuantizeJob,
  print: string,
): Promise<QuantizeReport | undefined> {
  const { folder } = job
  if (!(await folder.list()).includes(REPORT)) return undefined
  const { fingerprint: found, ...report } = await readJson(folder, REPORT)
  if (found === print) return report as unknown as QuantizeReport
  if (!job.restart) throw otherJob(folder)
  await folder.remove(REPORT)
  return undefined
}

export async function openJournal(job: QuantizeJob, print: string): Promise<Journal> {
  const fresh: Journal = { fingerprint: print, parts: {}, fisher: [] }
  const found = job.restart ? undefined : await readJournal(job.folder)
  if (!found) return fresh
  if (found.fingerprint === print) return found
  throw otherJob(job.folder)
}

const otherJob = ({ location }: Folder): LowbitError =>
  new LowbitError(
    'other-job',
    `${location} holds the unfinished work of a job with other options; finish it with its own, or pass --overwrite to start anew`,
    { file: location, option: 'overwrite' },
  )

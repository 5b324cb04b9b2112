/** One quantizing job from an opened model to a published folder. */

import { type Format, type Kernels, LowbitError } from '@lowbit/core'
import { duration, percent } from '@lowbit/inspection'
import { type QuantizeEvent, type QuantizeReport, quantizeModel } from '@lowbit/pipeline'
import type { OpenedModel } from '../model-source/open-model.ts'
import type { OutputFolder } from '../output/output-folder.ts'
import { QUANTIZERS } from '../plugins.ts'
import type { Session } from '../session.ts'
import type { Progress } from '../terminal/progress.ts'
import type { QuantizeRequest } from './request.ts'
import type { Layer } from './tables.ts'

export interface RunRequest {
  readonly model: OpenedModel
  readonly request: QuantizeRequest
  readonly calibration?: readonly (readonly number[])[]
  readonly kernels: Kernels
  readonly format: Format
  readonly output: OutputFolder
  /** What an other, unfinished job left in the work folder may go. */
  readonly overwrite: boolean
  readonly maxShardBytes?: number
  readonly label: string
}

export interface RunResult {
  readonly report: QuantizeReport
  readonly layers: Layer[]
  /** Blocks that an earlier run had finished. */
  readonly resumed: number
}

export async function runQuantization(run: RunRequest, session: Session): Promise<RunResult> {
  const { model, request, output } = run
  const progress = session.progress(run.label)
  const watch = watchEvents(run.label, progress, session)
  const job = {
    checkpoint: model.checkpoint,
    kernels: run.kernels,
    recipe: request.recipe,
    quantizers: QUANTIZERS,
    format: run.format,
    calibration: run.calibration,
    folder: output.folder,
    maxShardBytes: run.maxShardBytes,
    signal: session.signal,
    onEvent: watch.onEvent,
  }
  try {
    const report = await quantizeModel(job).catch(async (error) => {
      const other =
        error instanceof LowbitError &&
        (error.code === 'other-job' || error.code === 'bad-journal') &&
        run.overwrite
      if (!other) throw error
      await output.clear()
      return quantizeModel(job)
    })
    session.signal.throwIfAborted()
    const layers = report.modules.map((module) => ({
      ...module,
      seconds: watch.seconds.get(module.module) ?? null,
    }))
    return { report, layers, resumed: watch.resumed() }
  } finally {
    progress.end()
  }
}

function watchEvents(label: string, progress: Progress, session: Session) {
  const seconds = new Map<string, number>()
  const lines = process.stderr.isTTY !== true
  let inPart: { error: number; count: number } = { error: 0, count: 0 }
  let resumed = 0
  let skipped = 0
  return {
    seconds,
    resumed: () => resumed,
    onEvent(event: QuantizeEvent): void {
      switch (event.kind) {
        case 'start':
          resumed = event.resumed
          skipped = resumed
          if (resumed > 0 && !session.json) {
            progress.log(
              `going on with earlier work: ${resumed} of ${event.parts} parts are done already`,
            )
          }
          break
        case 'module':
          seconds.set(event.report.module, event.seconds)
          inPart = { error: inPart.error + event.report.error, count: inPart.count + 1 }
          break
        case 'step':
          progress.update(event.done, `${partName(event.part)}: ${event.what}`)
          break
        case 'part':
          progress.update(event.done, partName(event.part))
          if (lines && skipped <= 0) {
            const share = `${Math.floor(event.done * 100)} %`.padStart(5)
            const error =
              inPart.count > 0 ? `, mean error ${percent(inPart.error / inPart.count)}` : ''
            progress.log(
              `${label}${share}  ${partName(event.part)}${error}, ${duration(event.seconds)}`,
            )
          }
          skipped--
          inPart = { error: 0, count: 0 }
      }
    },
  }
}

/** "block-00003" → "block 3". */
const partName = (part: string): string => part.replace(/^block-0*(\d+)$/, 'block $1')

/** One job: a recipe and a model → a checkpoint in the browser's storage. */

import { LowbitError } from '@lowbit/core'
import { calibrationWindows, decoderConfig, firstTokens, loadTokenizer } from '@lowbit/model'
import {
  asksForText,
  parseYamlRecipe,
  type QuantizeReport,
  quantizeModel,
  type Recipe,
  refuseFormat,
} from '@lowbit/pipeline'
import { FORMATS, QUANTIZERS } from '../plugins.ts'
import { demoText } from './demo.ts'
import { resultFolder } from './jobs.ts'
import { openKernels } from './kernels.ts'
import { type OpenedModel, openModel } from './models.ts'
import type { JobEvent, JobRequest } from './protocol.ts'

export async function runJob(
  request: JobRequest,
  onEvent: (event: JobEvent) => void,
  signal: AbortSignal,
): Promise<QuantizeReport> {
  const recipe = parseYamlRecipe(request.recipe)
  const format = FORMATS.find(({ name }) => name === recipe.format)
  if (!format) {
    const known = FORMATS.map(({ name }) => name).join(', ')
    throw new LowbitError(
      'unknown-format',
      `there is no format ${recipe.format}; there are ${known}`,
    )
  }
  onEvent({ kind: 'loading', what: 'opening the model' })
  const model = await openModel(request.source)
  onEvent({ kind: 'loading', what: 'reading the calibration text' })
  const calibration = await calibrationOf(model, recipe, request)
  const kernels = await openKernels(request.device, true)
  try {
    await refuseFormat(recipe, format, QUANTIZERS, kernels)
    return await quantizeModel({
      checkpoint: model.checkpoint,
      kernels,
      recipe,
      quantizers: QUANTIZERS,
      format,
      calibration,
      folder: await resultFolder(request.id),
      signal,
      onEvent(event) {
        if (event.kind === 'start') {
          onEvent({ kind: 'start', parts: event.parts, resumed: event.resumed })
        } else if (event.kind === 'module') onEvent(event)
        else if (event.kind === 'step') {
          onEvent({ kind: 'step', what: `${words(event.part)}: ${event.what}`, done: event.done })
          onEvent({ kind: 'memory', bytes: kernels.bytes })
        } else onEvent({ kind: 'step', what: words(event.part), done: event.done })
      },
    })
  } finally {
    kernels.dispose()
    await model.checkpoint.close()
  }
}

/** "block-00003" → "block 3". */
const words = (part: string): string => part.replace(/^block-0*(\d+)$/, 'block $1')

async function calibrationOf(
  { checkpoint }: OpenedModel,
  recipe: Recipe,
  request: JobRequest,
): Promise<number[][] | undefined> {
  if (!asksForText(recipe, QUANTIZERS)) return undefined
  const text = request.text ?? (await demoText('calibration'))
  const { samples } = recipe.calibration
  const length = Math.min(recipe.calibration.length, decoderConfig(checkpoint.config).context)
  const tokens = firstTokens(await loadTokenizer(checkpoint), text, samples * length)
  if (tokens.length === 0) {
    throw new LowbitError('text-too-short', 'the calibration text is empty', {
      option: 'calibration',
    })
  }
  return calibrationWindows(tokens, samples, length)
}

/** The calibration windows of a job, from the text that was named or the one that comes with the demo. */

import { LowbitError } from '@lowbit/core'
import { calibrationWindows, decoderConfig, firstTokens, loadTokenizer } from '@lowbit/model'
import { asksForText } from '@lowbit/pipeline'
import type { OpenedModel } from '../model-source/open-model.ts'
import { demoText, readText } from '../model-source/texts.ts'
import { QUANTIZERS } from '../plugins.ts'
import type { Session } from '../session.ts'
import type { QuantizeRequest } from './request.ts'

export async function gatherCalibration(
  model: OpenedModel,
  { recipe, text: file, lengthGiven }: QuantizeRequest,
  session: Session,
): Promise<number[][] | undefined> {
  // This refuses bad options before the model is touched.
  const asking = asksForText(recipe, QUANTIZERS)
  if (!asking) {
    if (file) session.warn('--calibration is of no use here: the method needs no text')
    return undefined
  }
  const { context } = decoderConfig(model.checkpoint.config)
  const { samples, length: asked } = recipe.calibration
  if (lengthGiven && asked > context) {
    throw new LowbitError(
      'bad-option',
      `--length ${asked} is more than the model's context of ${context}`,
      { option: 'length' },
    )
  }
  const length = Math.min(asked, context)
  const text = file ? await readText(file, 'calibration') : await demoText(model, 'calibration')
  if (text === undefined) {
    throw new LowbitError(
      'bad-option',
      `${asking.name} measures the model on a text: give one with --calibration FILE (plain text like what the model will read; ${samples * length} tokens of it are used)`,
      { option: 'calibration' },
    )
  }
  const tokenizer = await loadTokenizer(model.checkpoint)
  const tokens = firstTokens(tokenizer, text, samples * length)
  if (tokens.length === 0) {
    throw new LowbitError('text-too-short', '--calibration: the text is empty', {
      file,
      option: 'calibration',
    })
  }
  const windows = calibrationWindows(tokens, samples, length)
  const used = windows.reduce((sum, window) => sum + window.length, 0)
  if (used < samples * length) {
    const windowsOf = windows.length === 1 ? 'one window' : `${windows.length} windows`
    session.warn(
      `the calibration text is short: ${windowsOf} of ${windows[0].length} tokens instead of ${samples} of ${length}`,
    )
  }
  return windows
}

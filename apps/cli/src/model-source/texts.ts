/** Texts for calibration and evaluation: a file, or what comes with the bundled model. */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { LowbitError } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import type { OpenedModel } from './open-model.ts'
import { DEMO } from './open-model.ts'

/** Reads a text as UTF-8; bytes that are none are an error, not question marks. */
export async function readText(file: string, option: string): Promise<string> {
  let content: Uint8Array
  try {
    content = await readFile(file)
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
    const why = missing ? 'there is no such file' : (cause as Error).message
    throw new LowbitError('file-error', `--${option}: ${file}: ${why}`, { file, option, cause })
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content)
  } catch (cause) {
    throw new LowbitError('bad-text', `--${option}: ${file} is not UTF-8 text`, {
      file,
      option,
      cause,
    })
  }
}

/** The texts that belong to the bundled model, for it and for whatever was made of it. */
export async function demoText(
  model: OpenedModel,
  which: 'calibration' | 'evaluation',
): Promise<string | undefined> {
  if (!(await speaksLikeDemo(model))) return undefined
  return readFile(fileURLToPath(DEMO_MODEL[which]), 'utf8')
}

/** Whether it is the demo or has the demo's tokenizer. */
async function speaksLikeDemo(model: OpenedModel): Promise<boolean> {
  if (model.name === DEMO) return true
  const file = 'tokenizer.json'
  if (!model.checkpoint.files.includes(file)) return false
  const [own, demo] = await Promise.all([
    model.checkpoint.readFile(file),
    readFile(new URL(file, DEMO_MODEL.folder)),
  ])
  return Buffer.compare(own, demo) === 0
}

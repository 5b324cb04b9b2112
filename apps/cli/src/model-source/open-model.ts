/** What a person writes as MODEL → an opened checkpoint. */

import { stat } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Checkpoint, LowbitError } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import { type Folder, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import type { Session } from '../session.ts'

export interface OpenedModel {
  /** As it was asked for. */
  readonly name: string
  /** The directory that it was opened from. */
  readonly directory: string
  readonly folder: Folder
  readonly checkpoint: Checkpoint
}

export const DEMO = 'demo'

const HUB_ID = /^[\w][\w.-]*\/[\w][\w.-]*$/

export async function openModel(name: string, session: Session): Promise<OpenedModel> {
  const directory = await locate(name, session)
  const folder = nodeFolder(directory)
  const checkpoint = await openFolder(folder)
  session.holds(checkpoint)
  return { name, directory, folder, checkpoint }
}

async function locate(name: string, session: Session): Promise<string> {
  if (name === DEMO) return fileURLToPath(DEMO_MODEL.folder)
  const found = await stat(name).catch(() => undefined)
  if (found?.isDirectory()) return path.resolve(name)
  if (found) {
    throw new LowbitError(
      'not-found',
      `${name} is a file; a model is a folder with config.json and safetensors files`,
      { file: name },
    )
  }
  if (!HUB_ID.test(name)) {
    throw new LowbitError(
      'not-found',
      `there is no folder ${name}; a model is a folder, a hub id (org/name), or demo`,
      { file: name },
    )
  }
  const { downloadModel } = await import('./hub.ts')
  return downloadModel(name, session)
}

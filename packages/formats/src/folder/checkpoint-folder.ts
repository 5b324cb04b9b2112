/** A folder as transformers lays it out: config.json, model.safetensors or shards with their index, and the rest. */

import { type Checkpoint, LowbitError } from '@lowbit/core'
import {
  openSafetensors,
  openSharded,
  type Safetensors,
  type SafetensorsFile,
} from '@lowbit/safetensors'
import { openCheckpoint } from '../checkpoint/open.ts'
import type { Folder } from './folder.ts'

export const SINGLE = 'model.safetensors'
export const INDEX = 'model.safetensors.index.json'

/** Files that travel with the weights from one checkpoint to the next. */
const TRAVELS =
  /^(tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|generation_config\.json|chat_template\.(jinja|json)|LICENSE.*|NOTICE.*)$/i

export async function openFolder(folder: Folder): Promise<Checkpoint> {
  const names = await folder.list()
  if (names.length === 0) {
    throw new LowbitError('not-found', `there is no model in ${folder.location}`, {
      file: folder.location,
    })
  }
  if (!names.includes('config.json')) {
    throw new LowbitError(
      'missing-file',
      'the folder has no config.json and is no transformers model',
      {
        file: `${folder.location}/config.json`,
      },
    )
  }
  const config = await readJson(folder, 'config.json')
  return orClose(await openTensors(folder, names), (tensors) =>
    openCheckpoint({
      location: folder.location,
      tensors,
      config,
      files: names.filter((name) => TRAVELS.test(name)),
      readFile: (name) => folder.read(name),
    }),
  )
}

/** What becomes of something opened; it is closed where that fails. */
export async function orClose<T extends { close?(): unknown }, R>(
  opened: T,
  use: (opened: T) => R | Promise<R>,
): Promise<R> {
  try {
    return await use(opened)
  } catch (error) {
    await opened.close?.()
    throw error
  }
}

/** A safetensors file of the folder: its header; `name` is what errors call it. */
export async function openFile(
  folder: Folder,
  file: string,
  name?: string,
): Promise<SafetensorsFile> {
  return orClose(await folder.source(file), (source) => openSafetensors(source, { name }))
}

async function openTensors(folder: Folder, names: readonly string[]): Promise<Safetensors> {
  if (names.includes(SINGLE)) {
    return openFile(folder, SINGLE, `${folder.location}/${SINGLE}`)
  }
  if (names.includes(INDEX)) {
    const index = new TextDecoder().decode(await folder.read(INDEX))
    return openSharded(index, (name) => folder.source(name), {
      name: `${folder.location}/${INDEX}`,
    })
  }
  throw new LowbitError('missing-file', `the folder has neither ${SINGLE} nor ${INDEX}`, {
    file: folder.location,
  })
}

export async function readJson(folder: Folder, name: string): Promise<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder().decode(await folder.read(name)))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new LowbitError('bad-file', `is not JSON: ${cause.message}`, {
      file: `${folder.location}/${name}`,
      cause,
    })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new LowbitError('bad-file', 'is not a JSON object', {
      file: `${folder.location}/${name}`,
    })
  }
  return value as Record<string, unknown>
}

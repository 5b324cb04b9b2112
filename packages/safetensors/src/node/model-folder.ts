import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, quote, SafetensorsError } from '../error.ts'
import { MAX_HEADER_BYTES } from '../header.ts'
import type { Safetensors } from '../open.ts'
import { openSharded } from '../sharded.ts'
import { fileSource, openSafetensorsFile } from './file-source.ts'

const MODEL = 'model.safetensors'
const INDEX = 'model.safetensors.index.json'

/**
 * Opens the model in a folder: `model.safetensors` or, if there is none, the files that
 * `model.safetensors.index.json` names. Reads headers only. Close it when done.
 *
 * @throws SafetensorsError `file-not-found` when the folder has neither, or as
 * `openSafetensorsFile` and `openSharded` do.
 */
export async function openModelFolder(folder: string): Promise<Safetensors> {
  try {
    return await openSafetensorsFile(join(folder, MODEL))
  } catch (error) {
    if (!(error instanceof SafetensorsError) || error.code !== 'file-not-found') throw error
  }
  const path = join(folder, INDEX)
  const index = await readIndex(path, folder)
  return openSharded(index, (name) => fileSource(join(folder, name)), { name: path })
}

async function readIndex(path: string, folder: string): Promise<string> {
  try {
    const { size } = await stat(path)
    if (size > MAX_HEADER_BYTES) {
      const detail = `the index has ${size} bytes, more than the ${MAX_HEADER_BYTES} allowed.`
      throw new SafetensorsError('bad-index', detail, { file: path })
    }
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (cause instanceof SafetensorsError) throw cause
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') {
      throw await nothingIn(folder, cause)
    }
    const detail = `the index could not be read: ${messageOf(cause)}`
    throw new SafetensorsError('source-failed', detail, { file: path, cause })
  }
}

async function nothingIn(folder: string, cause: unknown): Promise<SafetensorsError> {
  const names = await readdir(folder).catch(() => undefined)
  const others = names?.filter((name) => name.endsWith('.safetensors')).slice(0, 3) ?? []
  const seen = others.length > 0 ? ` It has ${others.map(quote).join(', ')}.` : ''
  const detail =
    names === undefined
      ? 'there is no such folder.'
      : `the folder has neither ${MODEL} nor ${INDEX}.${seen}`
  return new SafetensorsError('file-not-found', detail, { file: folder, cause })
}

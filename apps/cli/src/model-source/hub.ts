/** Models of the Hugging Face hub, through its own client, kept in its own cache. */

import { readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import {
  downloadFileToCacheDir,
  getHFHubCachePath,
  getRepoFolderName,
  listFiles,
} from '@huggingface/hub'
import { LowbitError } from '@lowbit/core'
import { bytes } from '@lowbit/inspection'
import type { Session } from '../session.ts'

/** Weights as safetensors and what travels with them; no other frameworks' copies. */
const NEEDED =
  /^(config\.json|generation_config\.json|model.*\.safetensors|model\.safetensors\.index\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|chat_template\.(jinja|json)|LICENSE.*|NOTICE.*)$/i

/** Downloads what is needed of a model; gives the folder that holds it. */
export async function downloadModel(id: string, session: Session): Promise<string> {
  const hub = {
    repo: { type: 'model', name: id } as const,
    ...(process.env.HF_TOKEN && { accessToken: process.env.HF_TOKEN }),
    ...(process.env.HF_ENDPOINT && { hubUrl: process.env.HF_ENDPOINT }),
  }
  const progress = session.progress('downloading')
  session.onStop('stopped; the same command goes on downloading')
  try {
    const wanted: { path: string; size: number }[] = []
    for await (const file of listFiles({ ...hub, fetch: watched(session) })) {
      if (file.type === 'file' && NEEDED.test(file.path)) wanted.push(file)
    }
    if (!wanted.some(({ path: name }) => name === 'config.json')) {
      throw new LowbitError('not-found', `${id} on the hub has no config.json`, { file: id })
    }
    const total = wanted.reduce((sum, { size }) => sum + size, 0)
    let before = 0
    let folder = ''
    for (const { path: name, size } of wanted) {
      const fetch = watched(session, (received) => {
        const done = Math.min(size, received)
        progress.update((before + done) / total, `${name}, ${bytes(before + done)}`)
      })
      const at = await quietly(() => downloadFileToCacheDir({ ...hub, path: name, fetch }))
      before += size
      progress.update(before / total, name)
      if (name === 'config.json') folder = path.dirname(at)
    }
    return folder
  } catch (cause) {
    session.signal.throwIfAborted()
    if (cause instanceof LowbitError) throw cause
    const cached = await cachedSnapshot(id)
    if (cached) {
      session.warn(`the hub can't be asked (${reason(cause)}); using the copy in ${cached}`)
      return cached
    }
    throw new LowbitError(
      'hub-failed',
      `there is no folder ${id}, and the hub did not give a model of that name: ${reason(cause)}; a folder with config.json and safetensors files works without a network`,
      { file: id, cause },
    )
  } finally {
    progress.end()
  }
}

/** The newest snapshot of an earlier download whose weights are there. */
async function cachedSnapshot(id: string): Promise<string | undefined> {
  const folder = getRepoFolderName({ type: 'model', name: id })
  const snapshots = path.join(getHFHubCachePath(), folder, 'snapshots')
  const found: { at: string; changed: number }[] = []
  for (const name of await namesIn(snapshots)) {
    const at = path.join(snapshots, name)
    const files = await namesIn(at)
    const whole = files.some((file) => /^model\.safetensors(\.index\.json)?$/.test(file))
    if (!whole || !files.includes('config.json')) continue
    found.push({ at, changed: (await stat(at)).mtimeMs })
  }
  return found.sort((a, b) => b.changed - a.changed)[0]?.at
}

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch((): string[] => [])

function reason(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  const inner = cause.cause instanceof Error ? ` (${cause.cause.message})` : ''
  const status = 'statusCode' in cause ? `HTTP ${String(cause.statusCode)}, ` : ''
  return `${status}${cause.message}${inner}`.replace(/\s*\n\s*/g, ' ')
}

/** A fetch that stops with the session and says how many bytes of bodies have come. */
function watched(session: Session, onBytes?: (received: number) => void): typeof fetch {
  let received = 0
  return async (input, init) => {
    const response = await fetch(input, { ...init, signal: session.signal })
    if (!onBytes || !response.body || response.headers.get('content-type')?.includes('json')) {
      return response
    }
    const counting = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        received += chunk.byteLength
        onBytes(received)
        controller.enqueue(chunk)
      },
    })
    const { status, statusText, headers } = response
    const body = response.body.pipeThrough(counting)
    const copy = new Response(body, { status, statusText, headers })
    Object.defineProperty(copy, 'url', { value: response.url })
    return copy
  }
}

/** The client writes a line for each file with console.debug, which is standard output. */
async function quietly<T>(work: () => Promise<T>): Promise<T> {
  const { debug } = console
  console.debug = () => {}
  try {
    return await work()
  } finally {
    console.debug = debug
  }
}

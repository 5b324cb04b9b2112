/**
 * Where a new checkpoint is made. The work is done in DIR.partial; DIR appears when it is whole.
 */

import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import { nodeFolder, publishFolder } from '@lowbit/formats/node'
import { takeLock } from './lock.ts'

export interface OutputFolder {
  /** The work folder. */
  readonly folder: Folder
  /** The final name. */
  readonly location: string
  /** Removes all of the work. */
  clear(): Promise<void>
  /** Gives the work its final name. */
  publish(): Promise<void>
  release(): Promise<void>
}

export interface OutputRequest {
  readonly out: string
  readonly overwrite: boolean
  /** A folder that must not be written over: the source. */
  readonly source?: string
}

/** Refuses at once what would fail in the end. */
export async function prepareOutput(request: OutputRequest): Promise<OutputFolder> {
  const { overwrite, source } = request
  const location = path.resolve(request.out)
  const partial = `${location}.partial`
  if (source !== undefined && path.resolve(source) === location) {
    throw new LowbitError('exists', `--out ${request.out} is the model itself`, {
      file: request.out,
      option: 'out',
    })
  }
  await refuseExisting(location, request.out, overwrite)
  let release = async (): Promise<void> => {}
  try {
    await mkdir(partial, { recursive: true })
    release = await takeLock(`${partial}.lock`)
    await removeLeftovers(partial)
  } catch (cause) {
    await release()
    if (cause instanceof LowbitError) throw cause
    throw new LowbitError(
      'file-error',
      `--out ${request.out} can't be written: ${(cause as Error).message}`,
      { file: request.out, option: 'out', cause },
    )
  }
  return {
    folder: nodeFolder(partial),
    location,
    async clear() {
      await rm(partial, { recursive: true, force: true })
      await mkdir(partial, { recursive: true })
    },
    async publish() {
      await publishFolder(partial, location, overwrite)
    },
    async release() {
      await removeIfEmpty(partial)
      await release()
    },
  }
}

async function refuseExisting(location: string, out: string, overwrite: boolean): Promise<void> {
  const found = await stat(location).catch(() => undefined)
  if (!found) return
  if (!found.isDirectory()) {
    throw new LowbitError('exists', `--out ${out} is a file; it must be a folder`, {
      file: out,
      option: 'out',
    })
  }
  if (overwrite || (await readdir(location)).length === 0) return
  throw new LowbitError(
    'exists',
    `${out} already exists and is not empty; choose another --out, or pass --overwrite`,
    { file: out, option: 'out' },
  )
}

const JOURNAL = 'journal.json'
const REPORT = 'quantization-report.json'

/** Files that a job writes and that the next run writes anew: half-written ones, shards of another size. */
const LEFTOVER = /^(.*\.writing|model.*\.safetensors|model\.safetensors\.index\.json|config\.json)$/
const PART = /\.part\.safetensors$/

/** What a killed process may have left and no journal speaks of. With its report a checkpoint is whole. */
async function removeLeftovers(partial: string): Promise<void> {
  const names = await readdir(partial)
  if (names.includes(REPORT)) return
  const resumes = names.includes(JOURNAL)
  for (const name of names) {
    const goes = PART.test(name) ? !resumes : LEFTOVER.test(name)
    if (goes) await rm(path.join(partial, name), { recursive: true, force: true })
  }
}

async function removeIfEmpty(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => ['missing'])
  if (names.length === 0) await rm(folder, { recursive: true, force: true })
}

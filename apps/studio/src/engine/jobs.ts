/**
 * Jobs and their results in the browser's private storage. Each has a folder:
 *
 *     lowbit/ID/job.json         what was asked for
 *     lowbit/ID/calibration.txt  where a text was given
 *     lowbit/ID/model/           the parts and the journal, in the end the checkpoint
 *
 * A handle of a folder on disk can be kept in IndexedDB only.
 */

import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import { REPORT } from '@lowbit/inspection'
import { openDB } from 'idb'
import { entries, type OpfsFolder, opfsFolder } from './folders/opfs.ts'
import { nameOf } from './models.ts'
import type { DeviceName, Job, JobRequest, ModelSource } from './protocol.ts'

const ROOT = 'lowbit'
const ABOUT = 'job.json'
const TEXT = 'calibration.txt'

interface StoredJob {
  readonly name: string
  readonly model: string
  readonly recipe: string
  readonly device: DeviceName
  readonly created: number
  /** Where the model is, if it can be found again by that alone. */
  readonly source?: ModelSource
  readonly hasText: boolean
}

const root = async (): Promise<FileSystemDirectoryHandle> => {
  if (!navigator.storage?.getDirectory) {
    throw new LowbitError(
      'no-storage',
      'this browser gives pages no private file storage, which results are kept in; private windows often have none',
    )
  }
  const home = await navigator.storage.getDirectory()
  return home.getDirectoryHandle(ROOT, { create: true })
}

async function jobFolder(id: string, create = false): Promise<FileSystemDirectoryHandle> {
  try {
    return await (await root()).getDirectoryHandle(id, { create })
  } catch (cause) {
    throw new LowbitError('not-found', `there is no result named ${id}`, { cause })
  }
}

/** Where a job works, and its finished checkpoint in the end. */
export async function resultFolder(id: string): Promise<OpfsFolder> {
  const folder = await jobFolder(id)
  return opfsFolder(await folder.getDirectoryHandle('model', { create: true }), id)
}

export async function storeJob(request: JobRequest): Promise<void> {
  const { id, source, recipe, device, text } = request
  const folder = opfsFolder(await jobFolder(id, true), id)
  const plain = source.kind === 'files' || source.kind === 'directory' ? undefined : source
  const job: StoredJob = {
    ...{ name: id, model: nameOf(source), recipe, device, created: Date.now() },
    ...(plain && { source: plain }),
    hasText: text !== undefined,
  }
  if (text !== undefined) await folder.write(TEXT, [new TextEncoder().encode(text)])
  await folder.write(ABOUT, [new TextEncoder().encode(JSON.stringify(job, null, 2))])
  if (source.kind === 'directory') await keepHandle(id, source.handle)
}

/** What an unfinished job was asked for; its source where it can be opened without asking. */
export async function readRequest(
  id: string,
): Promise<Omit<JobRequest, 'source'> & { source?: ModelSource }> {
  const folder = opfsFolder(await jobFolder(id), id)
  const job = await readAbout(folder)
  const handle = await keptHandle(id)
  return {
    ...{ id, recipe: job.recipe, device: job.device },
    ...(job.hasText && { text: new TextDecoder().decode(await folder.read(TEXT)) }),
    ...(job.source && { source: job.source }),
    ...(handle && { source: { kind: 'directory', name: job.model, handle } }),
  }
}

const readAbout = async (folder: Folder): Promise<StoredJob> =>
  JSON.parse(new TextDecoder().decode(await folder.read(ABOUT)))

/** The newest first. Folders that hold no job are remains and are left out. */
export async function listJobs(): Promise<Job[]> {
  const jobs: Job[] = []
  for await (const [id, entry] of entries(await root())) {
    if (entry.kind !== 'directory') continue
    try {
      const job = await readAbout(opfsFolder(entry as FileSystemDirectoryHandle, id))
      const done = (await (await resultFolder(id)).list()).includes(REPORT)
      const { name, model, recipe, device, created } = job
      jobs.push({
        ...{ id, name, model, recipe, device, created },
        state: done ? 'done' : 'unfinished',
        reopens: job.source !== undefined || (await keptHandle(id)) !== undefined,
      })
    } catch {
      // Half written or not ours.
    }
  }
  return jobs.sort((a, b) => b.created - a.created)
}

export async function removeJob(id: string): Promise<void> {
  await (await root()).removeEntry(id, { recursive: true })
  await (await handles()).delete('handles', id)
}

const handles = () =>
  openDB('lowbit', 1, {
    upgrade(db) {
      db.createObjectStore('handles')
    },
  })

const keepHandle = async (id: string, handle: FileSystemDirectoryHandle): Promise<void> => {
  await (await handles()).put('handles', handle, id)
}

const keptHandle = async (id: string): Promise<FileSystemDirectoryHandle | undefined> =>
  (await handles()).get('handles', id)

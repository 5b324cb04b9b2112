/** A finished result → files to be saved: as it is, in another layout, or as one archive. */

import { LowbitError } from '@lowbit/core'
import { convertModel } from '@lowbit/pipeline'
import { downloadZip, predictLength } from 'client-zip'
import { FORMATS } from '../plugins.ts'
import { type OpfsFolder, opfsFolder } from './folders/opfs.ts'
import { resultFolder } from './jobs.ts'
import { openModel } from './models.ts'

const SCRATCH = 'lowbit-scratch'

async function clearScratch(): Promise<void> {
  const home = await navigator.storage.getDirectory()
  await home.removeEntry(SCRATCH, { recursive: true }).catch(() => {})
}

/** A folder that a conversion or an archive may fill; what an earlier one left in it is gone. */
async function scratch(): Promise<FileSystemDirectoryHandle> {
  await clearScratch()
  return (await navigator.storage.getDirectory()).getDirectoryHandle(SCRATCH, { create: true })
}

async function inFormat(
  id: string,
  format: string,
  into: FileSystemDirectoryHandle,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<OpfsFolder> {
  const model = await openModel({ kind: 'job', id })
  if (model.checkpoint.format === format) {
    await model.checkpoint.close()
    return resultFolder(id)
  }
  const found = FORMATS.find(({ name }) => name === format)
  if (!found) throw new LowbitError('unknown-format', `there is no format ${format}`)
  const folder = opfsFolder(into, id)
  await convertModel({
    ...{ checkpoint: model.checkpoint, format: found, folder, denseType: 'f16', signal },
    onProgress: (done, total, module) => onProgress(module, done / total),
  })
  await model.checkpoint.close()
  return folder
}

/** One archive, made in the browser's storage, so that its size does not matter to memory. */
export async function archive(
  id: string,
  format: string,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<File> {
  const room = await scratch()
  const converted = await room.getDirectoryHandle('converted', { create: true })
  const folder = await inFormat(id, format, converted, onProgress, signal)
  const files = await filesOf(folder)
  const total = Number(predictLength(files.map(({ name, blob }) => ({ name, size: blob.size }))))
  const out = opfsFolder(room, 'archive')
  const name = `${id}.zip`
  const body = downloadZip(files.map(({ name, blob }) => ({ name, input: blob }))).body!
  let written = 0
  await out.write(
    name,
    (async function* () {
      for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
        written += chunk.length
        onProgress('packing', written / total)
        yield chunk
      }
    })(),
    signal,
  )
  return (await room.getFileHandle(name)).getFile()
}

/** Writes the result into a folder on disk that the person has picked. */
export async function saveInto(
  id: string,
  format: string,
  target: FileSystemDirectoryHandle,
  onProgress: (what: string, done: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const room = await scratch()
  try {
    const folder = await inFormat(id, format, room, onProgress, signal)
    const files = await filesOf(folder)
    const total = files.reduce((sum, { blob }) => sum + blob.size, 0)
    let written = 0
    for (const { name, blob } of files) {
      const handle = await target.getFileHandle(name, { create: true })
      // A name that stands on the disk only when the file is whole.
      const stream = await handle.createWritable()
      try {
        for await (const chunk of blob.stream() as unknown as AsyncIterable<Uint8Array>) {
          signal.throwIfAborted()
          await stream.write(chunk as Uint8Array<ArrayBuffer>)
          written += chunk.length
          onProgress(name, written / total)
        }
        await stream.close()
      } catch (cause) {
        await stream.abort().catch(() => {})
        throw cause
      }
    }
  } finally {
    // A whole model may lie there, and all of it is in its place now.
    await clearScratch()
  }
}

async function filesOf(folder: OpfsFolder): Promise<{ name: string; blob: Blob }[]> {
  const names = (await folder.list()).filter((name) => !name.endsWith('.writing'))
  return Promise.all(names.map(async (name) => ({ name, blob: await folder.file(name) })))
}

import { randomUUID } from 'node:crypto'
import { type FileHandle, link, lstat, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { isAbort, messageOf, SafetensorsError, withPlace } from '../error.ts'
import { planSafetensors, type TensorEntry } from '../plan.ts'
import { streamPlan, type WriteOptions } from '../write.ts'

// One write call of the system takes at most 2^31 - 1 bytes.
const MAX_WRITE_BYTES = 2 ** 30

/** Settings of {@link writeSafetensorsFile}. */
export interface WriteFileOptions extends WriteOptions {
  /** Replace a file that is already there; otherwise it is refused. */
  readonly overwrite?: boolean
}

/**
 * Writes a safetensors file to disk. The bytes go to a temporary file beside it, are flushed to the
 * disk, and take the name `path` only when all of them are there: whoever opens `path` sees the old
 * file or the whole new one, never a part. On an error or abort the temporary file is removed and
 * `path` is as it was. A file can be replaced while it is being read, by this very call too.
 *
 * Each part is on its way to the disk before the next is asked for, so slow disks slow the caller.
 *
 * @returns the size of the file in bytes
 * @throws SafetensorsError `file-exists`, `write-failed`, or as `writeSafetensors` does. An abort
 * rejects with the signal's reason.
 */
export async function writeSafetensorsFile(
  path: string,
  entries: Iterable<TensorEntry>,
  options: WriteFileOptions = {},
): Promise<number> {
  const { metadata, signal, overwrite = false } = options
  signal?.throwIfAborted()
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    const plan = planSafetensors(entries, metadata)
    if (!overwrite && (await exists(path))) throw alreadyThere(path)
    const handle = await open(temporary, 'wx')
    try {
      for await (const part of streamPlan(plan, signal)) await writeAll(handle, part)
      await handle.sync()
    } finally {
      await handle.close()
    }
    signal?.throwIfAborted()
    await (overwrite ? rename(temporary, path) : renameNew(temporary, path))
    await syncFolder(dirname(path))
    return plan.byteLength
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw explain(error, path, signal)
  }
}

function explain(error: unknown, path: string, signal: AbortSignal | undefined): unknown {
  if (error instanceof SafetensorsError) return withPlace(error, { file: path })
  if (isAbort(error) || (signal?.aborted && error === signal.reason)) return error
  const detail = `the file could not be written: ${messageOf(error)}`
  return new SafetensorsError('write-failed', detail, { file: path, cause: error })
}

function alreadyThere(path: string): SafetensorsError {
  const detail = 'the file is already there; pass `overwrite: true` to replace it.'
  return new SafetensorsError('file-exists', detail, { file: path })
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0
  // A write may take less than it is given.
  while (done < bytes.byteLength) {
    const most = Math.min(bytes.byteLength - done, MAX_WRITE_BYTES)
    const { bytesWritten } = await handle.write(bytes, done, most)
    done += bytesWritten
  }
}

// `rename` replaces in silence, so a file that came into being meanwhile would be lost; `link`
// refuses. File systems without hard links get the check and the rename.
async function renameNew(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch (error) {
    if (hasCode(error, 'EEXIST') || (await exists(to))) throw alreadyThere(to)
    await rename(from, to)
    return
  }
  await rm(from)
}

// Makes the new name itself last through a power cut. Not every system can sync a folder.
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r')
    await handle.sync().finally(() => handle.close())
  } catch {
    // The file is whole and named; only the certainty about a power cut is missing.
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}

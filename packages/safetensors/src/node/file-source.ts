import { type FileHandle, open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { messageOf, SafetensorsError } from '../error.ts'
import { type OpenOptions, openSafetensors, type SafetensorsFile } from '../open.ts'
import type { Source } from '../source.ts'

// One read call of the system gives at most 2^31 - 1 bytes.
const MAX_READ_BYTES = 2 ** 30

/**
 * A source over a file on disk. A path (or `file:` URL) is opened here and closed by `close`; a
 * file handle stays the caller's to close.
 *
 * @throws SafetensorsError `file-not-found`, or `source-failed` when it cannot be opened or is not
 * a regular file.
 */
export async function fileSource(file: string | URL | FileHandle): Promise<Source> {
  if (typeof file !== 'string' && !(file instanceof URL)) return handleSource(file, undefined)
  const path = typeof file === 'string' ? file : fileURLToPath(file)
  const handle = await openForReading(path)
  try {
    return { ...(await handleSource(handle, path)), close: () => handle.close() }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/**
 * Opens a safetensors file on disk: reads and checks its header, and none of the tensors. Close it
 * when done, unless it was opened from a handle.
 *
 * @throws SafetensorsError as {@link fileSource} and `openSafetensors` do.
 */
export async function openSafetensorsFile(
  file: string | URL | FileHandle,
  options: OpenOptions = {},
): Promise<SafetensorsFile> {
  const source = await fileSource(file)
  try {
    return await openSafetensors(source, options)
  } catch (error) {
    await source.close?.()
    throw error
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
    throw missing
      ? new SafetensorsError('file-not-found', 'there is no such file.', { file: path, cause })
      : new SafetensorsError('source-failed', `it could not be opened: ${messageOf(cause)}`, {
          file: path,
          cause,
        })
  }
}

async function handleSource(handle: FileHandle, path: string | undefined): Promise<Source> {
  const stats = await handle.stat()
  if (!stats.isFile()) {
    const detail = stats.isDirectory()
      ? 'this is a folder; open a model folder with `openModelFolder`.'
      : 'this is not a regular file, so it cannot be read at any place.'
    throw new SafetensorsError('source-failed', detail, { file: path })
  }
  const source: Source = {
    size: stats.size,
    read: (offset, length) => read(handle, offset, length),
  }
  return path === undefined ? source : { ...source, name: path }
}

async function read(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  let filled = 0
  while (filled < length) {
    const most = Math.min(length - filled, MAX_READ_BYTES)
    const { bytesRead } = await handle.read(bytes, filled, most, offset + filled)
    // The file became shorter after it was opened; the caller sees too few bytes.
    if (bytesRead === 0) return bytes.subarray(0, filled)
    filled += bytesRead
  }
  return bytes
}

/** A directory of the origin private file system as a Folder. In workers, where files can be written in place. */

import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import { blobSource } from '@lowbit/safetensors'

/** What files of the private file system can in workers, and TypeScript's DOM lacks. */
interface WorkerFile extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<SyncAccess>
  move?(name: string): Promise<void>
}

interface SyncAccess {
  truncate(size: number): void
  write(bytes: Uint8Array): number
  flush(): void
  close(): void
}

export interface OpfsFolder extends Folder {
  /** A file to be passed on without being read. */
  file(name: string): Promise<File>
}

export function opfsFolder(directory: FileSystemDirectoryHandle, location: string): OpfsFolder {
  const file = async (name: string): Promise<File> => {
    try {
      return await (await directory.getFileHandle(name)).getFile()
    } catch (cause) {
      throw explain(cause, `${location}/${name}`)
    }
  }
  return {
    location,
    file,
    async list() {
      const names: string[] = []
      for await (const [name, entry] of entries(directory)) {
        if (entry.kind === 'file') names.push(name)
      }
      return names.sort()
    },
    source: async (name) => blobSource(await file(name)),
    read: async (name) => new Uint8Array(await (await file(name)).arrayBuffer()),
    async write(name, parts, signal) {
      const temporary = `${name}.writing`
      try {
        const handle = (await directory.getFileHandle(temporary, { create: true })) as WorkerFile
        const access = await handle.createSyncAccessHandle()
        try {
          access.truncate(0)
          for await (const part of parts) {
            signal?.throwIfAborted()
            writeAll(access, part)
          }
          access.flush()
        } finally {
          access.close()
        }
        if (!handle.move) {
          throw new LowbitError(
            'no-storage',
            'this browser cannot rename files in its private storage; a newer one can',
          )
        }
        await handle.move(name)
      } catch (cause) {
        await directory.removeEntry(temporary).catch(() => {})
        throw signal?.aborted ? signal.reason : explain(cause, `${location}/${name}`)
      }
    },
    async remove(name) {
      await directory.removeEntry(name).catch((cause) => {
        if (!isNamed(cause, 'NotFoundError')) throw explain(cause, `${location}/${name}`)
      })
    },
  }
}

/** A write may take less than it is given when the quota is used up. */
function writeAll(access: SyncAccess, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) {
    const written = access.write(bytes.subarray(at))
    if (written <= 0) throw new DOMException('nothing could be written', 'QuotaExceededError')
    at += written
  }
}

export function entries(
  directory: FileSystemDirectoryHandle,
): AsyncIterable<[string, FileSystemHandle]> {
  return (
    directory as unknown as { entries(): AsyncIterable<[string, FileSystemHandle]> }
  ).entries()
}

const isNamed = (cause: unknown, name: string): boolean =>
  cause instanceof DOMException && cause.name === name

function explain(cause: unknown, file: string): unknown {
  if (isNamed(cause, 'QuotaExceededError')) {
    return new LowbitError(
      'disk-full',
      'the storage that the browser gives this page is used up: delete finished results under Run, or free space on the disk; what is done so far is kept',
      { file, cause },
    )
  }
  if (isNamed(cause, 'NotFoundError')) {
    return new LowbitError('not-found', 'does not exist', { file, cause })
  }
  if (isNamed(cause, 'NoModificationAllowedError')) {
    return new LowbitError('in-use', 'is being written by another tab of the studio', {
      file,
      cause,
    })
  }
  return cause
}

/** What a person has dropped or picked as a Folder: to be read, never written. */

import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import { blobSource } from '@lowbit/safetensors'
import { entries } from './opfs.ts'

export function filesFolder(name: string, files: readonly File[]): Folder {
  const byName = new Map(files.map((file) => [file.name, file]))
  const find = (file: string): File => {
    const found = byName.get(file)
    if (found) return found
    throw new LowbitError(
      'missing-file',
      `${file} is not among what was opened; drop the model's whole folder`,
      { file: `${name}/${file}` },
    )
  }
  return {
    location: name,
    list: async () => [...byName.keys()],
    source: async (file) => blobSource(find(file)),
    read: async (file) => new Uint8Array(await find(file).arrayBuffer()),
    write: refuse,
    remove: refuse,
  }
}

/** Files are opened when they are read, so that nothing is held of a directory of many. */
export function directoryFolder(name: string, directory: FileSystemDirectoryHandle): Folder {
  const open = async (file: string): Promise<File> => {
    try {
      return await (await directory.getFileHandle(file)).getFile()
    } catch (cause) {
      throw new LowbitError('missing-file', `can't be read: ${(cause as Error).message}`, {
        file: `${name}/${file}`,
        cause,
      })
    }
  }
  return {
    location: name,
    async list() {
      const names: string[] = []
      for await (const [file, entry] of entries(directory)) {
        if (entry.kind === 'file') names.push(file)
      }
      return names
    },
    source: async (file) => blobSource(await open(file)),
    read: async (file) => new Uint8Array(await (await open(file)).arrayBuffer()),
    write: refuse,
    remove: refuse,
  }
}

export function refuse(): never {
  throw new LowbitError('read-only', 'a model that was opened is never written to')
}

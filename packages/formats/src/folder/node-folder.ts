/** A directory of the file system as a Folder. */

import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { LowbitError } from '@lowbit/core'
import { fileSource } from '@lowbit/safetensors/node'
import type { Folder } from './folder.ts'

export function nodeFolder(location: string): Folder {
  const at = (name: string): string => {
    if (name !== path.basename(name) || name === '..' || name === '.') {
      throw new LowbitError('bad-file', `${JSON.stringify(name)} is not a plain file name`)
    }
    return path.join(location, name)
  }
  return {
    location,
    async list() {
      try {
        const entries = await readdir(location, { withFileTypes: true })
        // Hub caches keep files as links.
        return entries.filter((e) => e.isFile() || e.isSymbolicLink()).map((e) => e.name)
      } catch (cause) {
        if (code(cause) === 'ENOENT' || code(cause) === 'ENOTDIR') return []
        throw explain(cause, location)
      }
    },
    async source(name) {
      return fileSource(at(name))
    },
    async read(name) {
      try {
        return new Uint8Array(await readFile(at(name)))
      } catch (cause) {
        throw explain(cause, at(name))
      }
    },
    async write(name, parts, signal) {
      const final = at(name)
      const temporary = `${final}.writing`
      try {
        await mkdir(location, { recursive: true })
        const file = await open(temporary, 'w')
        try {
          for await (const part of parts) {
            signal?.throwIfAborted()
            await file.writeFile(part)
          }
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(temporary, final)
      } catch (cause) {
        await rm(temporary, { force: true })
        throw signal?.aborted ? signal.reason : explain(cause, final)
      }
    },
    async remove(name) {
      await rm(at(name), { force: true })
    },
  }
}

/** Gives a finished folder its final name; what stood there under that name is replaced only if allowed. */
export async function publishFolder(from: string, to: string, overwrite: boolean): Promise<void> {
  if (overwrite) {
    const old = `${to}.replaced`
    await rm(old, { recursive: true, force: true })
    await rename(to, old).catch((cause) => {
      if (code(cause) !== 'ENOENT') throw explain(cause, to)
    })
    await rename(from, to)
    await rm(old, { recursive: true, force: true })
    return
  }
  try {
    // Fails where a folder with files stands in the way; an empty one is replaced.
    await rename(from, to)
  } catch (cause) {
    throw explain(cause, to)
  }
}

const code = (cause: unknown): string | undefined =>
  cause instanceof Error && 'code' in cause ? String(cause.code) : undefined

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC:
    'the disk is full; free some space and run the same command again, it goes on where it stopped',
  EDQUOT: 'the disk quota is used up; free some space and run the same command again',
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  ENOENT: 'does not exist',
  ENOTEMPTY: 'already exists; choose another --out, or pass --overwrite',
  EEXIST: 'already exists; choose another --out, or pass --overwrite',
  ENOTDIR: 'a part of the path is not a folder',
  EISDIR: 'is a folder',
}

function explain(cause: unknown, file: string): unknown {
  const known = code(cause)
  if (!known || cause instanceof LowbitError) return cause
  return new LowbitError(
    known === 'ENOSPC' || known === 'EDQUOT' ? 'disk-full' : 'file-error',
    `${file}: ${REASONS[known] ?? (cause as Error).message}`,
    { file, cause },
  )
}

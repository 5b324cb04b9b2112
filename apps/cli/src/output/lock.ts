/** Only one process works on an output at a time. */

import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import path from 'node:path'
import { LowbitError } from '@lowbit/core'

interface Owner {
  readonly pid: number
  readonly host: string
  /** When the process began, where the system says: process ids are given out again. */
  readonly started?: string
}

/** Takes the lock or throws `busy`; a lock whose process is gone is taken over. Gives what lets it go. */
export async function takeLock(file: string): Promise<() => Promise<void>> {
  await mkdir(path.dirname(path.resolve(file)), { recursive: true })
  const own: Owner = {
    pid: process.pid,
    host: hostname(),
    started: await startOf(process.pid),
  }
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const handle = await open(file, 'wx')
      await handle.writeFile(JSON.stringify(own))
      await handle.close()
      return () => rm(file, { force: true })
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
    const seen = await readFile(file, 'utf8').catch(() => undefined)
    if (seen === undefined) continue
    const owner = parseOwner(seen)
    if (owner && (await isAlive(owner))) {
      const where = owner.host === own.host ? '' : ` on ${owner.host}`
      throw new LowbitError(
        'busy',
        `process ${owner.pid}${where} is working on this output; if that is not so, delete ${file}`,
        { file },
      )
    }
    // Renaming is what decides who may take a dead process's lock.
    const mine = `${file}.${process.pid}`
    await rename(file, mine).catch(() => undefined)
    await rm(mine, { force: true })
  }
  throw new LowbitError('busy', 'another process is taking the same output', { file })
}

function parseOwner(text: string): Owner | undefined {
  try {
    const owner = JSON.parse(text) as Partial<Owner>
    return typeof owner.pid === 'number' && typeof owner.host === 'string'
      ? (owner as Owner)
      : undefined
  } catch {
    return undefined
  }
}

async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.host !== hostname()) return true
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
  }
  const started = await startOf(owner.pid)
  return started === undefined || owner.started === undefined || started === owner.started
}

/** Field 22 of /proc/<pid>/stat; undefined on systems without it. */
async function startOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return text?.slice(text.lastIndexOf(')') + 2).split(' ')[19]
}

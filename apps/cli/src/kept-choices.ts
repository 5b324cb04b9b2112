/** What has been measured on a device, in a file of the user's cache, with the interface of `localStorage`. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export interface KeptChoices {
  getItem(key: string): string | null
  setItem(key: string, value: string): void
}

export function defaultFile(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env
  const home = XDG_CACHE_HOME || LOCALAPPDATA || path.join(os.homedir(), '.cache')
  return path.join(home, 'lowbit', 'devices.json')
}

/** A file that can't be read is an empty one, and one that can't be written is left: it would be measured again. */
export function keptChoices(file = defaultFile()): KeptChoices {
  const read = (): Record<string, unknown> => {
    try {
      const found: unknown = JSON.parse(readFileSync(file, 'utf8'))
      return typeof found === 'object' && found ? (found as Record<string, unknown>) : {}
    } catch {
      return {}
    }
  }
  return {
    getItem(key) {
      const value = read()[key]
      return typeof value === 'string' ? value : null
    },
    setItem(key, value) {
      try {
        mkdirSync(path.dirname(file), { recursive: true })
        writeFileSync(file, `${JSON.stringify({ ...read(), [key]: value }, null, 2)}\n`)
      } catch {
        // A disk that is full or not ours.
      }
    },
  }
}

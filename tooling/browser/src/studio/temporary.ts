/** Folders that last as long as the process. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const made: string[] = []
process.on('exit', () => {
  for (const place of made) rmSync(place, { recursive: true, force: true })
})

export function temporaryFolder(name: string): string {
  const place = mkdtempSync(path.join(tmpdir(), `lowbit-${name}-`))
  made.push(place)
  return place
}

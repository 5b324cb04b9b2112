/** What is done already, so that a job that was stopped goes on. */

import { digest, LowbitError } from '@lowbit/core'
import { type Described, type Folder, jsonBytes } from '@lowbit/formats'
import * as z from 'zod'
import type { ModuleReport } from './report.ts'

const JOURNAL = 'journal.json'

export interface FinishedPart {
  readonly described: Described
  readonly modules: readonly ModuleReport[]
}

export interface Journal {
  /** Everything that decides the result: another job must not go on with these parts. */
  readonly fingerprint: string
  readonly parts: Record<string, FinishedPart>
  /** Blocks whose Fisher information is in the folder. */
  readonly fisher: number[]
}

export const blockPart = (layer: number): string => `block-${String(layer).padStart(5, '0')}`

const schema = z.object({
  fingerprint: z.string(),
  parts: z.record(
    z.string(),
    z.object({ described: z.record(z.string(), z.any()), modules: z.array(z.any()) }),
  ),
  fisher: z.array(z.int()).default([]),
})

export async function readJournal(folder: Folder): Promise<Journal | undefined> {
  if (!(await folder.list()).includes(JOURNAL)) return undefined
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(await folder.read(JOURNAL)))) as Journal
  } catch (cause) {
    throw new LowbitError('bad-journal', 'the journal is damaged; pass --overwrite to start anew', {
      file: `${folder.location}/${JOURNAL}`,
      cause,
    })
  }
}

export async function writeJournal(folder: Folder, journal: Journal): Promise<void> {
  await folder.write(JOURNAL, [jsonBytes(journal)])
}

export async function removeJournal(folder: Folder): Promise<void> {
  await folder.remove(JOURNAL)
}

/** SHA-256 of a value's JSON. */
export async function fingerprint(value: unknown): Promise<string> {
  return digest(new TextEncoder().encode(JSON.stringify(value)))
}

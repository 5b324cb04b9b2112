/** quantization-report.json, which `lowbit quantize` leaves beside the weights. */

import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import * as z from 'zod'

export const REPORT = 'quantization-report.json'

const reported = z.object({
  module: z.string(),
  method: z.string(),
  label: z.string(),
  bits: z.number(),
  error: z.number(),
  errorOf: z.enum(['output', 'weight']),
})

const modules = z.object({ modules: z.array(reported) })

const whole = z.object({
  modules: z.array(reported.extend({ rows: z.number(), columns: z.number() })),
  bitsPerWeight: z.number(),
  bytes: z.number(),
  calibrationTokens: z.number(),
  cache: z.looseObject({ scheme: z.string() }).optional(),
})

export type ReportedModule = z.output<typeof reported>

/** What quantizing wrote about a whole checkpoint. */
export type WholeReport = z.output<typeof whole>

/** What was done to each module, by its name; undefined where the folder has no report. */
export async function readReport(
  folder: Folder,
): Promise<ReadonlyMap<string, ReportedModule> | undefined> {
  const found = await read(folder, modules)
  return found && new Map(found.modules.map((module) => [module.module, module]))
}

/** All of it; undefined where the folder has no report. */
export const readWholeReport = (folder: Folder): Promise<WholeReport | undefined> =>
  read(folder, whole)

async function read<Schema extends z.ZodObject>(
  folder: Folder,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  if (!(await folder.list()).includes(REPORT)) return undefined
  const file = `${folder.location}/${REPORT}`
  const refuse = (why: string, cause?: unknown): never => {
    throw new LowbitError(
      'bad-report',
      `${REPORT} is damaged (${why}); remove it, or quantize again`,
      {
        ...{ file, cause },
      },
    )
  }
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder().decode(await folder.read(REPORT)))
  } catch (cause) {
    return refuse('it is no JSON', cause)
  }
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    return refuse(`${issue.path.join('.')}: ${issue.message}`)
  }
  return parsed.data
}

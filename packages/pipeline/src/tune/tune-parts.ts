/**
 * Tuning as a stage of a job: what has moved is written as a part of its own, whole or absent, and then put into the
 * parts of the blocks. Stopped anywhere, the same command goes on and ends with the same bytes.
 */

import {
  type Checkpoint,
  type Entry,
  isQuantized,
  LowbitError,
  type Numbers,
  type Vector,
} from '@lowbit/core'
import { hasPart, openPart, writePart } from '@lowbit/formats'
import { blockNames, type Opened } from '@lowbit/model'
import type { QuantizeJob } from '../job/job.ts'
import type { Journal } from '../job/journal.ts'
import { newConfig } from '../job/new-config.ts'
import type { ModelTuner } from './end-to-end.ts'
import { tableKey } from './tables.ts'
import type { Tuned } from './tune-model.ts'

/** The part that holds what has moved. */
export const TUNED = 'tuned'

export async function tuneParts(
  job: QuantizeJob & { readonly tuner: ModelTuner },
  opened: Opened,
  journal: Journal,
  windows: readonly (readonly number[])[],
  parts: readonly string[],
  onStep: (what: string, done: number) => void,
): Promise<void> {
  const { folder, format, checkpoint, signal } = job
  if (windows.length === 0) {
    throw new LowbitError(
      'bad-option',
      'tuning needs a calibration text, and a method that uses one',
      {
        option: 'tune',
      },
    )
  }
  if (opened.config.architecture.norm !== 'rms') {
    throw new LowbitError('bad-option', 'tuning knows models with RMS norms only', {
      option: 'tune',
    })
  }
  const open = (part: string): Promise<Checkpoint> =>
    openPart(folder, part, newConfig(checkpoint.config, format, journal.parts[part].described))
  if (!(await hasPart(folder, TUNED))) {
    const tuned = await job.tuner.tune({
      ...{ opened, windows, signal },
      readBlock: (layer) => open(parts[layer]),
      onStep: (done, loss) => onStep(`KL ${loss.toFixed(4)}, ${Math.round(100 * done)} %`, done),
    })
    await writePart(folder, TUNED, tunedEntries(tuned), format, signal)
  }
  const tuned = await openPart(folder, TUNED, checkpoint.config)
  for (const [index, part] of parts.entries()) {
    signal?.throwIfAborted()
    const source = await open(part)
    const entries: Entry[] = []
    for (const module of source.modules) {
      const matrix = await source.readMatrix(module)
      const scale = async (name: string, old?: Numbers): Promise<Numbers | undefined> =>
        old && tuned.hasVector(`${module}.${name}`)
          ? { ...old, values: (await tuned.readVector(`${module}.${name}`)).values }
          : old
      if (!isQuantized(matrix)) {
        entries.push({ module, matrix })
        continue
      }
      const rowScale = await scale('rowScale', matrix.rowScale)
      const columnScale = await scale('columnScale', matrix.columnScale)
      const stages = await Promise.all(
        matrix.stages.map(async (stage, i) => {
          const key = tableKey(module, stage, i)
          if (!key || !tuned.hasVector(key) || !('tables' in stage.grid)) return stage
          const { values } = await tuned.readVector(key)
          return { ...stage, grid: { ...stage.grid, tables: { ...stage.grid.tables, values } } }
        }),
      )
      const moved = {
        ...matrix,
        stages,
        ...(rowScale && { rowScale }),
        ...(columnScale && { columnScale }),
      }
      entries.push({ module, matrix: moved })
    }
    for (const vector of source.vectors) {
      const from = tuned.hasVector(vector) ? tuned : source
      entries.push({ vector, value: await from.readVector(vector) })
    }
    for (const tensor of source.rest) entries.push({ tensor, raw: await source.readRaw(tensor) })
    await source.close()
    const layer = index < opened.config.layers ? index : undefined
    if (layer !== undefined) assertComplete(opened, layer, entries)
    await writePart(folder, part, entries, format, signal)
  }
  await tuned.close()
}

function tunedEntries({ scales, tables, vectors }: Tuned): Entry[] {
  const entries: Entry[] = [...vectors].map(([vector, value]) => ({ vector, value }))
  for (const [module, moved] of scales) {
    for (const [name, numbers] of Object.entries(moved)) {
      if (!numbers) continue
      // Exactly what the matrix will hold, whatever its type.
      const value: Vector = { type: 'f32', values: numbers.values }
      entries.push({ vector: `${module}.${name}`, value })
    }
  }
  for (const [key, { values }] of tables) {
    entries.push({ vector: key, value: { type: 'f32', values } })
  }
  return entries
}

/** A part is written over only with all that it held. */
function assertComplete({ config }: Opened, layer: number, entries: readonly Entry[]): void {
  const there = new Set(entries.flatMap((entry) => ('module' in entry ? [entry.module] : [])))
  for (const module of blockNames(config.architecture, layer).modules.values()) {
    if (!there.has(module))
      throw new LowbitError('missing-tensor', 'a part lost a matrix', { tensor: module })
  }
}

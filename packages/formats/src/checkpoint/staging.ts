/**
 * A checkpoint in the making: parts (one for each block of the model) are written as safetensors files
 * of their own, each whole or not there at all, so that work can stop anywhere and go on. Finishing
 * streams all parts into the final files, one tensor at a time.
 */

import {
  type Checkpoint,
  type Entry,
  type Format,
  isQuantized,
  LowbitError,
  type ModuleDescription,
} from '@lowbit/core'
import {
  type Dtype,
  type Safetensors,
  type TensorEntry,
  writeSafetensors,
} from '@lowbit/safetensors'
import { INDEX, openFile, orClose, SINGLE } from '../folder/checkpoint-folder.ts'
import type { Folder } from '../folder/folder.ts'
import { entryTensors } from './entries.ts'
import { openCheckpoint } from './open.ts'

/** What a part leaves behind for config.json: by module. */
export type Described = Readonly<Record<string, ModuleDescription>>

const partName = (part: string): string => `${part}.part.safetensors`

/** Writes one part; the entries' bytes are all in memory, so a part is at most one block. */
export async function writePart(
  folder: Folder,
  part: string,
  entries: readonly Entry[],
  format: Format,
  signal?: AbortSignal,
): Promise<Described> {
  // By name: a table that several modules share comes with each of them.
  const tensors = new Map<string, TensorEntry>()
  const described: Record<string, ModuleDescription> = {}
  for (const entry of entries) {
    if ('module' in entry && isQuantized(entry.matrix)) {
      const reason = format.refuses(entry.matrix)
      if (reason) {
        throw new LowbitError(
          'not-storable',
          `format ${format.name} can not store ${entry.module}: ${reason}; --format lowbit can`,
          { tensor: entry.module, option: 'format' },
        )
      }
      described[entry.module] = format.describe(entry.matrix)
    }
    for (const [name, raw] of entryTensors(entry, format)) {
      tensors.set(name, {
        name,
        dtype: raw.dtype as Dtype,
        shape: raw.shape,
        data: () => raw.bytes,
      })
    }
  }
  await folder.write(partName(part), writeSafetensors([...tensors.values()], { signal }), signal)
  return described
}

export async function hasPart(folder: Folder, part: string): Promise<boolean> {
  return (await folder.list()).includes(partName(part))
}

/** Opens a written part as a checkpoint of its own; `config` must already name the layout. */
export async function openPart(
  folder: Folder,
  part: string,
  config: Readonly<Record<string, unknown>>,
): Promise<Checkpoint> {
  return orClose(await openFile(folder, partName(part)), (tensors) =>
    openCheckpoint({
      location: `${folder.location}/${partName(part)}`,
      tensors,
      config,
      files: [],
      readFile: (name) => folder.read(name),
    }),
  )
}

export interface AssembleOptions {
  readonly folder: Folder
  readonly parts: readonly string[]
  readonly config: Readonly<Record<string, unknown>>
  /** Largest size of one file; a larger model becomes shards with an index. */
  readonly maxShardBytes?: number
  readonly signal?: AbortSignal
}

/** Streams the parts into model.safetensors (or shards), writes config.json, and drops the parts. */
export async function assemble(options: AssembleOptions): Promise<number> {
  const { folder, parts, config, signal } = options
  const opened: Safetensors[] = []
  try {
    for (const part of parts) opened.push(await openFile(folder, partName(part)))
    const entries = await distinctTensors(opened)
    const shards = split(entries, options.maxShardBytes ?? 5e9)
    const total = entries.reduce((sum, { size }) => sum + size, 0)
    const metadata = { format: 'pt' }
    if (shards.length === 1) {
      await folder.write(SINGLE, writeSafetensors(shards[0], { metadata, signal }), signal)
    } else {
      const weightMap: Record<string, string> = {}
      for (const [i, shard] of shards.entries()) {
        const number = (n: number): string => String(n).padStart(5, '0')
        const name = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
        for (const entry of shard) weightMap[entry.name] = name
        await folder.write(name, writeSafetensors(shard, { metadata, signal }), signal)
      }
      const index = { metadata: { total_size: total }, weight_map: weightMap }
      await folder.write(INDEX, [jsonBytes(index)], signal)
    }
    await folder.write('config.json', [jsonBytes(config)], signal)
    return total
  } finally {
    for (const file of opened) await file.close()
  }
}

export async function dropParts(folder: Folder, parts: readonly string[]): Promise<void> {
  const there = new Set(await folder.list())
  for (const part of parts) if (there.has(partName(part))) await folder.remove(partName(part))
}

export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)
}

/** Every tensor once: a shared table stands in each part that refers to it, and must be the same there. */
async function distinctTensors(
  files: readonly Safetensors[],
): Promise<{ size: number; entry: TensorEntry }[]> {
  const first = new Map<string, Safetensors>()
  const entries: { size: number; entry: TensorEntry }[] = []
  for (const file of files) {
    for (const { name, dtype, shape, begin, end } of file.tensors.values()) {
      const earlier = first.get(name)
      if (!earlier) {
        first.set(name, file)
        const entry = { name, dtype, shape, data: () => file.read(name) }
        entries.push({ size: end - begin, entry })
      } else if (!sameBytes(await earlier.read(name), await file.read(name))) {
        throw new LowbitError('bad-tensor', 'two parts hold different tables under one name', {
          tensor: name,
        })
      }
    }
  }
  return entries
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i])

/** Fills files in order until the next tensor would pass the limit. */
function split(
  entries: readonly { size: number; entry: TensorEntry }[],
  most: number,
): TensorEntry[][] {
  const shards: TensorEntry[][] = [[]]
  let held = 0
  for (const { size, entry } of entries) {
    if (held > 0 && held + size > most) {
      shards.push([])
      held = 0
    }
    shards[shards.length - 1].push(entry)
    held += size
  }
  return shards
}

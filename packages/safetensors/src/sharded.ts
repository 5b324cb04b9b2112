import { isAbort, messageOf, SafetensorsError } from './error.ts'
import type { TensorInfo } from './header.ts'
import { openSafetensors, type Safetensors, type SafetensorsFile } from './open.ts'
import { parseShardIndex, type WeightMap } from './shard-index.ts'
import { type SafetensorsInput, toSource } from './source.ts'

/** A model that is split over several files. */
export interface ShardedSafetensors extends Safetensors {
  /** The opened files by the name that the index gives them. */
  readonly shards: ReadonlyMap<string, SafetensorsFile>
}

/** Gives the bytes of the file that the index calls `fileName`. */
export type OpenShard = (fileName: string) => SafetensorsInput | Promise<SafetensorsInput>

/** Settings of {@link openSharded}. */
export interface ShardedOptions {
  /** What to call the index in errors. */
  readonly name?: string
}

// Opening reads headers only, but a model can have hundreds of files: neither one after the other
// nor all at once.
const OPEN_AT_ONCE = 8

/**
 * Opens a model through its index. Every file is opened (headers only) and held against the index:
 * each tensor that the index names must be in the file it names, and no file may hold another.
 *
 * `metadata` joins that of all files; where two differ under one key, the file that the index
 * names first wins. Each file's own is in `shards`. File names reach `openShard` only after they
 * were found to stay within the model's folder.
 *
 * @param index text of the index, or the object it was parsed into
 * @throws SafetensorsError `bad-index`, `duplicate-key`, `unsafe-file-name`, `missing-shard`,
 * `missing-tensor`, `unlisted-tensor`, or what opening one of the files throws. What was opened
 * by then is closed again.
 */
export async function openSharded(
  index: string | object,
  openShard: OpenShard,
  options: ShardedOptions = {},
): Promise<ShardedSafetensors> {
  const weights = parseShardIndex(index, options.name)
  const shards = await openAll([...new Set(weights.values())], openShard)
  try {
    return new OpenedModel(shards, joinTensors(weights, shards))
  } catch (error) {
    await closeAll(shards.values())
    throw error
  }
}

async function openAll(
  names: readonly string[],
  openShard: OpenShard,
): Promise<Map<string, SafetensorsFile>> {
  const opened = new Map<string, SafetensorsFile>()
  const waiting = names.values()
  const failures: unknown[] = []
  const work = async (): Promise<void> => {
    for (const name of waiting) {
      if (failures.length > 0) return
      try {
        opened.set(name, await openOne(name, openShard))
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: OPEN_AT_ONCE }, work))
  if (failures.length > 0) {
    await closeAll(opened.values())
    throw failures[0]
  }
  // In the order of the index, whichever came first.
  return new Map(names.flatMap((name) => pair(name, opened.get(name))))
}

function pair<T>(name: string, value: T | undefined): [string, T][] {
  return value === undefined ? [] : [[name, value]]
}

async function openOne(name: string, openShard: OpenShard): Promise<SafetensorsFile> {
  let source: Awaited<ReturnType<typeof toSource>>
  try {
    source = await toSource(await openShard(name))
  } catch (cause) {
    if (isAbort(cause)) throw cause
    const detail = `the index names this file, but it could not be opened: ${messageOf(cause)}`
    throw new SafetensorsError('missing-shard', detail, { file: name, cause })
  }
  try {
    return await openSafetensors(source, { name })
  } catch (error) {
    await source.close?.()
    throw error
  }
}

async function closeAll(files: Iterable<SafetensorsFile>): Promise<void> {
  await Promise.allSettled(Array.from(files, (file) => file.close()))
}

function joinTensors(
  weights: WeightMap,
  shards: ReadonlyMap<string, SafetensorsFile>,
): Map<string, TensorInfo> {
  for (const [file, shard] of shards) {
    for (const tensor of shard.tensors.keys()) {
      const listed = weights.get(tensor)
      if (listed === file) continue
      const detail =
        listed === undefined
          ? 'the file holds it but the index does not name it; the index and the files do not belong together.'
          : `the file holds it but the index places it in ${listed}; the index and the files do not belong together.`
      throw new SafetensorsError('unlisted-tensor', detail, { file, tensor })
    }
  }
  const tensors = new Map<string, TensorInfo>()
  for (const [tensor, file] of weights) {
    const info = shards.get(file)?.tensors.get(tensor)
    if (info === undefined) {
      const detail =
        'the index places it in this file, which does not hold it; get index and files again.'
      throw new SafetensorsError('missing-tensor', detail, { file, tensor })
    }
    tensors.set(tensor, info)
  }
  return tensors
}

class OpenedModel implements ShardedSafetensors {
  readonly metadata: ReadonlyMap<string, string>
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly shards: ReadonlyMap<string, SafetensorsFile>

  constructor(
    shards: ReadonlyMap<string, SafetensorsFile>,
    tensors: ReadonlyMap<string, TensorInfo>,
  ) {
    this.shards = shards
    this.tensors = tensors
    // Later entries override earlier ones, so the first file goes last.
    const files = [...shards.values()].reverse()
    this.metadata = new Map(files.flatMap((file) => [...file.metadata]))
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.#shardOf(name).read(name)
  }

  async readRange(
    name: string,
    byteOffset: number,
    byteLength: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return this.#shardOf(name).readRange(name, byteOffset, byteLength)
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.shards.values(), (file) => file.close()))
  }

  #shardOf(name: string): SafetensorsFile {
    const shard = this.shards.get(this.tensors.get(name)?.file ?? '')
    if (shard !== undefined) return shard
    const detail = `the model has no such tensor among its ${this.tensors.size}; \`tensors\` lists them.`
    throw new SafetensorsError('tensor-not-found', detail, { tensor: name })
  }
}

/** Safetensors files whose header says what they belong to, with a checksum over all of it. */

import { digest, LowbitError } from '@lowbit/core'
import {
  openSafetensors,
  type Safetensors,
  type TensorEntry,
  writeSafetensors,
} from '@lowbit/safetensors'

export type Facts = Readonly<Record<string, string>>

export type Refuse = (why: string, cause?: unknown) => never

export const refusing =
  (file: string): Refuse =>
  (why, cause) => {
    throw new LowbitError('bad-cache', `${file}: ${why}`, { file, cause })
  }

/** What a file is: in its header, and in words. */
export interface FileKind {
  readonly format: string
  readonly version: string
  /** "saved cache" */
  readonly title: string
}

export interface Entry extends TensorEntry {
  readonly bytes: Uint8Array
}

export function entryOf(
  name: string,
  dtype: TensorEntry['dtype'],
  shape: readonly number[],
  { buffer, byteOffset, byteLength }: ArrayBufferView,
): Entry {
  const bytes = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
  return { name, dtype, shape, bytes, data: async () => bytes }
}

export async function writeChecked(
  { format, version }: FileKind,
  given: Facts,
  entries: readonly Entry[],
): Promise<Uint8Array> {
  const facts = { format, version, ...given }
  const sums = await Promise.all(
    entries.map(async (entry) => [titleOf(entry), await digest(entry.bytes)] as const),
  )
  const metadata = { ...facts, checksum: await checksum(facts, new Map(sums)) }
  const parts: Uint8Array[] = []
  for await (const part of writeSafetensors(entries, { metadata })) parts.push(part)
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Format, version, checksum: in this order, so that the message names what is really wrong. */
export async function openChecked(
  { format, version, title }: FileKind,
  bytes: Uint8Array,
  file: string,
): Promise<{ readonly saved: Safetensors; readonly facts: Facts }> {
  const refuse = refusing(file)
  let saved: Safetensors
  try {
    saved = await openSafetensors(bytes, { name: file })
  } catch (cause) {
    return refuse(`is damaged or no ${title}: ${(cause as Error).message}`, cause)
  }
  const { checksum: said, ...facts } = Object.fromEntries(saved.metadata)
  if (facts.format !== format) refuse(`is no ${title}`)
  if (facts.version !== version) {
    refuse(`is a ${title} of version ${facts.version}; this lowbit reads version ${version}`)
  }
  const sums = new Map<string, string>()
  for (const tensor of saved.tensors.values()) {
    sums.set(titleOf(tensor), await digest(await saved.read(tensor.name)))
  }
  if ((await checksum(facts, sums)) !== said)
    refuse('is damaged: its checksum is not that of its bytes')
  return { saved, facts }
}

/** In memory of its own, which begins where any typed array may. */
export const readPart = async (
  saved: Safetensors,
  name: string,
): Promise<Uint8Array<ArrayBuffer>> => Uint8Array.from(await saved.read(name))

/** The same for objects that say the same in another order. */
export const sortedJson = (value: object): string =>
  JSON.stringify(Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))))

const titleOf = ({ name, dtype, shape }: Pick<TensorEntry, 'name' | 'dtype' | 'shape'>): string =>
  `${name} ${dtype} ${shape.join('×')}`

/** Of the header's facts and of each tensor's own digest, in the order of names. */
function checksum(facts: Facts, sums: ReadonlyMap<string, string>): Promise<string> {
  const sorted = (pairs: Iterable<readonly [string, string]>) =>
    [...pairs].sort(([a], [b]) => (a < b ? -1 : 1))
  const all = [sorted(Object.entries(facts)), sorted(sums)]
  return digest(new TextEncoder().encode(JSON.stringify(all)))
}

import { isAbort, messageOf, SafetensorsError, withPlace } from './error.ts'
import { httpSource } from './http-source.ts'

/**
 * Bytes that can be read at any place. Implement it to open a file from wherever it is kept.
 */
export interface Source {
  /** Size of the whole, in bytes; does not change. */
  readonly size: number
  /**
   * Gives exactly `length` bytes from byte `offset`. It is only called for ranges within `size`
   * and may be called again before an earlier call has settled.
   */
  read(offset: number, length: number): Promise<Uint8Array>
  /** Lets go of what the source holds open, if anything. */
  close?(): Promise<void>
  /** What to call the source in error messages. */
  readonly name?: string
}

/** What can be opened: a {@link Source}, bytes in memory, a `Blob` or `File`, an http(s) `URL`. */
export type SafetensorsInput = Source | Uint8Array | ArrayBuffer | Blob | URL

/** A source over bytes in memory. The bytes are not copied until they are read. */
export function bytesSource(bytes: Uint8Array | ArrayBuffer): Source {
  const all = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)
  return {
    size: all.byteLength,
    async read(offset, length) {
      return new Uint8Array(all.subarray(offset, offset + length))
    },
  }
}

/** A source over a `Blob` or a `File` that the user picked. */
export function blobSource(blob: Blob): Source {
  const name = 'name' in blob && typeof blob.name === 'string' ? { name: blob.name } : {}
  return {
    size: blob.size,
    async read(offset, length) {
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer())
    },
    ...name,
  }
}

/**
 * Makes a source of anything that can be opened.
 *
 * @throws SafetensorsError `bad-source`, or an error of {@link httpSource} for a URL.
 */
export async function toSource(input: SafetensorsInput): Promise<Source> {
  if (input instanceof Uint8Array || input instanceof ArrayBuffer) return bytesSource(input)
  if (input instanceof Blob) return blobSource(input)
  if (input instanceof URL) return httpSource(input)
  if (!isSource(input)) {
    const hint =
      typeof input === 'string'
        ? 'a string is neither; pass `new URL(…)`, or open a path with `openSafetensorsFile` of the `/node` entry'
        : 'pass a Blob, a File, a Uint8Array, an http(s) URL or an object with `size` and `read`'
    throw new SafetensorsError('bad-source', `this cannot be opened: ${hint}.`)
  }
  if (!Number.isSafeInteger(input.size) || input.size < 0) {
    const detail = `the source has a size of ${input.size}; it must be a whole number of bytes.`
    throw new SafetensorsError('bad-source', detail, { file: input.name })
  }
  return input
}

function isSource(input: unknown): input is Source {
  if (typeof input !== 'object' || input === null) return false
  return (
    'size' in input &&
    typeof input.size === 'number' &&
    'read' in input &&
    typeof input.read === 'function'
  )
}

/**
 * Reads from a source and holds it to its contract: exactly `length` bytes, in memory of their own
 * kind (not shared), starting at a multiple of 8 so that any typed array can view them.
 *
 * @throws SafetensorsError `short-read`, `bad-source`, `allocation-failed`, or `source-failed` with
 * the source's own error as its cause. Aborts pass through as they are.
 */
export async function readExactly(
  source: Source,
  offset: number,
  length: number,
  place: { readonly file?: string | undefined; readonly tensor?: string | undefined },
): Promise<Uint8Array<ArrayBuffer>> {
  if (length === 0) return new Uint8Array(0)
  let bytes: Uint8Array
  try {
    bytes = await source.read(offset, length)
  } catch (cause) {
    throw explain(cause, length, place)
  }
  if (!(bytes instanceof Uint8Array)) {
    const detail = 'the `read` of the source did not give a Uint8Array.'
    throw new SafetensorsError('bad-source', detail, place)
  }
  if (bytes.byteLength !== length) {
    const detail = `${length} bytes were asked for at ${offset} and ${bytes.byteLength} came; the file changed or the source is at fault.`
    throw new SafetensorsError('short-read', detail, place)
  }
  return ownBytes(bytes)
}

function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = bytes
  if (buffer instanceof ArrayBuffer && byteOffset % 8 === 0) {
    return new Uint8Array(buffer, byteOffset, byteLength)
  }
  return new Uint8Array(bytes)
}

function explain(
  cause: unknown,
  length: number,
  place: { readonly file?: string | undefined; readonly tensor?: string | undefined },
): unknown {
  if (cause instanceof SafetensorsError) return withPlace(cause, place)
  if (isAbort(cause)) return cause
  if (cause instanceof RangeError) {
    const detail = `no memory for ${length} bytes at once; read it in parts with \`readRange\`.`
    return new SafetensorsError('allocation-failed', detail, { ...place, cause })
  }
  const detail = `the source could not be read: ${messageOf(cause)}`
  return new SafetensorsError('source-failed', detail, { ...place, cause })
}

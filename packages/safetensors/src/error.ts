/** What went wrong, as a word to branch on. The README lists each with its meaning. */
export type SafetensorsErrorCode =
  // The container: the length prefix, the header, and how they fit the file.
  | 'too-short'
  | 'header-too-large'
  | 'header-past-end'
  | 'header-start'
  | 'header-utf8'
  | 'header-json'
  | 'duplicate-key'
  | 'bad-metadata'
  | 'trailing-bytes'
  | 'truncated'
  // One tensor's description.
  | 'bad-name'
  | 'bad-entry'
  | 'unknown-dtype'
  | 'bad-shape'
  | 'shape-overflow'
  | 'not-byte-aligned'
  | 'bad-offsets'
  | 'size-mismatch'
  | 'hole'
  | 'overlap'
  // Reading from an opened file.
  | 'tensor-not-found'
  | 'out-of-range'
  | 'closed'
  // The source of the bytes.
  | 'bad-source'
  | 'file-not-found'
  | 'source-failed'
  | 'short-read'
  | 'allocation-failed'
  | 'source-changed'
  | 'http-status'
  | 'range-ignored'
  | 'size-unknown'
  // Models split over several files.
  | 'bad-index'
  | 'unsafe-file-name'
  | 'missing-shard'
  | 'missing-tensor'
  | 'unlisted-tensor'
  // Writing.
  | 'data-length'
  | 'data-failed'
  | 'file-exists'
  | 'write-failed'

/** Where an error happened. */
export interface SafetensorsErrorPlace {
  readonly file?: string | undefined
  readonly tensor?: string | undefined
  readonly cause?: unknown
}

/**
 * The one error class of this package.
 *
 * `message` reads `<file>: tensor "<name>": <what is wrong and what to do>`, with the parts that
 * are known. `detail` is the last part alone.
 */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError'
  readonly code: SafetensorsErrorCode
  /** The file, URL or name given to the opener, when known. */
  readonly file: string | undefined
  /** The name of the tensor concerned, in full, when there is one. */
  readonly tensor: string | undefined
  readonly detail: string

  constructor(code: SafetensorsErrorCode, detail: string, place: SafetensorsErrorPlace = {}) {
    const { file, tensor, cause } = place
    const where = [file, tensor === undefined ? undefined : `tensor ${quote(tensor)}`]
    const message = [...where.filter((part) => part !== undefined), detail].join(': ')
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.file = file
    this.tensor = tensor
    this.detail = detail
  }
}

/**
 * The same error with `file` and `tensor` filled in where they were not known further down.
 */
export function withPlace(error: SafetensorsError, place: SafetensorsErrorPlace): SafetensorsError {
  const file = error.file ?? place.file
  const tensor = error.tensor ?? place.tensor
  if (file === error.file && tensor === error.tensor) return error
  return new SafetensorsError(error.code, error.detail, { file, tensor, cause: error.cause })
}

/** True for what `fetch` and `AbortSignal` throw when the caller cancels; passed on untouched. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

const MAX_QUOTED = 80

/**
 * A string from a file, made fit for a message: quoted, escaped, and cut to 80 characters,
 * because a hostile header can hold a name of many megabytes.
 */
export function quote(text: string): string {
  return JSON.stringify(text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text)
}

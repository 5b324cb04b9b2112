import { isAbort, messageOf, SafetensorsError } from './error.ts'
import type { Source } from './source.ts'

/** Settings of {@link httpSource}. */
export interface HttpSourceOptions {
  /** Used in place of the global `fetch`, for instance to retry or to add credentials. */
  readonly fetch?: typeof fetch
  /** Sent with every request, for instance `authorization`. */
  readonly headers?: Readonly<Record<string, string>>
  /** Ends every request when it aborts. */
  readonly signal?: AbortSignal
  /** Size of the file in bytes, when known; spares asking where the server hides it. */
  readonly size?: number
  /** Bytes got with the first request, so that most headers need no second; 64 KiB if not set. */
  readonly prefetchBytes?: number
}

const PREFETCH_BYTES = 65_536

/**
 * A source over a file on a web server, read with HTTP range requests (RFC 9110, section 14).
 *
 * The server must honour `Range`; one that answers with the whole file is refused before its body
 * is read. A file that changes between two reads (its size or its `ETag`) is refused too.
 *
 * @throws SafetensorsError `range-ignored`, `http-status`, `size-unknown`, `source-changed`,
 * `source-failed`, or `bad-source` for an address that is not http(s).
 */
export async function httpSource(
  url: URL | string,
  options: HttpSourceOptions = {},
): Promise<Source> {
  const address = parseAddress(url)
  const ranges = new RangeReader(address, options)
  const first = await ranges.read(0, Math.max(1, options.prefetchBytes ?? PREFETCH_BYTES), true)
  const size = options.size ?? first.total ?? (await ranges.askSize())
  const start = first.bytes
  return {
    size,
    name: ranges.name,
    async read(offset, length) {
      if (offset + length <= start.byteLength) return start.slice(offset, offset + length)
      return (await ranges.read(offset, length, false)).bytes
    },
  }
}

function parseAddress(url: URL | string): URL {
  let address: URL
  try {
    address = new URL(url)
  } catch (cause) {
    const detail = 'this is not an absolute address; pass one that begins with https://.'
    throw new SafetensorsError('bad-source', detail, { file: String(url), cause })
  }
  if (address.protocol === 'http:' || address.protocol === 'https:') return address
  const detail = `an address that begins with ${address.protocol} cannot be read in ranges; for a file on disk use the \`/node\` entry.`
  throw new SafetensorsError('bad-source', detail, { file: nameOf(address) })
}

// Without query and credentials, which may hold a secret.
function nameOf(address: URL): string {
  return `${address.protocol}//${address.host}${address.pathname}`
}

interface Range {
  readonly bytes: Uint8Array
  /** Size of the whole file, when the answer says it. */
  readonly total: number | undefined
}

class RangeReader {
  readonly name: string
  readonly #address: URL
  readonly #options: HttpSourceOptions
  #total: number | undefined
  #etag: string | null = null

  constructor(address: URL, options: HttpSourceOptions) {
    this.#address = address
    this.#options = options
    this.name = nameOf(address)
  }

  /** Reads a range; with `mayEndEarly` the file may be shorter than what is asked for. */
  async read(offset: number, length: number, mayEndEarly: boolean): Promise<Range> {
    const last = offset + length - 1
    const response = await this.#fetch('GET', { range: `bytes=${offset}-${last}` })
    const total = totalOf(response)
    // The answer of an empty file: no range of it can be satisfied.
    if (response.status === 416 && mayEndEarly && total === 0) {
      await response.body?.cancel()
      return { bytes: new Uint8Array(0), total }
    }
    if (response.status !== 206) throw await this.#refuse(response)
    await this.#checkSame(response, total)
    const range = rangeOf(response)
    if (range !== undefined && range.begin !== offset) {
      await response.body?.cancel()
      const detail = `bytes from ${offset} were asked for and bytes from ${range.begin} came; the server does not answer ranges rightly.`
      throw this.#error('short-read', detail)
    }
    const sent = range === undefined ? length : range.end - range.begin
    const expected = mayEndEarly ? Math.max(0, Math.min(length, sent)) : length
    const bytes = await this.#body(response, expected, mayEndEarly)
    return { bytes, total }
  }

  /** Asks for the size alone, where the answer to a range request does not show it. */
  async askSize(): Promise<number> {
    const response = await this.#fetch('HEAD', {})
    await response.body?.cancel()
    const length = response.headers.get('content-length')
    if (response.ok && length !== null && /^\d{1,15}$/.test(length)) return Number(length)
    const detail =
      'the server does not show the size of the file; let it expose `Content-Range` (Access-Control-Expose-Headers) or pass `size` to httpSource.'
    throw this.#error('size-unknown', detail)
  }

  async #fetch(method: string, headers: Record<string, string>): Promise<Response> {
    const { fetch = globalThis.fetch, headers: own = {}, signal } = this.#options
    try {
      return await fetch(this.#address.href, {
        method,
        headers: { ...own, ...headers },
        ...(signal && { signal }),
      })
    } catch (cause) {
      if (isAbort(cause) || signal?.aborted) throw cause
      const detail = `the request failed: ${messageOf(cause)}; in a browser, the server may not allow this page (CORS).`
      throw this.#error('source-failed', detail, cause)
    }
  }

  async #refuse(response: Response): Promise<SafetensorsError> {
    // The body may be gigabytes; it must not be fetched only to be thrown away.
    await response.body?.cancel()
    if (response.status === 200) {
      const detail =
        'the server ignores range requests and sends the whole file; use a server that honours `Range`, or download the file and open it as a Blob or from disk.'
      return this.#error('range-ignored', detail)
    }
    const detail = `the server answered ${response.status} ${response.statusText}`.trimEnd()
    return this.#error('http-status', `${detail}; check the address and the rights to it.`)
  }

  async #checkSame(response: Response, total: number | undefined): Promise<void> {
    const etag = response.headers.get('etag')
    const otherTotal = total !== undefined && this.#total !== undefined && total !== this.#total
    const otherTag = etag !== null && this.#etag !== null && etag !== this.#etag
    if (otherTotal || otherTag) {
      await response.body?.cancel()
      const detail = 'the file changed on the server while it was being read; open it again.'
      throw this.#error('source-changed', detail)
    }
    this.#total ??= total
    this.#etag ??= etag
  }

  // Never holds more than was asked for, whatever the server sends.
  async #body(response: Response, length: number, mayEndEarly: boolean): Promise<Uint8Array> {
    const bytes = new Uint8Array(length)
    let filled = 0
    const reader = response.body?.getReader()
    try {
      for (;;) {
        const part = await reader?.read()
        if (part === undefined || part.done) break
        if (filled + part.value.byteLength > length) {
          await reader?.cancel()
          const detail = `${length} bytes were asked for and more came; the server does not answer ranges rightly.`
          throw this.#error('short-read', detail)
        }
        bytes.set(part.value, filled)
        filled += part.value.byteLength
      }
    } catch (cause) {
      if (cause instanceof SafetensorsError || isAbort(cause)) throw cause
      if (this.#options.signal?.aborted) throw cause
      const detail = `the connection broke after ${filled} of ${length} bytes: ${messageOf(cause)}`
      throw this.#error('source-failed', detail, cause)
    }
    if (filled < length && !mayEndEarly) {
      const detail = `${length} bytes were asked for and ${filled} came; try again.`
      throw this.#error('short-read', detail)
    }
    return filled === length ? bytes : bytes.slice(0, filled)
  }

  #error(code: SafetensorsError['code'], detail: string, cause?: unknown): SafetensorsError {
    return new SafetensorsError(code, detail, { file: this.name, cause })
  }
}

// The number after the slash of `Content-Range: bytes 0-7/1234` or, for 416, `bytes */1234`.
// Browsers hide this header of other origins unless the server exposes it.
function totalOf(response: Response): number | undefined {
  const total = /\/(\d{1,15})$/.exec(response.headers.get('content-range') ?? '')?.[1]
  return total === undefined ? undefined : Number(total)
}

// The range that a 206 answer carries, where the header can be seen; `end` is one past the last.
function rangeOf(response: Response): { begin: number; end: number } | undefined {
  const range = /^bytes (\d{1,15})-(\d{1,15})\//.exec(response.headers.get('content-range') ?? '')
  return range === null ? undefined : { begin: Number(range[1]), end: Number(range[2]) + 1 }
}

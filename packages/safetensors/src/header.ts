import { type Dtype, isDtype, tensorByteLength } from './dtype.ts'
import { quote, SafetensorsError, type SafetensorsErrorCode } from './error.ts'
import { JsonError, JsonReader } from './json-reader.ts'

/** Bytes before the header: its length, as an unsigned 64-bit little-endian integer. */
export const LENGTH_BYTES = 8

/** The largest header that the reference library accepts, in bytes. */
export const MAX_HEADER_BYTES = 100_000_000

/** The key of the free-form strings, which no tensor can have as its name. */
export const METADATA_KEY = '__metadata__'

// The format sets no limit; without one a hostile header could ask for tens of millions of
// dimensions. NumPy stops at 64.
const MAX_RANK = 1024

/** What the header says of one tensor. */
export interface TensorInfo {
  readonly name: string
  readonly dtype: Dtype
  /** Elements along each dimension, outermost first (row-major); `[]` is a scalar. */
  readonly shape: readonly number[]
  /** First byte of the tensor, counted from the start of the file. */
  readonly begin: number
  /** One past the last byte of the tensor, counted from the start of the file. */
  readonly end: number
  /** The file that holds the tensor, when it is known by a name. */
  readonly file?: string
}

/** A header that keeps every rule of the format. */
export interface Header {
  readonly metadata: ReadonlyMap<string, string>
  /** In the order of the bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
}

/**
 * Reads the length of the header from the first 8 bytes of a file and checks it against the file,
 * so that nothing larger than the file is ever allocated for it.
 *
 * @throws SafetensorsError `header-too-large` or `header-past-end`.
 */
export function parseHeaderLength(prefix: Uint8Array, fileBytes: number, file?: string): number {
  const view = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES)
  const length = view.getBigUint64(0, true)
  if (length > BigInt(MAX_HEADER_BYTES)) {
    const detail = `its first 8 bytes ask for a header of ${length} bytes, more than the ${MAX_HEADER_BYTES} allowed; this is probably not a safetensors file.`
    throw new SafetensorsError('header-too-large', detail, { file })
  }
  const available = fileBytes - LENGTH_BYTES
  if (length > BigInt(available)) {
    const detail = `the header should be ${length} bytes long but only ${available} bytes follow its length; the file is cut short or is not a safetensors file.`
    throw new SafetensorsError('header-past-end', detail, { file })
  }
  return Number(length)
}

/**
 * Parses and checks the header of a safetensors file, following the rules of the format
 * (README and `tensor.rs` of huggingface/safetensors): UTF-8 JSON that begins with `{`, no equal
 * keys, known dtypes, byte ranges that match dtype and shape and cover the data without a hole,
 * an overlap or a byte left over. Where the reference library is laxer than the written format
 * (equal keys, white space before `{`), the written format is followed.
 *
 * @param bytes the header alone, without the 8 bytes of its length
 * @param fileBytes size of the whole file
 * @throws SafetensorsError with the tensor's name where one tensor is at fault
 */
export function parseHeader(bytes: Uint8Array, fileBytes: number, file?: string): Header {
  if (bytes[0] !== 0x7b) {
    const detail = 'the header does not begin with `{`; this is probably not a safetensors file.'
    throw new SafetensorsError('header-start', detail, { file })
  }
  const entries = new EntryReader(decode(bytes, file), file).read()
  const dataStart = LENGTH_BYTES + bytes.length
  const tensors = layOut(entries.tensors, dataStart, fileBytes, file)
  return { metadata: entries.metadata, tensors }
}

function decode(bytes: Uint8Array, file?: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    const detail = 'the header is not valid UTF-8; the file is damaged.'
    throw new SafetensorsError('header-utf8', detail, { file, cause })
  }
}

/** One entry of the header as written: offsets count from the start of the data. */
interface Entry {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  readonly offsets: readonly number[]
}

class EntryReader {
  readonly #json: JsonReader
  readonly #file: string | undefined
  readonly #metadata = new Map<string, string>()
  readonly #tensors: Entry[] = []
  // The tensor whose entry is being read, to name it in errors of the JSON itself.
  #tensor: string | undefined
  #inMetadata = false

  constructor(text: string, file?: string) {
    this.#json = new JsonReader(text)
    this.#file = file
  }

  read(): { metadata: Map<string, string>; tensors: Entry[] } {
    try {
      this.#json.readObject((key) => {
        if (key === METADATA_KEY) {
          this.#readMetadata()
        } else {
          this.#tensor = key
          this.#tensors.push(this.#readEntry(key))
          this.#tensor = undefined
        }
      })
      this.#json.end()
    } catch (error) {
      throw error instanceof JsonError ? this.#explain(error) : error
    }
    return { metadata: this.#metadata, tensors: this.#tensors }
  }

  #explain(error: JsonError): SafetensorsError {
    const place = { file: this.#file, tensor: this.#tensor, cause: error }
    if (error.problem === 'syntax') {
      const detail = `the header is not valid JSON: ${error.message}; the file is damaged.`
      return new SafetensorsError('header-json', detail, place)
    }
    // A key that comes twice at the top level is itself the name of a tensor.
    const tensor =
      this.#tensor ?? (this.#inMetadata || error.key === METADATA_KEY ? undefined : error.key)
    const detail = `in the header, ${error.message}; the file is ambiguous, write it again.`
    return new SafetensorsError('duplicate-key', detail, { ...place, tensor })
  }

  #readMetadata(): void {
    this.#inMetadata = true
    const kind = this.#json.peek()
    // The reference library reads null as no metadata.
    if (kind === 'null') {
      this.#json.skipValue()
    } else if (kind === 'object') {
      this.#json.readObject((key) => {
        const inner = this.#json.peek()
        if (inner !== 'string') {
          throw this.#wrong(
            'bad-metadata',
            `\`${METADATA_KEY}\` has a value of type ${inner} under ${quote(key)}; every value must be a string.`,
          )
        }
        this.#metadata.set(key, this.#json.readString())
      })
    } else {
      throw this.#wrong(
        'bad-metadata',
        `\`${METADATA_KEY}\` is of type ${kind}; it must be an object of strings.`,
      )
    }
    this.#inMetadata = false
  }

  #readEntry(name: string): Entry {
    let dtype: Dtype | undefined
    let shape: number[] | undefined
    let offsets: number[] | undefined
    this.#expect('object', 'bad-entry', 'its entry')
    this.#json.readObject((key) => {
      if (key === 'dtype') dtype = this.#readDtype()
      else if (key === 'shape') shape = this.#readCounts('bad-shape', 'shape', MAX_RANK)
      else if (key === 'data_offsets') offsets = this.#readCounts('bad-offsets', 'data_offsets', 2)
      // The reference library passes over keys that it does not know.
      else this.#json.skipValue()
    })
    if (dtype === undefined || shape === undefined || offsets === undefined) {
      throw this.#wrong('bad-entry', 'its entry lacks `dtype`, `shape` or `data_offsets`.')
    }
    if (offsets.length !== 2) {
      throw this.#wrong('bad-offsets', '`data_offsets` must hold two numbers, begin and end.')
    }
    return { name, dtype, shape, offsets }
  }

  #readDtype(): Dtype {
    this.#expect('string', 'bad-entry', '`dtype`')
    const dtype = this.#json.readString()
    if (isDtype(dtype)) return dtype
    throw this.#wrong('unknown-dtype', `the format has no dtype ${quote(dtype)}.`)
  }

  #readCounts(code: SafetensorsErrorCode, field: string, most: number): number[] {
    const counts: number[] = []
    this.#expect('array', code, `\`${field}\``)
    this.#json.readArray((index) => {
      if (index >= most) throw this.#wrong(code, `\`${field}\` holds more than ${most} numbers.`)
      this.#expect('number', code, `an item of \`${field}\``)
      counts.push(this.#count(this.#json.readNumber(), code, field))
    })
    return counts
  }

  // `1.0` and `1e2` are refused like the reference library does: it reads only plain integers.
  #count(text: string, code: SafetensorsErrorCode, field: string): number {
    if (!/^\d+$/.test(text.slice(0, 32))) {
      throw this.#wrong(
        code,
        `\`${field}\` holds ${quote(text)}; it must hold whole numbers from 0.`,
      )
    }
    const count = text.length > 16 ? Number.POSITIVE_INFINITY : Number(text)
    if (Number.isSafeInteger(count)) return count
    const detail = `\`${field}\` holds ${quote(text)}, which is 2^53 or more; the file is damaged or hostile.`
    throw this.#wrong(code === 'bad-shape' ? 'shape-overflow' : code, detail)
  }

  #expect(kind: string, code: SafetensorsErrorCode, what: string): void {
    const found = this.#json.peek()
    if (found !== kind) throw this.#wrong(code, `${what} is of type ${found}; it must be ${kind}.`)
  }

  #wrong(code: SafetensorsErrorCode, detail: string): SafetensorsError {
    return new SafetensorsError(code, detail, { file: this.#file, tensor: this.#tensor })
  }
}

// Checks the byte ranges in the order of the file and makes them absolute.
function layOut(
  entries: readonly Entry[],
  dataStart: number,
  fileBytes: number,
  file?: string,
): Map<string, TensorInfo> {
  const dataBytes = fileBytes - dataStart
  // By begin, then end: an empty tensor stands before the one that begins where it does.
  const ordered = entries.toSorted(
    (a, b) => a.offsets[0] - b.offsets[0] || a.offsets[1] - b.offsets[1],
  )
  const tensors = new Map<string, TensorInfo>()
  let covered = 0
  for (const { name, dtype, shape, offsets } of ordered) {
    const [begin, end] = offsets
    const place = { file, tensor: name }
    if (end < begin) {
      const detail = `its data ends at ${end}, before it begins at ${begin}; the header is damaged.`
      throw new SafetensorsError('bad-offsets', detail, place)
    }
    const bytes = tensorByteLength(dtype, shape, place)
    if (end - begin !== bytes) {
      const detail = `the header gives it ${end - begin} bytes, but its dtype ${dtype} and shape take ${bytes}; the header is damaged.`
      throw new SafetensorsError('size-mismatch', detail, place)
    }
    if (begin > covered) {
      const detail = `its data begins at ${begin} but the data before it ends at ${covered}; the format allows no hole.`
      throw new SafetensorsError('hole', detail, place)
    }
    if (begin < covered) {
      const detail = `its data begins at ${begin}, inside the tensor before it, which ends at ${covered}; the format allows no overlap.`
      throw new SafetensorsError('overlap', detail, place)
    }
    if (end > dataBytes) {
      const detail = `its data ends at ${end} but the file has ${dataBytes} bytes of data; the file is cut short, get it again.`
      throw new SafetensorsError('truncated', detail, place)
    }
    covered = end
    const info = {
      name,
      dtype,
      shape: Object.freeze(shape),
      begin: dataStart + begin,
      end: dataStart + end,
    }
    tensors.set(name, Object.freeze(file === undefined ? info : { ...info, file }))
  }
  if (covered < dataBytes) {
    const detail = `${dataBytes - covered} bytes follow the last tensor; the format allows none.`
    throw new SafetensorsError('trailing-bytes', detail, { file })
  }
  return tensors
}

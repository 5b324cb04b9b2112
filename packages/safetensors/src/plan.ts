import { alignmentRank, DTYPES, type Dtype, isDtype, tensorByteLength } from './dtype.ts'
import { quote, SafetensorsError } from './error.ts'
import { LENGTH_BYTES, MAX_HEADER_BYTES, METADATA_KEY } from './header.ts'

/** The bytes of a tensor: all at once, or in parts of any size. */
export type TensorData = Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array>

/** A tensor to be written. */
export interface TensorEntry {
  readonly name: string
  readonly dtype: Dtype
  /** Elements along each dimension, outermost first (row-major); `[]` is a scalar. */
  readonly shape: readonly number[]
  /** Called once, when the tensor's turn comes; gives its bytes, little-endian. */
  readonly data: () => TensorData
}

/** Free-form strings to keep in the header. */
export type MetadataInput = ReadonlyMap<string, string> | Readonly<Record<string, string>>

/** What a file will look like, known before any tensor is. */
export interface SafetensorsPlan {
  /** The first bytes of the file: the length of the header and the header. */
  readonly head: Uint8Array
  /** The tensors in the order of the file, with the bytes that each takes. */
  readonly tensors: readonly { readonly entry: TensorEntry; readonly byteLength: number }[]
  /** Size of the whole file. */
  readonly byteLength: number
}

/**
 * Lays out a file as the reference library does, byte for byte: tensors of larger alignment first,
 * then by name (in the order of its UTF-8 bytes), offsets without holes, the header padded with
 * spaces to a multiple of 8 bytes. So every tensor of whole-byte elements is aligned to them.
 *
 * @throws SafetensorsError `bad-name`, `duplicate-key`, `unknown-dtype`, `bad-shape`,
 * `shape-overflow`, `not-byte-aligned`, `bad-metadata` or `header-too-large`.
 */
export function planSafetensors(
  entries: Iterable<TensorEntry>,
  metadata?: MetadataInput,
): SafetensorsPlan {
  const ordered = [...entries]
  checkNames(ordered)
  ordered.sort(
    (a, b) => alignmentRank(b.dtype) - alignmentRank(a.dtype) || compareUtf8(a.name, b.name),
  )
  let end = 0
  const members = metadata === undefined ? [] : [metadataMember(metadata)]
  const tensors = ordered.map((entry) => {
    const { name, dtype, shape } = entry
    const byteLength = tensorByteLength(dtype, shape, { tensor: name })
    const begin = end
    end += byteLength
    if (!Number.isSafeInteger(end)) {
      const detail = 'with it, the file would be 2^53 bytes or more.'
      throw new SafetensorsError('shape-overflow', detail, { tensor: name })
    }
    const description = { dtype, shape, data_offsets: [begin, end] }
    members.push(`${JSON.stringify(name)}:${JSON.stringify(description)}`)
    return { entry, byteLength }
  })
  const head = encodeHead(`{${members.join(',')}}`)
  return { head, tensors, byteLength: head.byteLength + end }
}

function checkNames(entries: readonly TensorEntry[]): void {
  const seen = new Set<string>()
  for (const { name, dtype } of entries) {
    if (name === METADATA_KEY) {
      const detail = 'this name is kept for the metadata; choose another.'
      throw new SafetensorsError('bad-name', detail, { tensor: name })
    }
    if (!name.isWellFormed()) {
      const detail = 'the name holds half of a surrogate pair, which UTF-8 cannot hold.'
      throw new SafetensorsError('bad-name', detail, { tensor: name })
    }
    if (seen.has(name)) {
      throw new SafetensorsError('duplicate-key', 'two tensors have this name.', { tensor: name })
    }
    seen.add(name)
    if (!isDtype(dtype)) {
      const detail = `the format has no dtype ${quote(String(dtype))}; it has ${DTYPES.join(', ')}.`
      throw new SafetensorsError('unknown-dtype', detail, { tensor: name })
    }
  }
}

// Built member by member: in a plain object, names like `7` would move and `__proto__` would go.
function metadataMember(metadata: MetadataInput): string {
  const pairs = metadata instanceof Map ? [...metadata] : Object.entries(metadata)
  const members = pairs.map(([key, value]) => {
    const text = typeof value === 'string' && value.isWellFormed() && key.isWellFormed()
    if (!text) {
      const detail = `the metadata under ${quote(String(key))} must be a string of whole characters.`
      throw new SafetensorsError('bad-metadata', detail)
    }
    return `${JSON.stringify(key)}:${JSON.stringify(value)}`
  })
  return `${JSON.stringify(METADATA_KEY)}:{${members.join(',')}}`
}

function encodeHead(json: string): Uint8Array {
  const text = new TextEncoder().encode(json)
  const length = Math.ceil(text.byteLength / 8) * 8
  if (length > MAX_HEADER_BYTES) {
    const detail = `the header would take ${length} bytes, more than the ${MAX_HEADER_BYTES} allowed; split the model over several files.`
    throw new SafetensorsError('header-too-large', detail)
  }
  const head = new Uint8Array(LENGTH_BYTES + length).fill(0x20)
  new DataView(head.buffer).setBigUint64(0, BigInt(length), true)
  head.set(text, LENGTH_BYTES)
  return head
}

// JavaScript compares UTF-16 units, where surrogates (U+10000 and up) stand below U+E000 to
// U+FFFF; UTF-8 bytes compare as the characters themselves do.
function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let index = 0; index < length; index++) {
    const left = a.charCodeAt(index)
    const right = b.charCodeAt(index)
    if (left !== right) return rank(left) - rank(right)
  }
  return a.length - b.length
}

function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
}

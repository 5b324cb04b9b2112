import { SafetensorsError } from './error.ts'
import { LENGTH_BYTES, parseHeader, parseHeaderLength, type TensorInfo } from './header.ts'
import { readExactly, type SafetensorsInput, type Source, toSource } from './source.ts'

/** Tensors that can be read by name, from one file or from several. */
export interface Safetensors {
  /** The free-form strings of the header (`__metadata__`); empty when there are none. */
  readonly metadata: ReadonlyMap<string, string>
  /** Every tensor by name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /**
   * Reads the bytes of a tensor: little-endian, row-major, `end - begin` of them, in memory that
   * any typed array can view.
   *
   * @throws SafetensorsError `tensor-not-found`, `closed`, or what the source throws.
   */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>
  /**
   * Reads `byteLength` bytes of a tensor from byte `byteOffset` of it.
   *
   * @throws SafetensorsError `out-of-range`, or as `read` does.
   */
  readRange(name: string, byteOffset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>>
  /** Closes what the source holds open; reading afterwards is refused. Can be called twice. */
  close(): Promise<void>
}

/** One opened safetensors file. */
export interface SafetensorsFile extends Safetensors {
  /** What the file is called in errors, when known. */
  readonly name: string | undefined
  /** Size of the whole file. */
  readonly byteLength: number
}

/** Settings of {@link openSafetensors}. */
export interface OpenOptions {
  /** What to call the file in errors; otherwise the source's own name, if it has one. */
  readonly name?: string
}

/**
 * Opens a safetensors file: reads and checks its header, and none of the tensors.
 *
 * @throws SafetensorsError for anything that the format does not allow; see the README for codes.
 */
export async function openSafetensors(
  input: SafetensorsInput,
  options: OpenOptions = {},
): Promise<SafetensorsFile> {
  const source = await toSource(input)
  const file = options.name ?? source.name
  if (source.size < LENGTH_BYTES) {
    const detail = `the file has ${source.size} bytes; a safetensors file has at least ${LENGTH_BYTES}.`
    throw new SafetensorsError('too-short', detail, { file })
  }
  const prefix = await readExactly(source, 0, LENGTH_BYTES, { file })
  const length = parseHeaderLength(prefix, source.size, file)
  const bytes = await readExactly(source, LENGTH_BYTES, length, { file })
  const header = parseHeader(bytes, source.size, file)
  return new OpenedFile(source, header.metadata, header.tensors, file)
}

class OpenedFile implements SafetensorsFile {
  readonly name: string | undefined
  readonly byteLength: number
  readonly metadata: ReadonlyMap<string, string>
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly #source: Source
  #closed = false

  constructor(
    source: Source,
    metadata: ReadonlyMap<string, string>,
    tensors: ReadonlyMap<string, TensorInfo>,
    name: string | undefined,
  ) {
    this.#source = source
    this.byteLength = source.size
    this.metadata = metadata
    this.tensors = tensors
    this.name = name
  }

  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { begin, end } = this.#find(name)
    return readExactly(this.#source, begin, end - begin, { file: this.name, tensor: name })
  }

  async readRange(
    name: string,
    byteOffset: number,
    byteLength: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { begin, end } = this.#find(name)
    const place = { file: this.name, tensor: name }
    const whole = end - begin
    const valid = isCount(byteOffset) && isCount(byteLength) && byteOffset + byteLength <= whole
    if (!valid) {
      const detail = `${byteLength} bytes from ${byteOffset} are not within its ${whole} bytes.`
      throw new SafetensorsError('out-of-range', detail, place)
    }
    return readExactly(this.#source, begin + byteOffset, byteLength, place)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#source.close?.()
  }

  #find(name: string): TensorInfo {
    const place = { file: this.name, tensor: name }
    if (this.#closed) {
      throw new SafetensorsError('closed', 'the file was closed; open it again to read.', place)
    }
    const info = this.tensors.get(name)
    if (info !== undefined) return info
    const detail = `the file has no such tensor among its ${this.tensors.size}; \`tensors\` lists them.`
    throw new SafetensorsError('tensor-not-found', detail, place)
  }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

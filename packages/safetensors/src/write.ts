import { orAbort } from './abort.ts'
import { messageOf, SafetensorsError } from './error.ts'
import {
  type MetadataInput,
  planSafetensors,
  type SafetensorsPlan,
  type TensorData,
  type TensorEntry,
} from './plan.ts'

/** Settings of {@link writeSafetensors}. */
export interface WriteOptions {
  /** Free-form strings to keep in the header. */
  readonly metadata?: MetadataInput
  /** Ends the writing when it aborts, even while a tensor's data hangs. */
  readonly signal?: AbortSignal
}

/**
 * Writes a safetensors file as a stream of bytes: first the header, then the data of one tensor
 * after the other, in the order of {@link planSafetensors}. The next tensor is asked for only when
 * the bytes of the one before have been taken, so at most one is held.
 *
 * The parts are handed on as `data` gave them; take them before asking for the next.
 *
 * @throws SafetensorsError as planSafetensors does, before the first part; later `data-length`
 * when a tensor's data is not as long as its dtype and shape say, `data-failed` with the cause
 * when it cannot be got. An abort rejects with the signal's reason.
 */
export async function* writeSafetensors(
  entries: Iterable<TensorEntry>,
  options: WriteOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  yield* streamPlan(planSafetensors(entries, options.metadata), options.signal)
}

/** Writes a file that was already laid out; see {@link writeSafetensors}. */
export async function* streamPlan(
  plan: SafetensorsPlan,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  signal?.throwIfAborted()
  yield plan.head
  for (const { entry, byteLength } of plan.tensors) {
    let written = 0
    for await (const part of partsOf(entry, signal)) {
      written += part.byteLength
      // Checked before the part goes out: what follows must not land in the next tensor.
      if (written > byteLength) throw wrongLength(entry, byteLength, `more came (${written})`)
      if (part.byteLength > 0) yield part
    }
    if (written < byteLength) throw wrongLength(entry, byteLength, `${written} came`)
  }
}

function wrongLength(entry: TensorEntry, wanted: number, came: string): SafetensorsError {
  const detail = `${entry.dtype} of shape [${entry.shape.join(', ')}] takes ${wanted} bytes but ${came}; give the data of exactly this dtype and shape.`
  return new SafetensorsError('data-length', detail, { tensor: entry.name })
}

async function* partsOf(
  entry: TensorEntry,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  signal?.throwIfAborted()
  const data = await got(entry, signal, () => entry.data())
  if (!isAsyncIterable(data)) {
    yield bytesOf(entry, data)
    return
  }
  const iterator = data[Symbol.asyncIterator]()
  let finished = false
  try {
    for (;;) {
      const next = await got(entry, signal, () => iterator.next())
      if (next.done) {
        finished = true
        return
      }
      yield bytesOf(entry, next.value)
    }
  } finally {
    // Not awaited: an iterator that hangs would keep an abort from coming through.
    if (!finished) void Promise.resolve(iterator.return?.()).catch(() => {})
  }
}

async function got<T>(
  entry: TensorEntry,
  signal: AbortSignal | undefined,
  ask: () => T | PromiseLike<T>,
): Promise<T> {
  try {
    return await orAbort(ask(), signal)
  } catch (cause) {
    signal?.throwIfAborted()
    const detail = `its data could not be got: ${messageOf(cause)}`
    throw new SafetensorsError('data-failed', detail, { tensor: entry.name, cause })
  }
}

function bytesOf(entry: TensorEntry, value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value
  const detail = 'its data is not a Uint8Array; view other typed arrays as one.'
  throw new SafetensorsError('data-failed', detail, { tensor: entry.name })
}

function isAsyncIterable(data: Awaited<TensorData>): data is AsyncIterable<Uint8Array> {
  return typeof data === 'object' && data !== null && Symbol.asyncIterator in data
}

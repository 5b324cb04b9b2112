import { SafetensorsError, type SafetensorsErrorPlace } from './error.ts'

// Bits per element. The order of the keys is the order of the reference library's `Dtype` enum,
// smallest alignment first: the writer sorts by it, so that files come out byte for byte as the
// reference library lays them out.
const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const satisfies Record<string, number>

/** An element type of the format, spelled as in the header. */
export type Dtype = keyof typeof BITS

/** Every dtype of the format, smallest alignment first (the order of the reference library). */
export const DTYPES: readonly Dtype[] = Object.freeze(Object.keys(BITS).filter(isDtype))

const RANKS: ReadonlyMap<Dtype, number> = new Map(DTYPES.map((dtype, rank) => [dtype, rank]))

/** Whether `value` names a dtype of the format (exact spelling, upper case). */
export function isDtype(value: string): value is Dtype {
  return Object.hasOwn(BITS, value)
}

/** Bits of one element: 4 or 6 for the sub-byte types, otherwise a multiple of 8. */
export function bitsPerElement(dtype: Dtype): number {
  return BITS[dtype]
}

/** Where `dtype` stands in {@link DTYPES}; larger means aligned to more bytes. */
export function alignmentRank(dtype: Dtype): number {
  return RANKS.get(dtype) ?? 0
}

/**
 * Bytes that a tensor takes in the file: the product of `shape` times the element's bits, over 8.
 * A scalar (`shape` `[]`) has one element; a dimension of 0 makes an empty tensor.
 *
 * The product is taken from left to right, each step checked, as the reference library does:
 * `[0, 2 ** 40, 2 ** 40]` is empty, `[2 ** 40, 2 ** 40, 0]` overflows. The limit here is 2^53 - 1,
 * the largest integer a JavaScript number holds exactly.
 *
 * @throws SafetensorsError `bad-shape` for a dimension that is not a whole number from 0,
 * `shape-overflow`, or `not-byte-aligned` when sub-byte elements do not fill whole bytes.
 */
export function tensorByteLength(
  dtype: Dtype,
  shape: readonly number[],
  place: SafetensorsErrorPlace = {},
): number {
  let elements = 1
  for (const dimension of shape) {
    if (!Number.isInteger(dimension) || dimension < 0) {
      const detail = `the shape holds ${dimension}; a dimension is a whole number from 0.`
      throw new SafetensorsError('bad-shape', detail, place)
    }
    elements *= dimension
    if (!Number.isSafeInteger(dimension) || !Number.isSafeInteger(elements)) {
      throw overflow(dtype, shape, place)
    }
  }
  const bits = elements * bitsPerElement(dtype)
  if (!Number.isSafeInteger(bits)) throw overflow(dtype, shape, place)
  if (bits % 8 !== 0) {
    const detail = `${elements} elements of ${dtype} are ${bits} bits, which do not fill whole bytes; pad the tensor to a multiple of 8 bits.`
    throw new SafetensorsError('not-byte-aligned', detail, place)
  }
  return bits / 8
}

function overflow(
  dtype: Dtype,
  shape: readonly number[],
  place: SafetensorsErrorPlace,
): SafetensorsError {
  const shown = shape.length > 8 ? `${shape.slice(0, 8).join(', ')}, …` : shape.join(', ')
  const detail = `shape [${shown}] of ${dtype} is more than 2^53 bits; the file is damaged or hostile.`
  return new SafetensorsError('shape-overflow', detail, place)
}

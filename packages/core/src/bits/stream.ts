/** Streams of codes of 1–16 bits: LSB first, no padding between codes, zero bits at the end. */

import { LowbitError } from '../errors.ts'
import type { PackedCodes } from '../matrix/types.ts'

/** Bytes that `count` codes of `bits` take. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8)
}

/** Packs codes; one that does not fit into `bits` is an error, never cut. */
export function packCodes(codes: ArrayLike<number>, bits: number): PackedCodes {
  checkBits(bits)
  const count = codes.length
  const data = new Uint8Array(packedBytes(count, bits))
  let highest = 0
  let i = 0
  let at = 0
  if (bits === 8) {
    for (; i < count; i++) {
      highest |= codes[i]
      data[i] = codes[i]
    }
  } else if (bits <= 4) {
    // Eight codes are as many whole bytes as a code has bits, and fit into one word.
    for (; i + 8 <= count; i += 8) {
      const [a, b, c, d] = [codes[i], codes[i + 1], codes[i + 2], codes[i + 3]]
      const [e, f, g, h] = [codes[i + 4], codes[i + 5], codes[i + 6], codes[i + 7]]
      highest |= a | b | c | d | e | f | g | h
      const low = a | (b << bits) | (c << (2 * bits)) | (d << (3 * bits))
      const high = e | (f << bits) | (g << (2 * bits)) | (h << (3 * bits))
      const word = low | (high << (4 * bits))
      for (let byte = 0; byte < bits; byte++) data[at++] = word >>> (8 * byte)
    }
  }
  let buffer = 0
  let held = 0
  for (; i < count; i++) {
    highest |= codes[i]
    buffer |= codes[i] << held
    held += bits
    while (held >= 8) {
      data[at++] = buffer
      buffer >>>= 8
      held -= 8
    }
  }
  if (held > 0) data[at] = buffer
  if (highest >>> bits !== 0) {
    throw new LowbitError('bad-code', `a code does not fit into ${bits} bits`)
  }
  return { bits, count, data }
}

/** The codes of a stream, one a number. */
export function unpackCodes(packed: PackedCodes): Uint16Array<ArrayBuffer> {
  const { bits, count, data } = packed
  checkBits(bits)
  if (data.length < packedBytes(count, bits)) {
    throw new LowbitError(
      'bad-codes',
      `${count} codes of ${bits} bits need ${packedBytes(count, bits)} bytes, not ${data.length}`,
    )
  }
  const codes = new Uint16Array(count)
  if (bits === 8) {
    codes.set(data.subarray(0, count))
  } else if (bits === 4) {
    for (let i = 0; i < count; i++) codes[i] = (data[i >> 1] >> ((i & 1) << 2)) & 15
  } else {
    const mask = 2 ** bits - 1
    let buffer = 0
    let held = 0
    let at = 0
    for (let i = 0; i < count; i++) {
      while (held < bits) {
        buffer |= data[at++] << held
        held += 8
      }
      codes[i] = buffer & mask
      buffer >>>= bits
      held -= bits
    }
  }
  return codes
}

function checkBits(bits: number): void {
  if (!Number.isInteger(bits) || bits < 1 || bits > 16) {
    throw new LowbitError('bad-bits', `codes have 1 to 16 bits, not ${bits}`)
  }
}

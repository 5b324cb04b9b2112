/** As much of protobuf's wire format as ONNX files need. */

export function varint(value: number | bigint): Buffer {
  let left = BigInt.asUintN(64, BigInt(value))
  const bytes: number[] = []
  do {
    const low = Number(left & 127n)
    left >>= 7n
    bytes.push(left > 0n ? low | 128 : low)
  } while (left > 0n)
  return Buffer.from(bytes)
}

/** Field of an integer. */
export function integer(field: number, value: number | bigint): Buffer {
  return Buffer.concat([varint(field << 3), varint(value)])
}

/** Field of a 32-bit float. */
export function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([varint((field << 3) | 5), bytes])
}

/** Field of bytes: a string, a nested message, raw data. */
export function bytes(field: number, value: string | Uint8Array | readonly Uint8Array[]): Buffer {
  const parts =
    typeof value === 'string' ? [Buffer.from(value)] : value instanceof Uint8Array ? [value] : value
  const length = parts.reduce((sum, part) => sum + part.byteLength, 0)
  return Buffer.concat([varint((field << 3) | 2), varint(length), ...parts])
}

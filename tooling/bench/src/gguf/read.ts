/** The metadata of a GGUF file, as it stands. */

const SCALAR_BYTES: Readonly<Record<number, number>> = {
  ...{ 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 },
}
const STRING = 8
const ARRAY = 9

export interface Metadata {
  readonly count: number
  /** The key-value pairs, unread. */
  readonly bytes: Buffer
}

export function readMetadata(file: Buffer): Metadata {
  if (file.toString('latin1', 0, 4) !== 'GGUF' || file.readUInt32LE(4) !== 3) {
    throw new Error('the file is no GGUF of version 3')
  }
  const count = Number(file.readBigUInt64LE(16))
  let at = 24
  const size = () => {
    at += 8
    return Number(file.readBigUInt64LE(at - 8))
  }
  const skipString = () => {
    const length = size()
    at += length
  }
  const type = () => {
    at += 4
    return file.readUInt32LE(at - 4)
  }
  function skipValue(kind: number): void {
    if (kind === STRING) skipString()
    else if (kind === ARRAY) {
      const element = type()
      const length = size()
      if (element in SCALAR_BYTES) at += length * SCALAR_BYTES[element]
      else for (let i = 0; i < length; i++) skipValue(element)
    } else at += SCALAR_BYTES[kind]
  }
  for (let i = 0; i < count; i++) {
    skipString()
    skipValue(type())
  }
  return { count, bytes: file.subarray(24, at) }
}

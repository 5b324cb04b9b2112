/** Numbers ↔ the bytes of their type. */

import { packCodes, packedBytes, unpackCodes } from '../bits/stream.ts'
import { LowbitError } from '../errors.ts'
import type { Numbers, NumberType } from '../matrix/types.ts'
import { decodeFloat, encodeFloat, FLOAT_FORMATS } from './float.ts'
import { fromFloat32, toFloat32 } from './half.ts'

/** Rounds to the nearest values of a type, saturating. */
export function toNumbers(type: NumberType, values: ArrayLike<number>): Numbers {
  const round = rounder(type)
  const out = new Float32Array(values.length)
  for (let i = 0; i < out.length; i++) out[i] = round(values[i])
  return { type, values: out }
}

function rounder(type: NumberType): (x: number) => number {
  if (type === 'f32') return Math.fround
  // + 0: integers have no −0.
  if (type === 'i8') return (x) => Math.min(127, Math.max(-128, Math.round(x))) + 0
  if (isUnsigned(type)) {
    const top = 2 ** unsignedBits(type) - 1
    return (x) => Math.min(top, Math.max(0, Math.round(x))) + 0
  }
  const format = FLOAT_FORMATS[type]
  return (x) => decodeFloat(format, encodeFloat(format, x))
}

type UnsignedType = Extract<NumberType, `u${number}`>
const isUnsigned = (type: NumberType): type is UnsignedType => type.startsWith('u')
const unsignedBits = (type: UnsignedType): number => Number(type.slice(1))

/** Bytes that `count` numbers take; integers of u1 … u7 are packed as a bit stream. */
export function numbersBytes(type: NumberType, count: number): number {
  if (type === 'f32') return 4 * count
  if (type === 'f16' || type === 'bf16') return 2 * count
  return isUnsigned(type) ? packedBytes(count, unsignedBits(type)) : count
}

/** Little-endian bytes. */
export function storeNumbers({ type, values }: Numbers): Uint8Array<ArrayBuffer> {
  if (type === 'f32') return new Uint8Array(Float32Array.from(values).buffer)
  if (type === 'f16' || type === 'bf16') return new Uint8Array(fromFloat32(type, values).buffer)
  if (type === 'i8') return new Uint8Array(Int8Array.from(values).buffer)
  if (isUnsigned(type)) {
    return new Uint8Array(packCodes(Uint8Array.from(values), unsignedBits(type)).data)
  }
  const format = FLOAT_FORMATS[type]
  return Uint8Array.from(values, (x) => encodeFloat(format, x))
}

/** The other way round. `count` is needed for packed integers; bytes of the wrong length are an error. */
export function loadNumbers(type: NumberType, bytes: Uint8Array, count: number): Numbers {
  if (bytes.length !== numbersBytes(type, count)) {
    throw new LowbitError(
      'bad-tensor',
      `${count} numbers of type ${type} take ${numbersBytes(type, count)} bytes, not ${bytes.length}`,
    )
  }
  const aligned = new Uint8Array(bytes)
  if (type === 'f32') return { type, values: new Float32Array(aligned.buffer) }
  if (type === 'f16' || type === 'bf16') {
    return { type, values: toFloat32(type, new Uint16Array(aligned.buffer)) }
  }
  if (type === 'i8') return { type, values: Float32Array.from(new Int8Array(aligned.buffer)) }
  if (isUnsigned(type)) {
    const codes = unpackCodes({ bits: unsignedBits(type), count, data: aligned })
    return { type, values: Float32Array.from(codes) }
  }
  const format = FLOAT_FORMATS[type]
  return { type, values: Float32Array.from(aligned, (code) => decodeFloat(format, code)) }
}

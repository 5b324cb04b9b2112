/** Tensors' bytes ↔ typed arrays, with the tensor's name in every error. */

import { LowbitError, type RawTensor, type StoredModule, tensorName } from '@lowbit/core'

/** A tensor of the expected type and shape (−1 leaves a dimension open), or an error with its name. */
export function expectTensor(
  module: string,
  tensors: StoredModule,
  name: string,
  dtype: string,
  shape?: readonly number[],
): RawTensor {
  const full = tensorName(module, name)
  const tensor = tensors.get(name)
  if (!tensor)
    throw new LowbitError('missing-tensor', 'the checkpoint lacks a tensor', { tensor: full })
  if (tensor.dtype !== dtype) {
    throw new LowbitError('bad-tensor', `is ${tensor.dtype}, must be ${dtype}`, { tensor: full })
  }
  if (
    shape &&
    (shape.length !== tensor.shape.length ||
      shape.some((size, i) => size >= 0 && size !== tensor.shape[i]))
  ) {
    const wanted = shape.map((size) => (size < 0 ? '?' : size)).join(' × ')
    throw new LowbitError('bad-shape', `is ${tensor.shape.join(' × ')}, must be ${wanted}`, {
      tensor: full,
    })
  }
  const expected = tensor.shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[dtype]
  if (tensor.bytes.length !== expected) {
    throw new LowbitError('bad-tensor', `has ${tensor.bytes.length} bytes, needs ${expected}`, {
      tensor: full,
    })
  }
  return tensor
}

export const DTYPE_BYTES: Readonly<Record<string, number>> = {
  F32: 4,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  I8: 1,
  U8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
}

/** A buffer of its own that any typed array can view. */
function aligned(bytes: Uint8Array): ArrayBuffer {
  return bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength
    ? (bytes.buffer as ArrayBuffer)
    : new Uint8Array(bytes).buffer
}

export const asUint16 = (tensor: RawTensor): Uint16Array => new Uint16Array(aligned(tensor.bytes))
export const asUint32 = (tensor: RawTensor): Uint32Array => new Uint32Array(aligned(tensor.bytes))
export const asFloat32 = (tensor: RawTensor): Float32Array =>
  new Float32Array(aligned(tensor.bytes))

export function rawTensor(
  dtype: string,
  shape: readonly number[],
  values: ArrayBufferView,
): RawTensor {
  return {
    dtype,
    shape,
    bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  }
}

/** Tensors: handles of spans of the device's memory, each number in as many bytes as its type has. */

import { type Kernels, LowbitError, type Tensor, type TensorValues } from '@lowbit/core'
import type { Device, Span } from './driver/device.ts'

export interface CudaTensor extends Tensor, Span {
  /** A view of another tensor: not freed by itself. */
  readonly view: boolean
  /** Shared with the views of the same memory. */
  readonly state: { freed: boolean }
}

const TYPES = { f32: Float32Array, u8: Uint8Array, u16: Uint16Array, u32: Uint32Array } as const

const bytesOf = (type: Tensor['type']): number => TYPES[type].BYTES_PER_ELEMENT

const shapeOf = (tensor: Tensor): string => `${tensor.rows} × ${tensor.columns}`

const known = new WeakSet<Tensor>()

/** The handle as this package made it; an error where it was freed or has another type. */
export function own(tensor: Tensor, type: Tensor['type'] = 'f32'): CudaTensor {
  if (!known.has(tensor)) {
    throw new LowbitError('bad-tensor', 'a tensor of other kernels was given to those of CUDA')
  }
  const handle = tensor as CudaTensor
  if (handle.state.freed) throw new LowbitError('bad-tensor', 'a tensor was used after being freed')
  if (handle.type !== type) {
    throw new LowbitError('bad-tensor', `a tensor of ${type} is needed, not of ${handle.type}`)
  }
  return handle
}

/** Like `own`, and its shape must be this one. */
export function expect(
  tensor: Tensor,
  rows: number,
  columns: number,
  what: string,
  type: Tensor['type'] = 'f32',
): CudaTensor {
  if (tensor.rows !== rows || tensor.columns !== columns) {
    throw new LowbitError('bad-shape', `${what} is ${shapeOf(tensor)}, not ${rows} × ${columns}`)
  }
  return own(tensor, type)
}

export function checkIndices(indices: Uint32Array, below: number): void {
  if (indices.some((index) => index >= below)) {
    throw new LowbitError('bad-shape', `an index lies beyond the ${below} that there are`)
  }
}

/** Blocks of a kernel that does one of `count` elements a thread. */
export const blocksOf = (count: number): number => Math.ceil(count / 128)

const typeOf = (values: TensorValues): Tensor['type'] => {
  if (values instanceof Float32Array) return 'f32'
  if (values instanceof Uint32Array) return 'u32'
  return values instanceof Uint16Array ? 'u16' : 'u8'
}

type Operations = Pick<
  Kernels,
  'tensor' | 'upload' | 'write' | 'rows' | 'read' | 'readCodes' | 'readWords' | 'copy' | 'free'
>

export function tensorOperations(device: Device): Operations {
  function hold(tensor: CudaTensor): CudaTensor {
    known.add(tensor)
    return tensor
  }

  function make(rows: number, columns: number, type: Tensor['type']): CudaTensor {
    if (!(Number.isInteger(rows) && Number.isInteger(columns) && rows >= 0 && columns >= 0)) {
      throw new LowbitError('bad-shape', `no tensor is ${rows} × ${columns}`)
    }
    const span = device.allocate(rows * columns * bytesOf(type))
    return hold({ ...span, rows, columns, type, view: false, state: { freed: false } })
  }

  function readInto<T extends TensorValues>(tensor: CudaTensor): T {
    const values = new TYPES[tensor.type](tensor.rows * tensor.columns)
    device.read(tensor, values)
    return values as T
  }

  return {
    tensor(rows, columns, type = 'f32') {
      const tensor = make(rows, columns, type)
      device.zero(tensor)
      return tensor
    },
    upload(values, rows, columns) {
      if (values.length !== rows * columns) {
        throw new LowbitError('bad-shape', `${values.length} values are not ${rows} × ${columns}`)
      }
      const tensor = make(rows, columns, typeOf(values))
      device.write(tensor, values)
      return tensor
    },
    write(target, values, row = 0) {
      const tensor = own(target, target.type)
      if (typeOf(values) !== tensor.type) {
        const what = `values of ${typeOf(values)}`
        throw new LowbitError('bad-tensor', `${what} are written to a tensor of ${tensor.type}`)
      }
      const rows = values.length / tensor.columns
      if (!Number.isInteger(rows) || row < 0 || row + rows > tensor.rows) {
        const what = `${values.length} values from row ${row} on`
        throw new LowbitError('bad-shape', `${what} do not fit into ${shapeOf(tensor)}`)
      }
      const before = row * tensor.columns * bytesOf(tensor.type)
      device.write({ address: tensor.address + before, bytes: values.byteLength }, values)
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      if (!(from >= 0 && from <= to && to <= tensor.rows)) {
        throw new LowbitError('bad-shape', `no rows ${from} to ${to} in ${shapeOf(tensor)}`)
      }
      const row = tensor.columns * bytesOf(tensor.type)
      const [address, bytes] = [tensor.address + from * row, (to - from) * row]
      return hold({ ...tensor, rows: to - from, address, bytes, view: true })
    },
    // The copy is made at the call, so that what is queued later is not seen.
    async read(source) {
      return readInto(own(source))
    },
    async readCodes(source) {
      return readInto(own(source, source.type === 'u16' ? 'u16' : 'u8'))
    },
    async readWords(source) {
      return readInto(own(source, 'u32'))
    },
    copy(target, source) {
      const x = own(source, source.type)
      device.copy(expect(target, x.rows, x.columns, 'out', x.type), x)
    },
    free(...tensors) {
      for (const each of tensors) {
        const tensor = own(each, each.type)
        if (tensor.view) continue
        tensor.state.freed = true
        device.release(tensor)
      }
    },
  }
}

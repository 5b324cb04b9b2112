/** Tensors: handles of spans of the device's buffers. Codes take a word each, so that no two threads share one. */

import { type Kernels, LowbitError, type Tensor, type TensorValues } from '@lowbit/core'
import type { Device, Span } from './gpu/device.ts'

export interface GpuTensor extends Tensor, Span {
  /** A view of another tensor: not freed by itself. */
  readonly view: boolean
  /** Shared with the views of the same memory. */
  readonly state: {
    freed: boolean
    /** Codes are below this. */
    below: number
  }
}

export function shapeOf(tensor: Tensor): string {
  return `${tensor.rows} × ${tensor.columns}`
}

const known = new WeakSet<Tensor>()

/** The handle as this package made it; an error where it was freed or has another type. */
export function own(tensor: Tensor, type: Tensor['type'] = 'f32'): GpuTensor {
  if (!known.has(tensor)) {
    throw new LowbitError('bad-tensor', 'a tensor of other kernels was given to those of the GPU')
  }
  const handle = tensor as GpuTensor
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
): GpuTensor {
  if (tensor.rows !== rows || tensor.columns !== columns) {
    throw new LowbitError('bad-shape', `${what} is ${shapeOf(tensor)}, not ${rows} × ${columns}`)
  }
  return own(tensor, type)
}

/** Codes that an operation writes, all below `below`. */
export function expectCodes(
  tensor: Tensor,
  rows: number,
  columns: number,
  below: number,
  type: 'u8' | 'u16',
): GpuTensor {
  const codes = expect(tensor, rows, columns, 'codes', type)
  codes.state.below = Math.max(codes.state.below, below)
  return codes
}

export function checkOrder(order: Uint32Array, columns: number): void {
  if (order.some((index) => index >= columns)) {
    throw new LowbitError('bad-shape', `an index lies beyond the ${columns} that there are`)
  }
}

function typeOf(values: TensorValues): Tensor['type'] {
  if (values instanceof Float32Array) return 'f32'
  if (values instanceof Uint32Array) return 'u32'
  return values instanceof Uint16Array ? 'u16' : 'u8'
}

type Operations = Pick<
  Kernels,
  'tensor' | 'upload' | 'write' | 'rows' | 'read' | 'readCodes' | 'readWords' | 'copy' | 'free'
>

export function tensorOperations(device: Device): Operations {
  function hold(tensor: GpuTensor): GpuTensor {
    known.add(tensor)
    return tensor
  }

  function make(rows: number, columns: number, type: Tensor['type'], values?: TensorValues) {
    if (!(Number.isInteger(rows) && Number.isInteger(columns) && rows >= 0 && columns >= 0)) {
      throw new LowbitError('bad-shape', `no tensor is ${rows} × ${columns}`)
    }
    const span = device.allocate(rows * columns, values && words(values))
    const state = { freed: false, below: 1 }
    if (values) note(state, values)
    return hold({ ...span, rows, columns, type, view: false, state })
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
      return make(rows, columns, typeOf(values), values)
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
      note(tensor.state, values)
      device.write({ ...tensor, at: tensor.at + row * tensor.columns }, words(values))
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      if (!(from >= 0 && from <= to && to <= tensor.rows)) {
        throw new LowbitError('bad-shape', `no rows ${from} to ${to} in ${shapeOf(tensor)}`)
      }
      const { columns } = tensor
      return hold({
        ...tensor,
        ...{ rows: to - from, at: tensor.at + from * columns, length: (to - from) * columns },
        view: true,
      })
    },
    async read(source) {
      return new Float32Array(await device.read(own(source)))
    },
    async readCodes(source) {
      const type = source.type === 'u16' ? 'u16' : 'u8'
      const codes = new Uint32Array(await device.read(own(source, type)))
      return type === 'u16' ? Uint16Array.from(codes) : Uint8Array.from(codes)
    },
    async readWords(source) {
      return new Uint32Array(await device.read(own(source, 'u32')))
    },
    copy(target, source) {
      const x = own(source, source.type)
      const out = expect(target, x.rows, x.columns, 'out', x.type)
      out.state.below = Math.max(out.state.below, x.state.below)
      device.copy(out, x)
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

const words = (values: TensorValues): Float32Array | Uint32Array =>
  values instanceof Float32Array || values instanceof Uint32Array
    ? values
    : Uint32Array.from(values)

function note(state: GpuTensor['state'], values: TensorValues): void {
  if (values instanceof Float32Array || values instanceof Uint32Array) return
  for (const code of values) if (code >= state.below) state.below = code + 1
}

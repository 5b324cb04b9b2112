/** Tensors: handles of blocks of the linear memory. */

import { type Kernels, LowbitError, type Tensor, type TensorValues } from '@lowbit/core'
import type { Device } from './device.ts'

export interface CpuTensor extends Tensor {
  readonly at: number
  /** A view of another tensor: not freed by itself. */
  readonly view: boolean
  /** Whether the memory is still its own; views share the state of what they look at. */
  readonly state: { freed: boolean }
}

export function shapeOf(tensor: Tensor): string {
  return `${tensor.rows} × ${tensor.columns}`
}

/** The handle as this package made it; an error where it was freed or has another type. */
export function own(tensor: Tensor, type: Tensor['type'] = 'f32'): CpuTensor {
  const handle = tensor as CpuTensor
  if (typeof handle.at !== 'number') {
    throw new LowbitError('bad-tensor', 'a tensor of other kernels was given to the CPU kernels')
  }
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
): CpuTensor {
  if (tensor.rows !== rows || tensor.columns !== columns) {
    throw new LowbitError('bad-shape', `${what} is ${shapeOf(tensor)}, not ${rows} × ${columns}`)
  }
  return own(tensor, type)
}

/** Bytes of one number. */
export const SIZE = { f32: 4, u32: 4, u16: 2, u8: 1 } as const

function typeOf(values: TensorValues): Tensor['type'] {
  if (values instanceof Float32Array) return 'f32'
  if (values instanceof Uint32Array) return 'u32'
  return values instanceof Uint16Array ? 'u16' : 'u8'
}

type Operations = Pick<
  Kernels,
  'tensor' | 'upload' | 'write' | 'rows' | 'read' | 'readCodes' | 'readWords' | 'copy' | 'free'
>

export function tensorOperations({ memory }: Device): Operations {
  function create(rows: number, columns: number, type: Tensor['type']): CpuTensor {
    if (!(Number.isInteger(rows) && Number.isInteger(columns) && rows >= 0 && columns >= 0)) {
      throw new LowbitError('bad-shape', `no tensor is ${rows} × ${columns}`)
    }
    const at = memory.allocate(rows * columns * SIZE[type])
    return { rows, columns, type, at, view: false, state: { freed: false } }
  }

  function put(tensor: CpuTensor, values: TensorValues, first: number): void {
    const view = { f32: memory.f32, u32: memory.u32, u16: memory.u16, u8: memory.u8 }[tensor.type]
    view.set(values, tensor.at / SIZE[tensor.type] + first)
  }

  function checkType(values: TensorValues, type: Tensor['type']): void {
    if (typeOf(values) !== type) {
      throw new LowbitError('bad-tensor', `the values do not have the tensor's type, ${type}`)
    }
  }

  return {
    tensor(rows, columns, type = 'f32') {
      const tensor = create(rows, columns, type)
      const bytes = rows * columns * SIZE[type]
      memory.u8.fill(0, tensor.at, tensor.at + bytes)
      return tensor
    },
    upload(values, rows, columns) {
      if (values.length !== rows * columns) {
        throw new LowbitError('bad-shape', `${values.length} values are not ${rows} × ${columns}`)
      }
      const tensor = create(rows, columns, typeOf(values))
      put(tensor, values, 0)
      return tensor
    },
    write(target, values, row = 0) {
      const tensor = own(target, target.type)
      checkType(values, tensor.type)
      const rows = values.length / tensor.columns
      if (!Number.isInteger(rows) || row < 0 || row + rows > tensor.rows) {
        const what = `${values.length} values from row ${row} on`
        throw new LowbitError('bad-shape', `${what} do not fit into ${shapeOf(tensor)}`)
      }
      put(tensor, values, row * tensor.columns)
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      if (!(from >= 0 && from <= to && to <= tensor.rows)) {
        throw new LowbitError('bad-shape', `no rows ${from} to ${to} in ${shapeOf(tensor)}`)
      }
      const size = tensor.columns * SIZE[tensor.type]
      const at = tensor.at + from * size
      const { columns, type, state } = tensor
      const view: CpuTensor = { rows: to - from, columns, type, at, view: true, state }
      return view
    },
    async read(source) {
      const { at, rows, columns } = own(source)
      return memory.f32.slice(at / 4, at / 4 + rows * columns)
    },
    async readCodes(source) {
      const { at, rows, columns } = own(source, source.type === 'u16' ? 'u16' : 'u8')
      const [view, from] = source.type === 'u16' ? [memory.u16, at / 2] : [memory.u8, at]
      return view.slice(from, from + rows * columns)
    },
    async readWords(source) {
      const { at, rows, columns } = own(source, 'u32')
      return memory.u32.slice(at / 4, at / 4 + rows * columns)
    },
    copy(target, source) {
      const { at, rows, columns, type } = own(source, source.type)
      const out = expect(target, rows, columns, 'out', type).at
      memory.u8.copyWithin(out, at, at + rows * columns * SIZE[type])
    },
    free(...tensors) {
      for (const each of tensors) {
        const tensor = own(each, each.type)
        if (tensor.view) continue
        tensor.state.freed = true
        memory.release(tensor.at)
      }
    },
  }
}

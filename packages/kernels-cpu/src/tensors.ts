/** Tensors: handles of blocks of the linear memory. */

import {
  bytesOfNumber,
  bytesOfTensor,
  checkRows,
  checkSize,
  checkUpload,
  checkWrite,
  type Tensor,
  type TensorHandle,
  type TensorOperations,
  type TensorValues,
  tensorHandles,
  typeOfValues,
} from '@lowbit/core'
import type { Device } from './device.ts'

export interface CpuTensor extends TensorHandle {
  readonly at: number
}

const { owner, own, expect } = tensorHandles<CpuTensor>('the CPU kernels')

export { expect, own }

export function tensorOperations({ memory }: Device): TensorOperations {
  function create(rows: number, columns: number, type: Tensor['type']): CpuTensor {
    checkSize(rows, columns)
    const at = memory.allocate(rows * columns * bytesOfNumber(type))
    return { owner, rows, columns, type, at, view: false, state: { freed: false } }
  }

  function put(tensor: CpuTensor, values: TensorValues, first: number): void {
    const view = { f32: memory.f32, u32: memory.u32, u16: memory.u16, u8: memory.u8 }[tensor.type]
    view.set(values, tensor.at / bytesOfNumber(tensor.type) + first)
  }

  return {
    tensor(rows, columns, type = 'f32') {
      const tensor = create(rows, columns, type)
      memory.u8.fill(0, tensor.at, tensor.at + bytesOfTensor(tensor))
      return tensor
    },
    upload(values, rows, columns) {
      checkUpload(values, rows, columns)
      const tensor = create(rows, columns, typeOfValues(values))
      put(tensor, values, 0)
      return tensor
    },
    write(target, values, row = 0) {
      const tensor = own(target, target.type)
      checkWrite(tensor, values, row)
      put(tensor, values, row * tensor.columns)
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      checkRows(tensor, from, to)
      const at = tensor.at + from * tensor.columns * bytesOfNumber(tensor.type)
      return { ...tensor, rows: to - from, at, view: true }
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
      const x = own(source, source.type)
      const out = expect(target, x.rows, x.columns, 'out', x.type).at
      memory.u8.copyWithin(out, x.at, x.at + bytesOfTensor(x))
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

/** Tensors: handles of spans of the device's memory, each number in as many bytes as its type has. */

import {
  bytesOfNumber,
  type CodesHandle,
  checkRows,
  checkSize,
  checkUpload,
  checkWrite,
  codesHandles,
  noteCodes,
  TENSOR_ARRAYS,
  type Tensor,
  type TensorOperations,
  type TensorValues,
  typeOfValues,
} from '@lowbit/core'
import type { Device, Span } from './driver/device.ts'

export interface CudaTensor extends CodesHandle, Span {}

export const handles = codesHandles<CudaTensor>('those of CUDA')

export const { own, expect, expectCodes } = handles

const { owner } = handles

/** Blocks of a kernel that does one of `count` elements a thread. */
export const blocksOf = (count: number): number => Math.ceil(count / 128)

export function tensorOperations(device: Device): TensorOperations {
  function make(rows: number, columns: number, type: Tensor['type']): CudaTensor {
    checkSize(rows, columns)
    const span = device.allocate(rows * columns * bytesOfNumber(type))
    return { ...span, owner, rows, columns, type, view: false, state: { freed: false, below: 1 } }
  }

  async function readInto<T extends TensorValues>(tensor: CudaTensor): Promise<T> {
    const values = new TENSOR_ARRAYS[tensor.type](tensor.rows * tensor.columns)
    await device.read(tensor, values)
    return values as T
  }

  return {
    tensor(rows, columns, type = 'f32') {
      const tensor = make(rows, columns, type)
      device.zero(tensor)
      return tensor
    },
    upload(values, rows, columns) {
      checkUpload(values, rows, columns)
      const tensor = make(rows, columns, typeOfValues(values))
      noteCodes(tensor.state, values)
      device.write(tensor, values)
      return tensor
    },
    write(target, values, row = 0) {
      const tensor = own(target, target.type)
      checkWrite(tensor, values, row)
      noteCodes(tensor.state, values)
      const before = row * tensor.columns * bytesOfNumber(tensor.type)
      device.write({ address: tensor.address + before, bytes: values.byteLength }, values)
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      checkRows(tensor, from, to)
      const row = tensor.columns * bytesOfNumber(tensor.type)
      const [address, bytes] = [tensor.address + from * row, (to - from) * row]
      return { ...tensor, rows: to - from, address, bytes, view: true }
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

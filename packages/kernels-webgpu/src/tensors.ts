/** Tensors: handles of spans of the device's buffers. Codes take a word each, so that no two threads share one. */

import {
  type CodesHandle,
  checkRows,
  checkSize,
  checkUpload,
  checkWrite,
  codesHandles,
  noteCodes,
  type Tensor,
  type TensorOperations,
  type TensorValues,
  typeOfValues,
} from '@lowbit/core'
import type { Device, Span } from './gpu/device.ts'

export interface GpuTensor extends CodesHandle, Span {}

export const handles = codesHandles<GpuTensor>('those of the GPU')

export const { own, expect, expectCodes } = handles

const { owner } = handles

export function tensorOperations(device: Device): TensorOperations {
  function make(rows: number, columns: number, type: Tensor['type'], values?: TensorValues) {
    checkSize(rows, columns)
    const span = device.allocate(rows * columns, values && words(values))
    const state = { freed: false, below: 1 }
    if (values) noteCodes(state, values)
    return { ...span, owner, rows, columns, type, view: false, state }
  }

  return {
    tensor(rows, columns, type = 'f32') {
      const tensor = make(rows, columns, type)
      device.zero(tensor)
      return tensor
    },
    upload(values, rows, columns) {
      checkUpload(values, rows, columns)
      return make(rows, columns, typeOfValues(values), values)
    },
    write(target, values, row = 0) {
      const tensor = own(target, target.type)
      checkWrite(tensor, values, row)
      noteCodes(tensor.state, values)
      device.write({ ...tensor, at: tensor.at + row * tensor.columns }, words(values))
    },
    rows(source, from, to) {
      const tensor = own(source, source.type)
      checkRows(tensor, from, to)
      const { columns } = tensor
      return {
        ...tensor,
        ...{ rows: to - from, at: tensor.at + from * columns, length: (to - from) * columns },
        view: true,
      }
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

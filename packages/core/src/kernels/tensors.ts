/** What all kernels ask of the tensors that they are given: that they are their own, not freed, of a type and a shape. */

import { LowbitError } from '../errors.ts'
import type { Tensor, TensorType, TensorValues } from '../plugins/kernels.ts'

/** The typed array of each type. */
export const TENSOR_ARRAYS = {
  ...{ f32: Float32Array, u32: Uint32Array },
  ...{ u16: Uint16Array, u8: Uint8Array },
} as const

export const bytesOfNumber = (type: TensorType): number => TENSOR_ARRAYS[type].BYTES_PER_ELEMENT

export const bytesOfTensor = ({ rows, columns, type }: Tensor): number =>
  rows * columns * bytesOfNumber(type)

export function typeOfValues(values: TensorValues): TensorType {
  if (values instanceof Float32Array) return 'f32'
  if (values instanceof Uint32Array) return 'u32'
  return values instanceof Uint16Array ? 'u16' : 'u8'
}

export const shapeOf = ({ rows, columns }: Pick<Tensor, 'rows' | 'columns'>): string =>
  `${rows} × ${columns}`

export function checkShape(tensor: Tensor, rows: number, columns: number, what: string): void {
  if (tensor.rows === rows && tensor.columns === columns) return
  const is = shapeOf(tensor)
  throw new LowbitError('bad-shape', `${what} is ${is}, not ${shapeOf({ rows, columns })}`)
}

/** A tensor as the kernels that made it hold it. */
export interface TensorHandle extends Tensor {
  /** Of the kernels: what `tensorHandles` gave. */
  readonly owner: symbol
  /** A view of another tensor: not freed by itself. */
  readonly view: boolean
  /** Shared with the views of the same memory. */
  readonly state: { freed: boolean }
}

export interface TensorHandles<Handle extends TensorHandle> {
  readonly owner: symbol
  /** The handle; an error where others made it, where it was freed or has another type (default: f32). */
  own(tensor: Tensor, type?: TensorType): Handle
  /** Like `own`, and its shape must be this one. */
  expect(tensor: Tensor, rows: number, columns: number, what: string, type?: TensorType): Handle
}

/** @param kernels for messages: "the CPU kernels" */
export function tensorHandles<Handle extends TensorHandle>(kernels: string): TensorHandles<Handle> {
  const owner = Symbol(kernels)
  const refuse = (why: string): never => {
    throw new LowbitError('bad-tensor', why)
  }
  function own(tensor: Tensor, type: TensorType = 'f32'): Handle {
    const handle = tensor as Handle
    if (handle.owner !== owner) refuse(`a tensor of other kernels was given to ${kernels}`)
    if (handle.state.freed) refuse('a tensor was used after being freed')
    if (handle.type !== type) refuse(`a tensor of ${type} is needed, not of ${handle.type}`)
    return handle
  }
  return {
    ...{ owner, own },
    expect(tensor, rows, columns, what, type) {
      checkShape(tensor, rows, columns, what)
      return own(tensor, type)
    },
  }
}

/** For a tensor that is to be made. */
export function checkSize(rows: number, columns: number): void {
  if (Number.isInteger(rows) && Number.isInteger(columns) && rows >= 0 && columns >= 0) return
  throw new LowbitError('bad-shape', `no tensor is ${shapeOf({ rows, columns })}`)
}

export function checkUpload(values: TensorValues, rows: number, columns: number): void {
  if (values.length === rows * columns) return
  const shape = shapeOf({ rows, columns })
  throw new LowbitError('bad-shape', `${values.length} values are not ${shape}`)
}

export function checkWrite(tensor: Tensor, values: TensorValues, row: number): void {
  const type = typeOfValues(values)
  if (type !== tensor.type) {
    const what = `values of ${type}`
    throw new LowbitError('bad-tensor', `${what} are written to a tensor of ${tensor.type}`)
  }
  const rows = values.length / tensor.columns
  if (Number.isInteger(rows) && row >= 0 && row + rows <= tensor.rows) return
  const what = `${values.length} values from row ${row} on`
  throw new LowbitError('bad-shape', `${what} do not fit into ${shapeOf(tensor)}`)
}

export function checkRows(tensor: Tensor, from: number, to: number): void {
  if (from >= 0 && from <= to && to <= tensor.rows) return
  throw new LowbitError('bad-shape', `no rows ${from} to ${to} in ${shapeOf(tensor)}`)
}

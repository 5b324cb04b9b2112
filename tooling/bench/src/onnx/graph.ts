/** ONNX models from nodes and tensors; the numbers are those of onnx.proto. */

import { bytes, float, integer } from './protobuf.ts'

export const MICROSOFT = 'com.microsoft'

const ELEMENT = { f32: 1, u8: 2, i32: 6, i64: 7, f16: 10 } as const
export type Element = keyof typeof ELEMENT

/** A float attribute is written as `{ float: 1e-5 }`. */
export type Attributes = Readonly<Record<string, number | { readonly float: number }>>

export function node(
  operation: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Attributes = {},
  domain = '',
): Buffer {
  return bytes(1, [
    ...inputs.map((name) => bytes(1, name)),
    ...outputs.map((name) => bytes(2, name)),
    bytes(3, outputs[0]),
    bytes(4, operation),
    ...Object.entries(attributes).map(([name, value]) =>
      typeof value === 'number'
        ? bytes(5, [bytes(1, name), integer(3, value), integer(20, 2)])
        : bytes(5, [bytes(1, name), float(2, value.float), integer(20, 1)]),
    ),
    bytes(7, domain),
  ])
}

/** A constant of the model. */
export function tensor(
  name: string,
  element: Element,
  shape: readonly number[],
  values: ArrayBufferView,
): Buffer {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  return bytes(5, [
    ...shape.map((size) => integer(1, size)),
    integer(2, ELEMENT[element]),
    bytes(8, name),
    bytes(9, data),
  ])
}

function value(
  field: number,
  name: string,
  element: Element,
  shape: readonly (number | string)[],
): Buffer {
  const dimensions = shape.map((size) =>
    bytes(1, [typeof size === 'number' ? integer(1, size) : bytes(2, size)]),
  )
  const type = bytes(1, [integer(1, ELEMENT[element]), bytes(2, dimensions)])
  return bytes(field, [bytes(1, name), bytes(2, [type])])
}

export const input = (name: string, element: Element, shape: readonly (number | string)[]) =>
  value(11, name, element, shape)
export const output = (name: string, element: Element, shape: readonly (number | string)[]) =>
  value(12, name, element, shape)

/** A model of opset 18 from the parts above, in any order. */
export function model(parts: readonly Buffer[]): Buffer {
  return Buffer.concat([
    integer(1, 10),
    bytes(2, 'lowbit-bench'),
    bytes(7, [...parts, bytes(2, 'graph')]),
    bytes(8, [bytes(1, ''), integer(2, 18)]),
    bytes(8, [bytes(1, MICROSOFT), integer(2, 1)]),
  ])
}

export interface Nbits {
  readonly rows: number
  readonly columns: number
  readonly bits: number
  readonly group: number
  /** [rows][group][packed], each group padded to whole ones. */
  readonly codes: Uint8Array
  /** [rows][group] */
  readonly scales: Float32Array
}

/** y = x · Wᵀ with MatMulNBits; symmetric, so no zero points. */
export function matMulNbits(
  name: string,
  x: string,
  y: string,
  weight: Nbits,
  accuracyLevel: number,
): Buffer[] {
  const { rows, columns, bits, group } = weight
  const groups = Math.ceil(columns / group)
  return [
    tensor(`${name}.codes`, 'u8', [rows, groups, (group * bits) / 8], weight.codes),
    tensor(`${name}.scales`, 'f32', [rows * groups], weight.scales),
    node(
      'MatMulNBits',
      [x, `${name}.codes`, `${name}.scales`],
      [y],
      { K: columns, N: rows, bits, block_size: group, accuracy_level: accuracyLevel },
      MICROSOFT,
    ),
  ]
}

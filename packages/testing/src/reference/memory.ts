/** Tensors as typed arrays, with everything checked that a faster set of kernels might forget. */

import { type Kernels, LowbitError, type Tensor, type TensorValues } from '@lowbit/core'

/** Memory that a tensor and the views of its rows share. */
interface Allocation {
  live: boolean
  readonly bytes: number
}

interface Held extends Tensor {
  readonly data: TensorValues
  readonly allocation: Allocation
  readonly view: boolean
}

type MemoryOperations = Pick<
  Kernels,
  'tensor' | 'upload' | 'write' | 'rows' | 'read' | 'readCodes' | 'readWords' | 'copy' | 'free'
>

export interface Memory {
  readonly operations: MemoryOperations
  /** The numbers of a live f32 tensor, row-major; what is written to them is in the tensor. */
  floats(tensor: Tensor): Float32Array
  /** The codes of a live tensor of u8 or u16, or its words. */
  codes(tensor: Tensor): Uint8Array | Uint16Array | Uint32Array
  readonly bytes: number
  /** Counts memory that is no tensor (a loaded weight). */
  count(bytes: number): void
  /** Nothing works after this. */
  close(): void
}

export function createMemory(): Memory {
  const known = new WeakSet<Tensor>()
  let bytes = 0
  let open = true

  const hold = (data: TensorValues, rows: number, columns: number, shared?: Allocation): Held => {
    const type = typeOf(data)
    const allocation = shared ?? { live: true, bytes: data.byteLength }
    const tensor: Held = { rows, columns, type, data, allocation, view: shared !== undefined }
    if (!shared) bytes += data.byteLength
    known.add(tensor)
    return tensor
  }

  const held = (tensor: Tensor): Held => {
    checkOpen()
    if (!known.has(tensor)) throw new LowbitError('bad-tensor', 'a tensor of other kernels')
    const mine = tensor as Held
    if (!mine.allocation.live) {
      throw new LowbitError('bad-tensor', `a ${tensor.rows} × ${tensor.columns} tensor was freed`)
    }
    return mine
  }

  const checkOpen = (): void => {
    if (!open) throw new LowbitError('disposed', 'these kernels were disposed of')
  }

  const floats = (tensor: Tensor): Float32Array => {
    const { data } = held(tensor)
    if (data instanceof Float32Array) return data
    throw new LowbitError('bad-type', 'a tensor of codes where one of f32 is needed')
  }

  const codes = (tensor: Tensor): Uint8Array | Uint16Array | Uint32Array => {
    const { data } = held(tensor)
    if (!(data instanceof Float32Array)) return data
    throw new LowbitError('bad-type', 'a tensor of f32 where one of codes is needed')
  }

  const operations: MemoryOperations = {
    tensor(rows, columns, type = 'f32') {
      checkOpen()
      checkSize(rows, columns)
      return hold(new ARRAY[type](rows * columns), rows, columns)
    },
    upload(values, rows, columns) {
      checkOpen()
      checkSize(rows, columns)
      if (values.length !== rows * columns) {
        throw new LowbitError('bad-shape', `${values.length} values for ${rows} × ${columns}`)
      }
      return hold(values.slice(), rows, columns)
    },
    write(tensor, values, row = 0) {
      const target = held(tensor).data
      if (typeOf(values) !== tensor.type) {
        throw new LowbitError(
          'bad-type',
          `values of ${typeOf(values)} for a tensor of ${tensor.type}`,
        )
      }
      const at = row * tensor.columns
      const whole = values.length % tensor.columns === 0
      if (!whole || !Number.isInteger(row) || row < 0 || at + values.length > target.length) {
        throw new LowbitError(
          'bad-shape',
          `${values.length} values do not fit a ${tensor.rows} × ${tensor.columns} tensor from row ${row} on`,
        )
      }
      target.set(values, at)
    },
    rows(tensor, from, to) {
      const { data, allocation, columns } = held(tensor)
      const integers = Number.isInteger(from) && Number.isInteger(to)
      if (!integers || from < 0 || to < from || to > tensor.rows) {
        throw new LowbitError('bad-shape', `rows ${from} to ${to} of ${tensor.rows}`)
      }
      return hold(data.subarray(from * columns, to * columns), to - from, columns, allocation)
    },
    async read(tensor) {
      return floats(tensor).slice()
    },
    async readCodes(tensor) {
      const data = codes(tensor)
      if (!(data instanceof Uint32Array)) return data.slice()
      throw new LowbitError('bad-type', 'a tensor of words where one of codes is needed')
    },
    async readWords(tensor) {
      const data = codes(tensor)
      if (data instanceof Uint32Array) return data.slice()
      throw new LowbitError('bad-type', 'a tensor of codes where one of words is needed')
    },
    copy(out, x) {
      checkShape('out', out, x.rows, x.columns)
      if (x.type !== out.type) throw new LowbitError('bad-type', `${x.type} into ${out.type}`)
      held(out).data.set(held(x).data)
    },
    free(...tensors) {
      for (const tensor of tensors) {
        const { allocation, view } = held(tensor)
        if (view) continue
        allocation.live = false
        bytes -= allocation.bytes
      }
    },
  }

  return {
    operations,
    floats,
    codes,
    get bytes() {
      return bytes
    },
    count(more) {
      checkOpen()
      bytes += more
    },
    close() {
      open = false
      bytes = 0
    },
  }
}

const ARRAY = { f32: Float32Array, u32: Uint32Array, u16: Uint16Array, u8: Uint8Array } as const

function typeOf(data: TensorValues): Tensor['type'] {
  if (data instanceof Float32Array) return 'f32'
  if (data instanceof Uint32Array) return 'u32'
  return data instanceof Uint16Array ? 'u16' : 'u8'
}

function checkSize(rows: number, columns: number): void {
  if (!Number.isInteger(rows) || !Number.isInteger(columns) || rows < 0 || columns < 0) {
    throw new LowbitError('bad-shape', `a tensor of ${rows} × ${columns} is impossible`)
  }
}

/** Throws unless the tensor is rows × columns. */
export function checkShape(what: string, tensor: Tensor, rows: number, columns: number): void {
  if (tensor.rows !== rows || tensor.columns !== columns) {
    throw new LowbitError(
      'bad-shape',
      `${what} is ${tensor.rows} × ${tensor.columns} and must be ${rows} × ${columns}`,
    )
  }
}

/** Throws unless every index is below `count`. */
export function checkIndices(what: string, indices: Uint32Array, count: number): void {
  const outside = indices.find((index) => index >= count)
  if (outside !== undefined) {
    throw new LowbitError('bad-index', `${what} names ${outside} of ${count}`)
  }
}

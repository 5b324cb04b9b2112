/** Tensors that know how large their codes may be, for kernels that would have to read them back to see it. */

import type { Tensor, TensorValues } from '../plugins/kernels.ts'
import { type TensorHandle, type TensorHandles, tensorHandles } from './tensors.ts'

export interface CodesHandle extends TensorHandle {
  readonly state: {
    freed: boolean
    /** Codes are below this. */
    below: number
  }
}

export interface CodesHandles<Handle extends CodesHandle> extends TensorHandles<Handle> {
  /** Codes that an operation writes, all below `below`. */
  expectCodes(
    tensor: Tensor,
    rows: number,
    columns: number,
    below: number,
    type: 'u8' | 'u16',
  ): Handle
}

export function codesHandles<Handle extends CodesHandle>(kernels: string): CodesHandles<Handle> {
  const handles = tensorHandles<Handle>(kernels)
  return {
    ...handles,
    expectCodes(tensor, rows, columns, below, type) {
      const codes = handles.expect(tensor, rows, columns, 'codes', type)
      codes.state.below = Math.max(codes.state.below, below)
      return codes
    },
  }
}

/** Codes that come from the host. */
export function noteCodes(state: CodesHandle['state'], values: TensorValues): void {
  if (values instanceof Float32Array || values instanceof Uint32Array) return
  for (const code of values) if (code >= state.below) state.below = code + 1
}

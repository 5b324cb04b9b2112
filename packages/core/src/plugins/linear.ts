import type { Matrix } from '../matrix/types.ts'
import type { Kernels, Tensor } from './kernels.ts'

/** Codes of a layer's input and what they mean: x ≈ scale · (grid(code) − zero). The caller frees all tensors. */
export interface QuantizedActivations {
  /** u8, shape of x. */
  readonly codes: Tensor
  /** [rows, 1] per token, [1, 1] per tensor. */
  readonly scale: Tensor
  readonly zero?: Tensor
}

/** How a layer treats its input. Not a part of the matrix. */
export interface ActivationScheme {
  readonly kind: 'activations'
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
  /** `dynamic` schemes find their scales in x itself; `static` ones were calibrated. */
  readonly range: 'dynamic' | 'static'
  quantize(kernels: Kernels, x: Tensor): QuantizedActivations
}

/** A linear layer as a checkpoint may describe it. */
export interface QuantizedLinear {
  readonly matrix: Matrix
  readonly bias?: Float32Array
  readonly activations?: ActivationScheme
}

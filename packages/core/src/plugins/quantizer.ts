import type { QuantizedMatrix } from '../matrix/types.ts'
import type { AnyPlugin } from './define.ts'
import type { Kernels, Tensor } from './kernels.ts'

/** What must be measured about a layer's inputs before its weight can be quantized. */
export interface Needs {
  /** Σ x xᵀ / tokens of the layer's inputs, [columns, columns]. */
  readonly hessian?: boolean
  /** Σ (∂loss/∂w)², [rows, columns]. */
  readonly fisher?: boolean
}

export interface QuantizeInput {
  /** The tensor's name in the checkpoint, for errors and seeds. */
  readonly name: string
  /** [rows, columns] in f32. The quantizer may overwrite it. */
  readonly weight: Tensor
  /** Present when the quantizer needs it. Shared with other matrices: not to be changed. */
  readonly hessian?: Tensor
  readonly fisher?: Tensor
  readonly kernels: Kernels
  readonly seed: number
  readonly signal?: AbortSignal
}

/** The weights that a quantizer is going to get, before the first of them comes. */
export interface PrepareInput {
  /** Tells its shared tables from those of other rules of the recipe: letters, digits and _. */
  readonly name: string
  readonly weights: readonly {
    readonly name: string
    readonly rows: number
    readonly columns: number
    /** [rows, columns] in f32; the caller frees it. */
    read(): Promise<Tensor>
  }[]
  readonly kernels: Kernels
  readonly seed: number
  readonly signal?: AbortSignal
  /** Says how far it is, 0 … 1. */
  onProgress?(done: number): void
}

/** A quantizer made of options: one weight + what was measured about its inputs → a QuantizedMatrix. */
export interface Quantizer {
  readonly kind: 'quantizer'
  readonly name: string
  /** The options with every default filled in, as a journal or a report writes them. */
  readonly options: Readonly<Record<string, unknown>>
  readonly needs: Needs
  /** One line for tables: "4 bits, groups of 128". */
  readonly label: string
  /**
   * For methods whose matrices share something (one codebook for a whole checkpoint): makes it from the
   * weights and returns the quantizer that uses it. Also called when a job goes on, and must then make
   * the same again.
   */
  prepare?(input: PrepareInput): Promise<Quantizer>
  quantize(input: QuantizeInput): Promise<QuantizedMatrix>
}

/** A factory of quantizers, whatever its options. */
export type QuantizerPlugin = AnyPlugin<Quantizer>

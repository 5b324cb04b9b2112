import type { Kernels, Tensor } from './kernels.ts'

/** What a transform may look at and change: one block's dense weights and its input activations. */
export interface BlockInput {
  /** By module name, [rows, columns]; a transform changes them in place. */
  readonly weights: ReadonlyMap<string, Tensor>
  /** By tensor name, [1, n]. */
  readonly vectors: ReadonlyMap<string, Tensor>
  /** Mean |x| of each linear's input channels, [1, columns], by module name. */
  readonly magnitudes: ReadonlyMap<string, Tensor>
  readonly kernels: Kernels
}

/** Rewrites a block so that it computes the same but quantizes better (AWQ, SmoothQuant, rotations). */
export interface Transform {
  readonly kind: 'transform'
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
  apply(block: BlockInput): Promise<void>
}

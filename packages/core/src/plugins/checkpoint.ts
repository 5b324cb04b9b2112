/** How a model's tensors are read and written, whatever the layout of the files. */

import type { Matrix } from '../matrix/types.ts'
import type { RawTensor } from './format.ts'

/** A 1-D tensor (norms, biases), in f32. */
export interface Vector {
  readonly type: 'f32' | 'f16' | 'bf16'
  readonly values: Float32Array
}

/**
 * A checkpoint opened for reading: nothing is read until asked for. Names are modules
 * ("model.layers.0.self_attn.q_proj"), whose matrix a format may keep in several tensors.
 */
export interface Checkpoint {
  /** Where it is, for messages. */
  readonly location: string
  /** The name of the layout: "dense", "gptq", "lowbit", … */
  readonly format: string
  /** config.json as it stands. */
  readonly config: Readonly<Record<string, unknown>>
  /** Modules that have a matrix, and plain vectors by their tensor name. */
  readonly modules: readonly string[]
  hasModule(module: string): boolean
  hasVector(tensor: string): boolean
  /** The module's weight. Throws with the tensor's name when it is missing or malformed. */
  readMatrix(module: string): Promise<Matrix>
  readVector(tensor: string): Promise<Vector>
  /** Vectors' tensor names. */
  readonly vectors: readonly string[]
  /** Tensors that are neither: they travel along as they are. */
  readonly rest: readonly string[]
  readRaw(tensor: string): Promise<RawTensor>
  /** Files that travel with the weights (tokenizer, generation config). */
  readonly files: readonly string[]
  readFile(name: string): Promise<Uint8Array>
  close(): Promise<void>
}

/** One module, vector or other tensor to be written. */
export type Entry =
  | { readonly module: string; readonly matrix: Matrix }
  | { readonly vector: string; readonly value: Vector }
  | { readonly tensor: string; readonly raw: RawTensor }

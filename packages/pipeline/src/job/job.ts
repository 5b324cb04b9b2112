/** What quantizing a model takes. */

import type { Checkpoint, Executor, Format, Kernels, QuantizerPlugin } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import type { Recipe } from '../recipe/recipe.ts'
import type { ModelTunerPlugin } from '../tune/end-to-end.ts'
import type { QuantizeEvent } from './report.ts'

export interface QuantizeJob {
  readonly checkpoint: Checkpoint
  readonly kernels: Kernels
  readonly recipe: Recipe
  readonly quantizers: readonly QuantizerPlugin[]
  /** What a recipe's `tune` may name; `end-to-end` by default. */
  readonly tuners?: readonly ModelTunerPlugin[]
  readonly format: Format
  /** Windows of calibration tokens; needed when a quantizer of the recipe asks for statistics. */
  readonly calibration?: readonly (readonly number[])[]
  /** Where the work is done; the finished checkpoint lies here in the end, for the caller to give it its name. */
  readonly folder: Folder
  /** Forget what an earlier, other job left in the folder. */
  readonly restart?: boolean
  readonly executor?: Executor
  readonly maxShardBytes?: number
  /**
   * Bytes of activations that may be kept: the residual streams (twice where weights are aimed at the original's outputs), which always are, and as many inputs
   * between the steps of a block as fit beside them. Beyond it linears run a second time; the result
   * is the same. Default 288 MB.
   */
  readonly keptBytes?: number
  readonly signal?: AbortSignal
  onEvent?(event: QuantizeEvent): void
}

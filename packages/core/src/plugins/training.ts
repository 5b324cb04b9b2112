/**
 * What a device must be able to do to train weights that are on their way to a palette or codebook: soft
 * assignment to entries, its gradient, weights of equal value told once, and Adam's step.
 */

import type { Tensor } from './kernels.ts'

export interface SoftAssignOptions {
  /** τ ≥ 0; 0 gives the nearest entry all (of equals the first). */
  readonly temperature: number
  /**
   * Adds Gumbel noise of this seed to the logits −|x − c|²/τ, so that an entry drawn by their softmax is the
   * largest one (Jang et al., 1611.01144). None by default.
   */
  readonly gumbel?: number
}

export interface AdamOptions {
  /** Counts from 1. */
  readonly step: number
  readonly rate: number
  /** Decay of the moments; 0.9 and 0.95. */
  readonly beta1?: number
  readonly beta2?: number
}

export interface TrainingKernels {
  /**
   * Attention of points to entries (DKM, 2108.12659, section 3): out[i, j] = softmax over j of −|x_i − table_j|² / τ,
   * x [n, d], table [k, d], out [n, k]; k is 256 at most, d 16.
   */
  softAssign(out: Tensor, x: Tensor, table: Tensor, options: SoftAssignOptions): void
  /**
   * The gradient of a softmax with regard to its logits, from that with regard to its probabilities p, row by row:
   * out = factor · p ∘ (gradient − Σ p · gradient). out may be the gradient.
   */
  softmaxGradient(out: Tensor, p: Tensor, gradient: Tensor, factor: number): void
  /**
   * The different values of x, rounded to 11 significant bits, or to 8 where 11 leave more than 65,536 of them
   * (those that f16 and bf16 have, with the exponents of f32): ascending in the first rows of `values`
   * [min(65536, size of x), 1], for each element of x which one it has (`codes`, u16), and for each value how many
   * elements (`counts`, of the shape of `values`). Returns how many values there are.
   */
  distinct(values: Tensor, counts: Tensor, codes: Tensor, x: Tensor): Promise<number>
  /**
   * Adam (Kingma & Ba, 1412.6980) without weight decay: moves x against the gradient and keeps its first and second
   * moments, all of one shape.
   */
  adam(x: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, options: AdamOptions): void
}

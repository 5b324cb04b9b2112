/**
 * What a device must be able to do to run a decoder backward: for each operation y = f(x) of the forward pass the
 * product of ∂loss/∂y with the derivative of f, in closed form. The gradient of a linear's weight is
 * `crossGram`, that of `rope` is `rope` with −sin; of attention and norms nothing has to be kept but the inputs.
 */

import type { AttentionShape, Tensor } from './kernels.ts'

export type NormKind = 'rms' | 'layer'
export type Activation = 'silu' | 'gelu' | 'gelu_erf' | 'relu'

/** Where a norm's gradients are added. */
export interface NormGradients {
  /** [rows, columns] */
  readonly input: Tensor
  /** [1, columns] each, summed over the rows. */
  readonly gain?: Tensor
  readonly bias?: Tensor
}

export interface GradientKernels {
  /**
   * out[t, n] = Σ_k a[t, k] · b[k, n]; with `accumulate` added to what out holds. For a gradient of outputs and a
   * weight [outputs, inputs] this is the gradient of the inputs.
   */
  multiplyTransposed(out: Tensor, a: Tensor, b: Tensor, options?: { accumulate?: boolean }): void
  /** Adds the gradients of `rmsNorm` or `layerNorm` of x to those given; `out` [rows, columns] is that of its output. */
  normGradient(
    gradients: NormGradients,
    out: Tensor,
    x: Tensor,
    gain: Tensor,
    options: { readonly kind: NormKind; readonly epsilon: number },
  ): void
  /** Gradients of `activate`'s inputs; they may be written over any of the tensors read. */
  activateGradient(
    gradients: { readonly gate: Tensor; readonly up?: Tensor },
    out: Tensor,
    gate: Tensor,
    up: Tensor | undefined,
    kind: Activation,
  ): void
  /**
   * Gradients of `attention`'s inputs, each of the shape of its input; keys and values that no query has seen get
   * zeros. Probabilities are computed again, a few rows of one head at a time.
   */
  attentionGradient(
    gradients: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor },
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shape: AttentionShape,
  ): void
  /** out = factor · (softmax(logits) − 1 at the target), row by row; out may be logits. */
  crossEntropyGradient(out: Tensor, logits: Tensor, targets: Uint32Array, factor: number): void
  /**
   * out = factor · (softmax(logits) − softmax(reference)), row by row: the gradient of `divergence` with regard to
   * logits. out may be logits.
   */
  divergenceGradient(out: Tensor, reference: Tensor, logits: Tensor, factor: number): void
}

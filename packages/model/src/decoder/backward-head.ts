/**
 * The end of a decoder backward: final norm, logits and a loss of them → the gradient of the residual stream.
 * Logits are made for some rows at a time and the output matrix is made dense in parts, so that neither is ever
 * held whole.
 */

import type { NormGradients, Tensor, Weight } from '@lowbit/core'
import { type BlockContext, type Norm, normalize } from './block.ts'

export interface Head {
  readonly finalNorm: Norm
  /** [vocabulary, hidden] */
  readonly output: Weight
}

export interface HeadOptions {
  /** Tensors that gradients of the final norm are added to. */
  readonly finalNorm?: Omit<NormGradients, 'input'>
  /** Numbers of logits that may be there at a time; one row at least. Default 2²⁴ (64 MiB). */
  readonly most?: number
}

/** Rows of the output matrix that are dense at a time. */
const OUTPUT_ROWS = 4096

/**
 * The gradient [tokens, hidden] of a loss by the residual stream x after the last block; the caller frees it.
 * `differentiate` gets the logits of rows `from` on and puts the loss's gradient in their place.
 */
export function backwardHead(
  context: BlockContext,
  { finalNorm, output }: Head,
  x: Tensor,
  differentiate: (logits: Tensor, from: number) => void,
  { finalNorm: sums, most = 2 ** 24 }: HeadOptions = {},
): Tensor {
  const { kernels, config } = context
  const gradient = kernels.tensor(x.rows, config.hidden)
  const norm = { kind: config.architecture.norm, epsilon: config.epsilon }
  const some = Math.max(1, Math.floor(most / output.rows))
  for (let from = 0; from < x.rows; from += some) {
    const rows = Math.min(some, x.rows - from)
    const [stream, input] = [x, gradient].map((tensor) => kernels.rows(tensor, from, from + rows))
    const hidden = kernels.tensor(rows, config.hidden)
    normalize(context, hidden, stream, finalNorm)
    const logits = kernels.tensor(rows, output.rows)
    kernels.matmul(logits, hidden, output)
    differentiate(logits, from)
    multiplyByOutput(context, hidden, logits, output)
    kernels.normGradient({ ...sums, input }, hidden, stream, finalNorm.gain, norm)
    kernels.free(hidden, logits)
  }
  return gradient
}

/** out = gradient·W */
function multiplyByOutput(
  { kernels }: BlockContext,
  out: Tensor,
  gradient: Tensor,
  output: Weight,
): void {
  for (let from = 0; from < output.rows; from += OUTPUT_ROWS) {
    const count = Math.min(OUTPUT_ROWS, output.rows - from)
    const indices = Uint32Array.from({ length: count }, (_, i) => from + i)
    const dense = kernels.tensor(count, output.columns)
    kernels.gather(dense, output, indices)
    const part = kernels.tensor(gradient.rows, count)
    kernels.permuteColumns(part, gradient, indices)
    kernels.multiplyTransposed(out, part, dense, { accumulate: from > 0 })
    kernels.free(dense, part)
  }
}

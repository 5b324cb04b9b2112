/**
 * One decoder block, cut where its linears' inputs are known, so that calibration can stop there: each
 * step runs the linears of one input and leaves the input of the next.
 */

import type { Cache, Kernels, Tensor, Weight } from '@lowbit/core'
import type { DecoderConfig } from './config.ts'

/** A linear layer in the memory of the kernels. */
export interface Linear {
  readonly weight: Weight
  readonly bias?: Tensor
}

export type Role = 'query' | 'key' | 'value' | 'attentionOutput' | 'gate' | 'up' | 'down'

export interface Norm {
  readonly gain: Tensor
  readonly bias?: Tensor
}

export interface Block {
  readonly attentionNorm: Norm
  readonly mlpNorm: Norm
  readonly queryNorm?: Norm
  readonly keyNorm?: Norm
  /** Filled when loaded, or one by one as calibration quantizes them. */
  readonly linears: Partial<Record<Role, Linear>>
}

/** What a block needs besides its own weights. */
export interface BlockContext {
  readonly kernels: Kernels
  readonly config: DecoderConfig
  readonly cos: Tensor
  readonly sin: Tensor
}

/** The linears that share one input, in the order in which a block runs them. */
export interface Step {
  readonly roles: readonly Role[]
  /** Columns of the shared input. */
  inputSize(config: DecoderConfig): number
  /** Prepares the shared input from the residual stream x (steps that start with a norm). */
  enter?(context: BlockContext, block: Block, input: Tensor, x: Tensor): void
  /**
   * Runs the step's linears on `input`. Steps in the middle of a path write the next step's input into
   * `next`; the last step of a path adds to x.
   */
  run(
    context: BlockContext,
    block: Block,
    input: Tensor,
    x: Tensor,
    next: Tensor | undefined,
    attend: Attend,
  ): void
}

/** How a block's keys and values meet its queries: through a cache, or inside the sequence alone. */
export interface Attend {
  readonly start: number
  attend(out: Tensor, q: Tensor, k: Tensor, v: Tensor): void
}

export const STEPS: readonly Step[] = [
  {
    roles: ['query', 'key', 'value'],
    inputSize: ({ hidden }) => hidden,
    enter: (context, block, input, x) => normalize(context, input, x, block.attentionNorm),
    run(context, block, input, _x, next, { start, attend }) {
      const { kernels, config, cos, sin } = context
      const { headSize, heads, keyValueHeads } = config
      const q = kernels.tensor(input.rows, heads * headSize)
      const k = kernels.tensor(input.rows, keyValueHeads * headSize)
      const v = kernels.tensor(input.rows, keyValueHeads * headSize)
      apply(kernels, q, input, block.linears.query!)
      apply(kernels, k, input, block.linears.key!)
      apply(kernels, v, input, block.linears.value!)
      kernels.rope(q, cos, sin, headSize, start)
      kernels.rope(k, cos, sin, headSize, start)
      attend(next!, q, k, v)
      kernels.free(q, k, v)
    },
  },
  {
    roles: ['attentionOutput'],
    inputSize: ({ heads, headSize }) => heads * headSize,
    run: ({ kernels }, block, input, x) =>
      accumulate(kernels, x, input, block.linears.attentionOutput!),
  },
  {
    roles: ['gate', 'up'],
    inputSize: ({ hidden }) => hidden,
    enter: (context, block, input, x) => normalize(context, input, x, block.mlpNorm),
    run({ kernels, config }, block, input, _x, next) {
      const { gate, up } = block.linears
      if (!gate) {
        apply(kernels, next!, input, up!)
        kernels.activate(next!, next!, undefined, config.activation)
        return
      }
      const other = kernels.tensor(input.rows, config.intermediate)
      apply(kernels, next!, input, gate)
      apply(kernels, other, input, up!)
      kernels.activate(next!, next!, other, config.activation)
      kernels.free(other)
    },
  },
  {
    roles: ['down'],
    inputSize: ({ intermediate }) => intermediate,
    run: ({ kernels }, block, input, x) => accumulate(kernels, x, input, block.linears.down!),
  },
]

/** The whole block: x is changed in place. `onInput` sees the shared input of each step before it is used. */
export function runBlock(
  context: BlockContext,
  block: Block,
  x: Tensor,
  attend: Attend,
  onInput?: (index: number, input: Tensor) => void,
): void {
  const { kernels, config } = context
  let input: Tensor | undefined
  STEPS.forEach((step, i) => {
    const here = input ?? kernels.tensor(x.rows, step.inputSize(config))
    step.enter?.(context, block, here, x)
    onInput?.(i, here)
    const following = STEPS[i + 1]
    const next =
      following && !following.enter
        ? kernels.tensor(x.rows, following.inputSize(config))
        : undefined
    step.run(context, block, here, x, next, attend)
    kernels.free(here)
    input = next
  })
}

/** Attention inside one sequence that starts at position 0, without keeping anything. */
export function attendWithin({ kernels, config }: BlockContext): Attend {
  return {
    start: 0,
    attend: (out, q, k, v) =>
      kernels.attention(out, q, k, v, { ...attentionShape(config), start: 0 }),
  }
}

/** Attention through a cache that holds `cache.length` positions already. */
export function attendCached({ config }: BlockContext, cache: Cache, layer: number): Attend {
  return {
    start: cache.length,
    attend(out, q, k, v) {
      cache.append(layer, k, v)
      cache.attend(layer, out, q, attentionShape(config))
    },
  }
}

export function attentionShape({ heads, keyValueHeads, headSize }: DecoderConfig) {
  return { heads, keyValueHeads, headSize, scale: 1 / Math.sqrt(headSize) }
}

export function normalize(
  { kernels, config }: BlockContext,
  out: Tensor,
  x: Tensor,
  { gain, bias }: Norm,
): void {
  if (config.architecture.norm === 'rms') kernels.rmsNorm(out, x, gain, config.epsilon)
  else kernels.layerNorm(out, x, gain, bias, config.epsilon)
}

function apply(kernels: Kernels, out: Tensor, x: Tensor, { weight, bias }: Linear): void {
  kernels.matmul(out, x, weight)
  if (bias) kernels.add(out, bias)
}

function accumulate(kernels: Kernels, out: Tensor, x: Tensor, { weight, bias }: Linear): void {
  kernels.matmul(out, x, weight, { accumulate: true })
  if (bias) kernels.add(out, bias)
}

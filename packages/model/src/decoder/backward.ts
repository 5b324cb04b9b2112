/**
 * One decoder block forward, keeping what its gradients need, and backward: from the gradient of the residual
 * stream after the block to that before it. Gradients are closed forms (core's `GradientKernels`); those of
 * weights are left to the caller, who gets each linear's X and dY and may form dW = dYᵀ·X, its square, or nothing.
 */

import type { Kernels, NormGradients, Tensor, Weight } from '@lowbit/core'
import { attentionShape, type Block, type BlockContext, normalize, type Role } from './block.ts'

/** A linear whose weight may also be a dense tensor [outputs, inputs], as one that is being trained. */
export interface DifferentiableLinear {
  readonly weight: Weight | Tensor
  readonly bias?: Tensor
}

export interface DifferentiableBlock extends Omit<Block, 'linears'> {
  readonly linears: Partial<Record<Role, DifferentiableLinear>>
}

/** What one run of a block leaves for its gradients, [tokens, …] each. */
export interface BlockTrace {
  /** The residual stream before attention, and before the MLP. */
  readonly stream: Tensor
  readonly middle: Tensor
  readonly attentionInput: Tensor
  /** After the rotary positions. */
  readonly q: Tensor
  readonly k: Tensor
  readonly v: Tensor
  readonly attended: Tensor
  readonly mlpInput: Tensor
  /** Absent where the MLP has no gate. */
  readonly gate?: Tensor
  readonly up: Tensor
  readonly activated: Tensor
}

export interface BlockGradients {
  /** For each linear its inputs [tokens, inputs] and the gradient of its outputs; they last until it returns. */
  onLinear?(role: Role, input: Tensor, output: Tensor): void
  /** The gradients of keys behind RoPE and of values, [tokens, keyValueHeads · headSize]; they last until it returns. */
  onKeysAndValues?(keys: Tensor, values: Tensor): void
  /** Tensors that gradients of the norms are added to. */
  readonly attentionNorm?: Omit<NormGradients, 'input'>
  readonly mlpNorm?: Omit<NormGradients, 'input'>
}

/** Runs the block on a sequence that starts at position 0; x [tokens, hidden] is changed in place. */
export function traceBlock(
  context: BlockContext,
  block: DifferentiableBlock,
  x: Tensor,
): BlockTrace {
  const { kernels, config, cos, sin } = context
  const { hidden, headSize, heads, keyValueHeads, intermediate } = config
  const { query, key, value, attentionOutput, gate, up, down } = block.linears
  const run = (input: Tensor, columns: number, linear: DifferentiableLinear): Tensor => {
    const out = kernels.tensor(x.rows, columns)
    applyLinear(kernels, out, input, linear)
    return out
  }
  /** x += linear(input) */
  const extend = (input: Tensor, linear: DifferentiableLinear): void => {
    const out = run(input, hidden, linear)
    kernels.add(x, out)
    kernels.free(out)
  }
  const keep = (): Tensor => {
    const copy = kernels.tensor(x.rows, hidden)
    kernels.copy(copy, x)
    return copy
  }

  const stream = keep()
  const attentionInput = kernels.tensor(x.rows, hidden)
  normalize(context, attentionInput, x, block.attentionNorm)
  const q = run(attentionInput, heads * headSize, query!)
  const k = run(attentionInput, keyValueHeads * headSize, key!)
  const v = run(attentionInput, keyValueHeads * headSize, value!)
  kernels.rope(q, cos, sin, headSize, 0)
  kernels.rope(k, cos, sin, headSize, 0)
  const attended = kernels.tensor(x.rows, heads * headSize)
  kernels.attention(attended, q, k, v, { ...attentionShape(config), start: 0 })
  extend(attended, attentionOutput!)

  const middle = keep()
  const mlpInput = kernels.tensor(x.rows, hidden)
  normalize(context, mlpInput, x, block.mlpNorm)
  const gated = gate && run(mlpInput, intermediate, gate)
  const raised = run(mlpInput, intermediate, up!)
  const activated = kernels.tensor(x.rows, intermediate)
  kernels.activate(activated, gated ?? raised, gated && raised, config.activation)
  extend(activated, down!)
  return {
    ...{ stream, middle, attentionInput, q, k, v, attended },
    ...{ mlpInput, gate: gated, up: raised, activated },
  }
}

export function freeTrace(kernels: Kernels, trace: BlockTrace): void {
  kernels.free(...Object.values(trace).filter((tensor) => tensor !== undefined))
}

/** `gradient` [tokens, hidden], of a loss by the block's output, becomes that by its input. */
export function backwardBlock(
  context: BlockContext,
  block: DifferentiableBlock,
  trace: BlockTrace,
  gradient: Tensor,
  gradients: BlockGradients = {},
): void {
  const { kernels, config } = context
  const { hidden, headSize, heads, keyValueHeads, intermediate } = config
  const rows = gradient.rows
  const { linears } = block
  const norm = { kind: config.architecture.norm, epsilon: config.epsilon }
  const tensor = (columns: number): Tensor => kernels.tensor(rows, columns)
  /** input (+)= output·W, the gradient of a linear's inputs; the callback sees that of its outputs. */
  const through = (
    role: Role,
    x: Tensor,
    output: Tensor,
    input: Tensor,
    accumulate = false,
  ): void => {
    gradients.onLinear?.(role, x, output)
    withDense(kernels, linears[role]!.weight, (weight) =>
      kernels.multiplyTransposed(input, output, weight, { accumulate }),
    )
  }

  const dActivated = tensor(intermediate)
  through('down', trace.activated, gradient, dActivated)
  const input = tensor(hidden)
  if (trace.gate) {
    const dUp = tensor(intermediate)
    kernels.activateGradient(
      { gate: dActivated, up: dUp },
      dActivated,
      trace.gate,
      trace.up,
      config.activation,
    )
    through('gate', trace.mlpInput, dActivated, input)
    through('up', trace.mlpInput, dUp, input, true)
    kernels.free(dUp)
  } else {
    kernels.activateGradient(
      { gate: dActivated },
      dActivated,
      trace.up,
      undefined,
      config.activation,
    )
    through('up', trace.mlpInput, dActivated, input)
  }
  kernels.free(dActivated)
  const mlp = { ...gradients.mlpNorm, input: gradient }
  kernels.normGradient(mlp, input, trace.middle, block.mlpNorm.gain, norm)

  const dAttended = tensor(heads * headSize)
  through('attentionOutput', trace.attended, gradient, dAttended)
  const q = tensor(heads * headSize)
  const [k, v] = [tensor(keyValueHeads * headSize), tensor(keyValueHeads * headSize)]
  kernels.attentionGradient({ q, k, v }, dAttended, trace.q, trace.k, trace.v, {
    ...attentionShape(config),
    start: 0,
  })
  gradients.onKeysAndValues?.(k, v)
  turnBack(context, [q, k])
  through('query', trace.attentionInput, q, input)
  through('key', trace.attentionInput, k, input, true)
  through('value', trace.attentionInput, v, input, true)
  const attention = { ...gradients.attentionNorm, input: gradient }
  kernels.normGradient(attention, input, trace.stream, block.attentionNorm.gain, norm)
  kernels.free(dAttended, q, k, v, input)
}

/** A rotation's gradient is the rotation by the opposite angle. */
function turnBack({ kernels, config, cos, sin }: BlockContext, tensors: readonly Tensor[]): void {
  const opposite = kernels.tensor(sin.rows, sin.columns)
  const minus = kernels.upload(new Float32Array(sin.columns).fill(-1), 1, sin.columns)
  kernels.scale(opposite, sin, { columns: minus })
  for (const tensor of tensors) kernels.rope(tensor, cos, opposite, config.headSize, 0)
  kernels.free(opposite, minus)
}

function isTensor(weight: Weight | Tensor): weight is Tensor {
  return 'type' in weight
}

function applyLinear(
  kernels: Kernels,
  out: Tensor,
  x: Tensor,
  { weight, bias }: DifferentiableLinear,
): void {
  if (isTensor(weight)) kernels.multiply(out, x, weight)
  else kernels.matmul(out, x, weight)
  if (bias) kernels.add(out, bias)
}

/** A loaded weight is there as a dense tensor for as long as `use` runs. */
function withDense(kernels: Kernels, weight: Weight | Tensor, use: (weight: Tensor) => void): void {
  if (isTensor(weight)) {
    use(weight)
    return
  }
  const dense = kernels.tensor(weight.rows, weight.columns)
  kernels.gather(dense, weight)
  use(dense)
  kernels.free(dense)
}

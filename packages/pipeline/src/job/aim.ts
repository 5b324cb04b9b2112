/**
 * Where a layer's weight is aimed. By then the layers before it have erred: its inputs X are not the original
 * model's X₀. The weight that comes closest to the original's outputs from these inputs is
 *
 *     W* = argmin ‖X₀·Wᵀ + R − X·W*ᵀ‖² + λ‖W* − W‖² = W + (W·(X₀ − X)ᵀX + RᵀX)·(XᵀX + λ)⁻¹
 *
 * with R what the residual stream itself has lost, for layers that add to it. (X₀ − X alone is the asymmetric
 * calibration of GPTAQ, 2504.02692.)
 */

import type { Kernels, Tensor } from '@lowbit/core'
import { STEPS } from '@lowbit/model'
import { breathe } from './breathe.ts'
import { stepInput, type Walk } from './walk.ts'

/**
 * λ as a share of the mean diagonal of XᵀX: so much, and more the fewer tokens there are for each column, so that
 * a short text does not lead weights astray.
 */
const DAMPING = 0.2

export interface Measured {
  /** Σ x xᵀ / tokens of a step's inputs. */
  readonly hessian: Tensor
  readonly aim?: Aim
}

export interface Aim {
  /** Xᵀ(X₀ − X) / tokens, as a product that sums over columns takes it. */
  readonly drift: Tensor
  /** RᵀX / tokens, for steps that add to the residual stream. */
  readonly residual?: Tensor
  /** U with (XᵀX / tokens + λ)⁻¹ = UᵀU, and its transpose. */
  readonly factor: Tensor
  readonly turned: Tensor
}

/** One pass over the calibration set; `original` walks through the block as it was. */
export async function measureStep(
  walk: Walk,
  original: Walk | undefined,
  index: number,
): Promise<Measured> {
  const { kernels, config } = walk.opened
  const size = STEPS[index].inputSize(config)
  const hessian = kernels.tensor(size, size)
  const adds = STEPS[index].enter === undefined
  const drift = original && kernels.tensor(size, size)
  const residual = original && adds ? kernels.tensor(config.hidden, size) : undefined
  const tokens = walk.streams.reduce((sum, { rows }) => sum + rows, 0)
  for (const [i, x] of walk.streams.entries()) {
    walk.signal?.throwIfAborted()
    const { input, own } = stepInput(walk, index, i)
    kernels.gram(hessian, input, 1 / tokens)
    if (original && drift) {
      const before = stepInput(original, index, i)
      kernels.crossGram(drift, input, before.input, 1 / tokens)
      if (residual) {
        const lost = difference(kernels, original.streams[i], x)
        kernels.crossGram(residual, lost, input, 1 / tokens)
        kernels.free(lost)
      }
      if (before.own) kernels.free(before.input)
    }
    if (own) kernels.free(input)
    await breathe()
  }
  if (!drift) return { hessian }
  const cross = difference(kernels, drift, hessian)
  kernels.copy(drift, cross)
  kernels.free(cross)
  const factor = kernels.tensor(size, size)
  const diagonal = kernels.tensor(1, size)
  kernels.diagonal(diagonal, hessian)
  const mean = (await kernels.read(diagonal)).reduce((sum, x) => sum + x, 0) / size
  const done = await kernels.factorInverse(factor, hessian, (DAMPING + size / tokens) * mean)
  const turned = kernels.tensor(size, size)
  kernels.transpose(turned, factor)
  kernels.free(diagonal)
  if (done && mean > 0) return { hessian, aim: { drift, residual, factor, turned } }
  // Nothing was measured that a weight could be aimed by.
  kernels.free(drift, factor, turned, ...(residual ? [residual] : []))
  return { hessian }
}

export function freeMeasured(kernels: Kernels, { hessian, aim }: Measured): void {
  kernels.free(hessian)
  if (!aim) return
  kernels.free(aim.drift, aim.factor, aim.turned, ...(aim.residual ? [aim.residual] : []))
}

/** weight [rows, size] becomes W*. */
export function aimWeight(kernels: Kernels, weight: Tensor, aim: Aim): void {
  const { rows, columns } = weight
  const pull = kernels.tensor(rows, columns)
  const half = kernels.tensor(rows, columns)
  kernels.multiply(pull, weight, aim.drift)
  if (aim.residual) kernels.add(pull, aim.residual)
  kernels.multiply(half, pull, aim.factor)
  kernels.multiply(pull, half, aim.turned)
  kernels.add(weight, pull)
  kernels.free(pull, half)
}

/** a − b as a new tensor. */
function difference(kernels: Kernels, a: Tensor, b: Tensor): Tensor {
  const out = kernels.tensor(a.rows, a.columns)
  const minus = kernels.upload(new Float32Array(b.rows).fill(-1), b.rows, 1)
  kernels.scale(out, b, { rows: minus })
  kernels.add(out, a)
  kernels.free(minus)
  return out
}

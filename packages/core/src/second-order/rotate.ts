/** A random rotation of a layer's inputs, which spreads outliers over many columns (QuIP#, 2402.04396, section 3). */

import type { Rotation } from '../matrix/types.ts'
import type { Kernels, Tensor } from '../plugins/kernels.ts'

/** Random signs and Hadamard blocks of the largest power of two that divides `size`. */
export function randomRotation(size: number, random: () => number): Rotation {
  let block = 1
  while (size % (2 * block) === 0) block *= 2
  const bytes = Math.ceil(size / 8)
  return { block, signs: Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256)) }
}

/** The weight and Hessian that a layer has for rotated inputs: W·Rᵀ and R·H·Rᵀ. The caller frees both. */
export function rotateLayer(
  kernels: Kernels,
  weight: Tensor,
  hessian: Tensor,
  rotation: Rotation,
): { weight: Tensor; hessian: Tensor } {
  const turned = kernels.tensor(weight.rows, weight.columns)
  kernels.copy(turned, weight)
  kernels.rotate(turned, rotation)
  const half = kernels.tensor(hessian.rows, hessian.columns)
  kernels.copy(half, hessian)
  kernels.rotate(half, rotation)
  const both = kernels.tensor(hessian.rows, hessian.columns)
  kernels.transpose(both, half)
  kernels.rotate(both, rotation)
  kernels.free(half)
  return { weight: turned, hessian: both }
}

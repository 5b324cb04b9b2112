/** The triangular factor of the damped inverse Hessian, in the order of quantizing. */

import { LowbitError } from '../errors.ts'
import type { Kernels, Tensor } from '../plugins/kernels.ts'

export interface Factor {
  /** Upper triangular U with (H + λ1)⁻¹ = UᵀU, in the order of quantizing. */
  readonly factor: Tensor
  /** What was added to the diagonal in the end. */
  readonly lambda: number
}

/** Damping grows by itself up to this share of the mean diagonal before the Hessian counts as useless. */
const MOST_DAMPING = 1

/**
 * Factors the Hessian, with as much damping as it needs: `damping` (a share of the mean diagonal), doubled while
 * the damped matrix is not positive definite. `diagonal` is the Hessian's. The caller frees the factor.
 */
export async function factorHessian(
  kernels: Kernels,
  hessian: Tensor,
  diagonal: Float32Array,
  order: Uint32Array | undefined,
  damping: number,
  name: string,
): Promise<Factor> {
  const mean = diagonal.reduce((sum, x) => sum + x, 0) / diagonal.length
  if (!Number.isFinite(mean)) {
    throw new LowbitError(
      'bad-hessian',
      'the calibration activations hold NaN or infinite values; check the checkpoint or calibrate on another text',
      { tensor: name },
    )
  }
  const factor = kernels.tensor(hessian.rows, hessian.columns)
  // A layer that never saw an input has no Hessian to speak of: all columns weigh the same.
  const unit = mean > 0 ? mean : 1
  for (let share = damping; ; share = Math.min(MOST_DAMPING, share * 2)) {
    const done = await kernels.factorInverse(factor, hessian, share * unit, order)
    if (done) return { factor, lambda: share * unit }
    if (share >= MOST_DAMPING) break
  }
  kernels.free(factor)
  throw new LowbitError(
    'bad-hessian',
    `the Hessian can't be inverted even with a damping of ${MOST_DAMPING}; calibrate on more text`,
    { tensor: name, option: 'damping' },
  )
}
